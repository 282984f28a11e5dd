package p2p

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p-kad-dht/amino"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

const (
	// rejoinFirst and rejoinMost bound the time between two attempts at a
	// member that was not reached: soon at first, as a fleet that boots
	// together joins itself, rarely later, as most of them are gone for good.
	rejoinFirst = 250 * time.Millisecond
	rejoinMost  = 30 * time.Second
)

// joiner connects to the members that were named, and again when they are
// lost.
type joiner struct {
	n     *Node
	tried chan struct{}             // closed after the first attempt at all of them
	lost  map[peer.ID]chan struct{} // wakes the goroutine of that member
}

func newJoiner(n *Node) *joiner {
	j := &joiner{n: n, tried: make(chan struct{}), lost: make(map[peer.ID]chan struct{})}
	for _, info := range n.s.join {
		j.lost[info.ID] = make(chan struct{}, 1)
	}
	return j
}

// run keeps up the connections until ctx is done.
func (j *joiner) run(ctx context.Context) {
	var all, first sync.WaitGroup
	for _, info := range j.n.s.join {
		first.Add(1)
		all.Go(func() { j.keep(ctx, info, first.Done) })
	}
	all.Go(func() {
		first.Wait()
		close(j.tried)
	})
	all.Wait()
}

// keep connects to one member and calls tried after the first attempt.
func (j *joiner) keep(ctx context.Context, info peer.AddrInfo, tried func()) {
	wait := rejoinFirst
	for {
		err := j.join(ctx, info)
		if tried != nil {
			tried()
			tried = nil
		}
		if err == nil {
			wait = rejoinFirst
			j.n.log.Debug("joined", "peer", info.ID)
			select {
			case <-ctx.Done():
				return
			case <-j.lost[info.ID]:
			}
		} else if ctx.Err() == nil {
			j.n.log.Debug("not joined", "peer", info.ID, "err", err)
		}
		// Full jitter: members that lost the same one do not come back as one.
		pause := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		wait = min(2*wait, rejoinMost)
	}
}

// join connects to a member and waits until the DHT has taken it in, which it
// does in its own time: before that a lookup asks nobody and finds nothing.
func (j *joiner) join(ctx context.Context, info peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	// libp2p would not try an address again for 5 s after it was refused; here
	// the pauses are chosen by keep.
	if s, ok := j.n.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	if err := j.n.host.Connect(ctx, info); err != nil {
		return err
	}
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	table := j.n.dht.RoutingTable()
	// With a bucketful of others it does not matter whether this one fits in.
	for table.Find(info.ID) == "" && table.Size() < amino.DefaultBucketSize {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		}
	}
	return nil
}

// watch follows who connects and who leaves, until ctx is done.
func (n *Node) watch(ctx context.Context) error {
	sub, err := n.host.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged), eventbus.BufSize(1024))
	if err != nil {
		return err
	}
	defer sub.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-sub.Out():
			change, ok := e.(event.EvtPeerConnectednessChanged)
			if !ok {
				continue
			}
			if change.Connectedness == network.Connected {
				n.arrived(ctx, change.Peer)
			} else {
				n.left(change.Peer)
			}
		}
	}
}

func (n *Node) arrived(ctx context.Context, id peer.ID) {
	n.avoid.Pardon(id)
	n.announcer.wake()
	for _, c := range n.host.Network().ConnsToPeer(id) {
		if c.Stat().Direction != network.DirOutbound {
			continue // the other side says hello
		}
		ctx, end, ok := n.tasks.begin(ctx)
		if !ok {
			return
		}
		go func() {
			defer end()
			n.greeter.greet(ctx, id)
		}()
		return
	}
}

func (n *Node) left(id peer.ID) {
	n.greeter.forget(id)
	select {
	case n.joiner.lost[id] <- struct{}{}: // nil for members that were not named
	default:
	}
}

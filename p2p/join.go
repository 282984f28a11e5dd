package p2p

import (
	"context"
	"fmt"
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

// joiner connects to the members that were named, or that are where it was
// told, and again when they are lost.
type joiner struct {
	n       *Node
	names   network.MultiaddrDNSResolver
	tried   chan struct{} // closed after the first attempt at all targets
	targets []target
	lost    map[peer.ID]chan struct{} // wakes the goroutine of that member
	alone   []chan struct{}           // wakes those of the doors
}

// target is something to join, and what says that it has to be joined again.
type target struct {
	name  fmt.Stringer
	join  func(context.Context) error
	lost  <-chan struct{}
	again time.Duration // after so long, too; 0: never
}

func newJoiner(n *Node) *joiner {
	j := &joiner{n: n, names: newResolver(n.s.Resolver), tried: make(chan struct{}), lost: make(map[peer.ID]chan struct{})}
	for _, info := range n.s.join {
		lost := make(chan struct{}, 1)
		j.lost[info.ID] = lost
		j.targets = append(j.targets, target{info, func(ctx context.Context) error { return j.join(ctx, info) }, lost, 0})
	}
	for _, door := range n.s.doors {
		alone := make(chan struct{}, 1)
		j.alone = append(j.alone, alone)
		j.targets = append(j.targets, target{door, func(ctx context.Context) error { return j.enter(ctx, door) }, alone, lookAgain})
	}
	return j
}

// run keeps up the connections until ctx is done.
func (j *joiner) run(ctx context.Context) {
	var all, first sync.WaitGroup
	for _, t := range j.targets {
		first.Add(1)
		all.Go(func() { j.keep(ctx, t, sync.OnceFunc(first.Done)) })
	}
	all.Go(func() {
		first.Wait()
		close(j.tried)
	})
	all.Wait()
}

// keep joins a target again and again, and calls tried after the first attempt,
// or when that takes too long: a name server may.
func (j *joiner) keep(ctx context.Context, t target, tried func()) {
	defer tried() // also if ctx ended before it began
	defer time.AfterFunc(dialTimeout, tried).Stop()
	wait := rejoinFirst
	for ctx.Err() == nil {
		err := t.join(ctx)
		tried()
		if err == nil {
			wait = rejoinFirst
			j.n.log.Debug("joined", "target", t.name)
			pause(ctx, t.again, t.lost)
		} else if ctx.Err() == nil {
			j.n.log.Debug("not joined", "target", t.name, "err", err)
		}
		pause(ctx, wait, nil)
		wait = min(2*wait, rejoinMost)
	}
}

// pause waits for about d (0: for ever), or for wake. It is never the same:
// members that lost the same one do not come back as one.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d/2 + rand.N(d/2))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-over:
	case <-wake:
	}
}

// left wakes those who have to do with a member that has gone.
func (j *joiner) left(id peer.ID) {
	woken := []chan struct{}{j.lost[id]} // nil for members that were not named
	if !j.n.Joined() {
		woken = append(woken, j.alone...)
	}
	for _, c := range woken {
		select {
		case c <- struct{}{}:
		default:
		}
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
	n.joiner.left(id)
	n.reserver.wake()
}

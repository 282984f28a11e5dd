package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/p2p/penalty"
)

const (
	dhtPrefix = "/shoal"
	// recordValidity is how long the DHT believes an announcement. There is no
	// withdrawal, so it is also how long a dead holder is named.
	recordValidity = 20 * time.Minute
	// addressValidity is how long members hand out a holder's addresses with
	// it: longer than the record, so that a lookup needs no second one.
	addressValidity = 30 * time.Minute
	// queryTimeout bounds one refresh query of the routing table.
	queryTimeout = 5 * time.Second
	// provideTimeout bounds an announcement; it tells up to 20 members, and
	// waits for the slowest of them.
	provideTimeout = 5 * time.Second
	// lookupTimeout bounds a lookup and all dials that follow from it.
	lookupTimeout = 8 * time.Second
	// maxHolders bounds the holders of one lookup that are dialled; a fill
	// uses about ten.
	maxHolders = 32
)

// Holder is a connected member that announced a blob: it has it, is filling
// it, or had it within recordValidity.
type Holder struct {
	Peer peer.ID
	// Pieces are the "host:port" of its piece channel, best first.
	Pieces []string
	Zone   string
}

func newDHT(h host.Host) (*dht.IpfsDHT, error) {
	d, err := dht.New(h,
		dht.ProtocolPrefix(dhtPrefix),
		dht.Mode(dht.ModeServer),
		dht.DisableValues(),
		dht.RoutingTableRefreshQueryTimeout(queryTimeout),
		dht.ProviderManagerOpts(
			records.ProvideValidity(recordValidity),
			records.ProviderAddrTTL(addressValidity),
			records.CleanupInterval(recordValidity/4)),
	)
	if err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	return d, nil
}

// hidden reports whether the swarm is to hear nothing of a blob.
func (n *Node) hidden(d digest.Digest) bool { return n.s.Cache.Reach(d) == blobcache.Permitted }

// Provide tells the swarm that this node has the blob, or is filling it, and
// returns when that was sent to those members who will be asked. The DHT does
// not acknowledge it: they know some milliseconds later, and not at all if the
// connection ends before. Provide does not renew the announcement. With nobody
// to tell it returns nil: members that come later ask this node itself. It
// waits at most 5 s. What only permitted clients may have is not announced.
func (n *Node) Provide(ctx context.Context, d digest.Digest) error {
	ctx, end, ok := n.tasks.begin(ctx)
	if !ok {
		return ErrClosed
	}
	defer end()
	if n.hidden(d) {
		return nil
	}
	return n.provide(ctx, n.s.Key.CID(d))
}

func (n *Node) provide(ctx context.Context, name cid.Cid) error {
	ctx, cancel := context.WithTimeout(ctx, provideTimeout)
	defer cancel()
	err := n.dht.Provide(ctx, name, true)
	switch {
	case err == nil:
		n.metrics.provides.WithLabelValues("ok").Inc()
	case errors.Is(err, kb.ErrLookupFailure): // the routing table is empty
		n.metrics.provides.WithLabelValues("alone").Inc()
		return nil
	default:
		n.metrics.provides.WithLabelValues("error").Inc()
		err = fmt.Errorf("announcing: %w", err)
	}
	return err
}

// Holders looks for members that have the blob and yields each as soon as it
// is connected and has said where its pieces are. The channel is closed when
// the lookup has ended, ctx is done, or 8 s have passed; the caller reads it
// to its end or cancels ctx. This node is never among them.
// What only permitted clients may have is not looked up.
func (n *Node) Holders(ctx context.Context, d digest.Digest) <-chan Holder {
	out := make(chan Holder)
	if n.hidden(d) {
		close(out)
		return out
	}
	ctx, end, ok := n.tasks.begin(ctx)
	if !ok {
		close(out)
		return out
	}
	go func() {
		defer end()
		defer close(out)
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		if n.lookup(ctx, n.s.Key.CIDs(d), out) > 0 {
			n.metrics.lookups.WithLabelValues("found").Inc()
		} else {
			n.metrics.lookups.WithLabelValues("none").Inc()
		}
	}()
	return out
}

// lookup searches under all names at once, reaches every new holder in a
// goroutine of its own, and returns how many were sent to out.
func (n *Node) lookup(ctx context.Context, names []cid.Cid, out chan<- Holder) int {
	var (
		mu   sync.Mutex
		seen = make(map[peer.ID]bool)
		sent int
		wg   sync.WaitGroup
	)
	reach := func(info peer.AddrInfo) {
		h, err := n.reach(ctx, info)
		if err != nil {
			n.log.Debug("holder not reached", "peer", info.ID, "err", err)
			return
		}
		select {
		case out <- h:
			mu.Lock()
			sent++
			mu.Unlock()
		case <-ctx.Done():
		}
	}
	for _, name := range names {
		wg.Go(func() {
			for info := range n.dht.FindProvidersAsync(ctx, name, maxHolders) {
				mu.Lock()
				// A holder that comes without addresses may come again with them.
				fresh := info.ID != n.s.id && !seen[info.ID] && len(seen) < maxHolders &&
					(len(info.Addrs) > 0 || n.connected(info.ID))
				if fresh {
					seen[info.ID] = true
				}
				mu.Unlock()
				if fresh {
					wg.Go(func() { reach(info) })
				}
			}
		})
	}
	wg.Wait()
	return sent
}

// unreachable is how long a holder that could not be reached is left alone: the
// DHT names a dead one for recordValidity, and each lookup would dial it again.
func unreachable() penalty.Terms {
	return penalty.Terms{First: 5 * time.Second, Most: 2 * time.Minute, Members: 1024}
}

// reach connects to a holder and learns its hello.
func (n *Node) reach(ctx context.Context, info peer.AddrInfo) (Holder, error) {
	if !n.connected(info.ID) {
		if n.avoid.Holds(info.ID, time.Now()) {
			return Holder{}, errors.New("left alone after it did not answer")
		}
		dial, cancel := context.WithTimeout(ctx, dialTimeout)
		err := n.host.Connect(dial, info)
		cancel()
		if ctx.Err() != nil {
			return Holder{}, ctx.Err() // says nothing about the holder
		}
		if err != nil {
			n.metrics.dials.WithLabelValues("error").Inc()
			n.avoid.Add(info.ID, time.Now())
			return Holder{}, err
		}
		n.metrics.dials.WithLabelValues("ok").Inc()
	}
	h, err := n.greeter.ask(ctx, info.ID)
	if err != nil {
		if ctx.Err() == nil {
			n.avoid.Add(info.ID, time.Now())
		}
		return Holder{}, err
	}
	return Holder{Peer: info.ID, Pieces: h.Pieces, Zone: h.Zone}, nil
}

func (n *Node) connected(id peer.ID) bool {
	return n.host.Network().Connectedness(id) == network.Connected
}

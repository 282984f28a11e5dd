package p2p

import (
	"context"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/exchange"
)

// Fetch returns the fill of d in this node's cache, joined or started, as soon
// as a member or the origin has committed itself to it; see Exchange.Fetch.
// After the node has stopped it is exchange.ErrClosed.
func (n *Node) Fetch(ctx context.Context, d blob.Descriptor, origin blob.Source) (*blobcache.Fill, error) {
	return n.exchange.Fetch(ctx, d, origin)
}

// Fills lists the running fills, for people to look at.
func (n *Node) Fills() []exchange.FillStatus { return n.exchange.Fills() }

// members is the swarm as the exchange sees it.
type members struct{ n *Node }

// Near returns connected members whose piece channel is known, those of the
// own zone first.
func (m members) Near(most int) ([]exchange.Holder, int) {
	var near, far []exchange.Holder
	m.n.greeter.mu.Lock()
	for id, h := range m.n.greeter.known {
		holder := exchange.Holder{Peer: id, Pieces: h.Pieces, Far: m.far(h.Zone)}
		if holder.Far {
			far = append(far, holder)
		} else {
			near = append(near, holder)
		}
	}
	m.n.greeter.mu.Unlock()
	near = append(near, far...)
	return near[:min(most, len(near))], m.n.Peers()
}

// Find looks the holders up.
func (m members) Find(ctx context.Context, d digest.Digest) <-chan exchange.Holder {
	out := make(chan exchange.Holder)
	go func() {
		defer close(out)
		for h := range m.n.Holders(ctx, d) {
			select {
			case out <- exchange.Holder{Peer: h.Peer, Pieces: h.Pieces, Far: m.far(h.Zone)}:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// Announce is Provide.
func (m members) Announce(ctx context.Context, d digest.Digest) error { return m.n.Provide(ctx, d) }

// far reports whether zone is another one. Nodes that name none are nowhere.
func (m members) far(zone string) bool { return zone != m.n.s.Zone }

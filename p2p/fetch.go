package p2p

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
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

// Known is a member that this node is connected to, traded with or banned, for
// people to look at.
type Known struct {
	Member // without an address if it is not connected
	Trade  exchange.Trade
}

// Known lists them, in the order of their IDs. Of those that are gone the ones
// that were met longest ago are forgotten.
func (n *Node) Known() []Known {
	all := make(map[peer.ID]Known)
	for _, t := range n.exchange.Trades() {
		all[t.Peer] = Known{Member: Member{Peer: t.Peer}, Trade: t}
	}
	for _, m := range n.Members() {
		all[m.Peer] = Known{Member: m, Trade: all[m.Peer].Trade}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Known) int { return cmp.Compare(a.Peer, b.Peer) })
}

// members is the swarm as the exchange sees it.
type members struct{ n *Node }

// Self returns this node as it tells others.
func (m members) Self() exchange.Holder {
	return exchange.Holder{Peer: m.n.s.id, Pieces: m.n.pieceAddrs(), Zone: m.n.s.Zone}
}

// Near returns connected members whose piece channel is known, those of the
// own zone first.
func (m members) Near(most int) ([]exchange.Holder, int) {
	if most == 0 {
		return nil, m.n.Peers()
	}
	var near, far []exchange.Holder
	m.n.greeter.mu.Lock()
	for id, h := range m.n.greeter.known {
		holder := exchange.Holder{Peer: id, Pieces: h.Pieces, Zone: h.Zone}
		if h.Zone != m.n.s.Zone {
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
			case out <- exchange.Holder{Peer: h.Peer, Pieces: h.Pieces, Zone: h.Zone}:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// Announce is Provide.
func (m members) Announce(ctx context.Context, d digest.Digest) error { return m.n.Provide(ctx, d) }

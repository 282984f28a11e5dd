package p2p

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/p2p/exchange"
)

// Whole asks a connected member whether it has a blob whole: a round trip, at most
// some seconds. That is its word. An error is of one that does not answer. Of what
// only permitted clients may have members say that it is not there.
func (n *Node) Whole(ctx context.Context, id peer.ID, d digest.Digest) (bool, error) {
	ctx, end, ok := n.tasks.begin(ctx)
	if !ok {
		return false, ErrClosed
	}
	defer end()
	h, err := n.greeter.ask(ctx, id)
	if err != nil {
		return false, err
	}
	return n.exchange.Whole(ctx, exchange.Holder{Peer: id, Pieces: h.Pieces, Zone: h.Zone}, d)
}

// Order has a connected member do what a statement says (statement.Preheat, as it
// is printed), and calls hear with what it tells until it has ended or ctx has; it
// goes on then. Whether the statement counts is for the member to say.
func (n *Node) Order(ctx context.Context, id peer.ID, body []byte, hear func(told []byte)) error {
	ctx, end, ok := n.tasks.begin(ctx)
	if !ok {
		return ErrClosed
	}
	defer end()
	return n.preheater.ask(ctx, id, body, hear)
}

package exchange

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// errSilent: a member that did not answer lately, or lied, is not asked.
var errSilent = errors.New("it did not answer lately, or is banned")

// Whole asks a member whether it has a blob whole, which is its word. It takes a
// round trip, and at most some seconds; one that does not answer is not asked for
// a while, by fills neither.
func (x *Exchange) Whole(ctx context.Context, h Holder, d digest.Digest) (bool, error) {
	if now := time.Now(); x.silent.Holds(h.Peer, now) || x.bans.Holds(h.Peer, now) {
		return false, errSilent
	}
	info, err := x.client.info(ctx, h, blob.Descriptor{Digest: d, Size: blob.UnknownSize})
	switch {
	case unanswered(err) && ctx.Err() == nil:
		x.silent.Add(h.Peer, time.Now())
	case err == nil || errors.Is(err, errGone):
		x.silent.Pardon(h.Peer)
	}
	if errors.Is(err, errGone) {
		return false, nil
	}
	return info.Whole, err
}

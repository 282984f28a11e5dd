package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/manifest"
	"shoal/proxy/origin"
	"shoal/proxy/policy"
	"shoal/proxy/request"
)

// A registry with "access: client" is asked in the name of each client, and
// what came by way of it is in the cache for those only whom it permits it, by
// whatever name they ask. So two questions stand before each byte of a content:
// may this client have it in this repository (admit), and is what the cache has
// of it this repository's to give (mine)?

// errPast: what the cache has is not this repository's to give; what the
// registry itself gives is.
var errPast = fmt.Errorf("%w: what the cache has of it is for others", blob.ErrNotFound)

// bearer returns the client's token as it came, or "". Nothing but tokens is
// passed on: a password is for one host, and this is another.
func bearer(h http.Header) string {
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return ""
	}
	return h.Get("Authorization")
}

// identify has the registry asked in the client's name, if it is to be.
func (x *exchange) identify(repo *origin.Repository) {
	x.repo, x.named = repo, repo.String()
	if x.by = repo.ByClient(); x.by != nil {
		x.bearer = bearer(x.r.Header)
		x.who = x.book.Who(x.bearer)
		x.repo = repo.As(x.bearer)
	}
}

func (x *exchange) place(d digest.Digest) policy.Place {
	return policy.Place{Repository: x.named, Digest: d}
}

// confirm asks the registry, in whose name it is to be, whether it has d.
func (x *exchange) confirm(d digest.Digest) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		if x.req.Kind == request.Blob {
			_, err = x.repo.Stat(ctx, blob.Descriptor{Digest: d, Size: blob.UnknownSize})
		} else {
			_, err = x.repo.Resolve(ctx, d.String(), manifest.Accept())
		}
		return err
	}
}

// admit returns nil if the client may have d in this repository.
func (x *exchange) admit(ctx context.Context, d digest.Digest) error {
	if x.by == nil {
		return nil
	}
	verdict, err := x.book.Permit(ctx, x.who, x.place(d), x.by.Lease, x.confirm(d))
	x.metrics.decide(verdict)
	return err
}

// mine tells whether what the cache has of d, or gets, is this repository's to
// give. If it is not, the registry itself may have it.
func (x *exchange) mine(ctx context.Context, d digest.Digest) (bool, error) {
	if x.sure || x.cache.Reach(d) == blobcache.Everybody {
		return true, nil
	}
	if x.by != nil {
		if x.book.Confirmed(x.place(d)) {
			x.sure = true
		}
		if x.sure || !x.coming(d) { // what does not come yet is asked about again
			return true, nil
		}
		verdict, err := x.book.Ask(ctx, x.who, x.place(d), x.by.Lease, x.confirm(d))
		x.metrics.decide(verdict)
		x.sure = err == nil
		return x.sure, err
	}
	if !x.repo.Listed() { // anybody can say that he has what he wants to see
		return false, nil
	}
	if _, err := x.book.Ask(ctx, policy.Who{}, x.place(d), 0, x.confirm(d)); err != nil {
		return false, err
	}
	x.cache.Widen(d)
	return true, nil
}

// still is mine for what comes from the cache or a fill already: others may
// have joined the fill, whose bytes are not for everybody.
func (x *exchange) still(ctx context.Context, d digest.Digest) error {
	mine, err := x.mine(ctx, d)
	if err == nil && !mine {
		err = errPast
	}
	return err
}

// restrict keeps blobs for whom their registry permits them, before any byte of
// them comes. The error is blob.ErrNoSpace.
func (x *exchange) restrict(blobs ...digest.Digest) error {
	if x.by == nil {
		return nil
	}
	to := blobcache.Permitted
	if x.by.ShareWithSwarm {
		to = blobcache.Members
	}
	return x.cache.Restrict(to, blobs...)
}

// refer notes what a manifest that the client may have names. It returns whether
// the blobs of it may be fetched ahead.
func (x *exchange) refer(m *manifest.Manifest) bool {
	if x.by == nil {
		return true
	}
	named := m.Refs()
	x.book.Refer(x.who, x.named, x.by.Lease, named...)
	if err := x.restrict(named...); err != nil {
		x.log.Debug("nothing is fetched ahead", "error", err)
		return false
	}
	return true
}

// blobs and manifests return what fills ask: the repository, in the name of all
// clients that wait for something of it.
func (x *exchange) blobs() blob.Source {
	if x.by == nil {
		return x.repo.Blobs()
	}
	return x.wallets.of(x.repo, x.bearer).source(func(r *origin.Repository) blob.Source { return r.Blobs() })
}

func (x *exchange) manifests() blob.Source {
	if x.by == nil {
		return x.repo.Manifests(manifest.Accept())
	}
	return x.wallets.of(x.repo, x.bearer).source(func(r *origin.Repository) blob.Source { return r.Manifests(manifest.Accept()) })
}

// refuse tells a client that the registry refused it, as the registry did, and
// how to get a token. Only its bearer challenge is told on.
func (x *exchange) refuse(err error) (f failure, told bool) {
	if x.by == nil || !errors.Is(err, blob.ErrDenied) {
		return failure{}, false
	}
	if challenge := x.repo.Challenge(err); challenge != "" {
		x.w.Header().Set("WWW-Authenticate", challenge)
		return logIn(), true
	}
	return denied(err), true
}

// logIn is what a client is told with a challenge.
func logIn() failure {
	return failure{http.StatusUnauthorized, "UNAUTHORIZED", "the registry wants a token: log in to it"}
}

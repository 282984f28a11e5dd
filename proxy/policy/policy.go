// Package policy keeps the books on who may have what of registries that are
// asked in the name of each client. It decides by what the registry itself said
// to that client's token: it has no word of its own, asks nobody, and starts no
// goroutines but those of Book.Permit, which end with what they ask.
//
// A client may have a content of a repository for the time of a lease if the
// registry said so to its token, or if a manifest names it that this token got
// from this repository. The latter counts only for what the registry is known
// to have in that repository: some take manifests that name what is elsewhere.
//
// What always holds: a token is kept as a keyed hash only; a refusal is told to
// those who ask at the same moment and to nobody after; what is not in the books
// is not permitted; and the books have bounds, beyond which the oldest entries
// go.
package policy

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"shoal/blobcache/blob"
	"shoal/blobcache/lru"
)

const (
	// maxLeases is how many are kept: some 600 images of 50 blobs, each pulled
	// with a token of its own, in some 10 MiB. Whoever is forgotten costs one
	// question.
	maxLeases = 1 << 15
	// maxPlaces is how many contents are known to be in a repository.
	maxPlaces = 1 << 15
	// patience is how long a question may take that others wait for.
	patience = 9 * time.Second
)

// Who is a client, as far as it can be told: by its token. Clients without one
// are all the same.
type Who [sha256.Size]byte

// Place is a content of a repository, which is named with its registry.
type Place struct {
	Repository string
	Digest     digest.Digest
}

// Verdict is how a question was decided.
type Verdict string

// The verdicts.
const (
	Leased  Verdict = "leased"  // permitted before, or named by a manifest that was
	Granted Verdict = "granted" // the registry permitted it now
	Refused Verdict = "refused" // it did not
	Failed  Verdict = "failed"  // there was no answer, which permits nothing either
)

// Heard returns the verdict of a registry that answered with err.
func Heard(err error) Verdict {
	switch {
	case err == nil:
		return Granted
	case errors.Is(err, blob.ErrDenied), errors.Is(err, blob.ErrNotFound):
		return Refused
	}
	return Failed
}

// Book is made by New. It may be used by any goroutine.
type Book struct {
	now     func() time.Time
	secret  [32]byte
	flights singleflight.Group
	leases  *lru.Cache[key, time.Time] // by when they end
	places  *lru.Cache[Place, struct{}]
}

// key is a client and a Place, hashed: it is short, whatever names are long.
type key [sha256.Size]byte

// New returns an empty Book that tells the time by now.
func New(now func() time.Time) *Book {
	b := &Book{now: now, leases: lru.New[key, time.Time](maxLeases), places: lru.New[Place, struct{}](maxPlaces)}
	_, _ = rand.Read(b.secret[:]) // never fails
	return b
}

// Who returns whose Authorization header that is; "" is nobody's.
func (b *Book) Who(authorization string) (w Who) {
	mac := hmac.New(sha256.New, b.secret[:])
	_, _ = mac.Write([]byte(authorization)) // never fails
	mac.Sum(w[:0])
	return w
}

func keyOf(who Who, p Place) (k key) {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s%s %s", who[:], p.Repository, p.Digest) // neither has a space
	h.Sum(k[:0])
	return k
}

// Refer notes that a manifest which who may have in the repository names
// others. They are who's for the time of a lease.
func (b *Book) Refer(who Who, repository string, lease time.Duration, named ...digest.Digest) {
	until := b.now().Add(lease)
	for _, d := range named {
		b.leases.Add(keyOf(who, Place{repository, d}), until)
	}
}

// Grant notes that the registry permitted p to who.
func (b *Book) Grant(who Who, p Place, lease time.Duration) {
	b.Refer(who, p.Repository, lease, p.Digest)
	b.Confirm(p)
}

// Confirm notes that the registry has the content in that repository.
func (b *Book) Confirm(p Place) { b.places.Add(p, struct{}{}) }

// Confirmed tells whether it is known to have it there.
func (b *Book) Confirmed(p Place) bool { return b.places.Contains(p) }

// Leased tells whether who may have p without the registry being asked.
func (b *Book) Leased(who Who, p Place) bool {
	until, ok := b.leases.Get(keyOf(who, p))
	return ok && b.now().Before(until)
}

// Permit returns nil if who may have p: by a lease, else by what ask returns,
// which asks the registry in who's name. It is asked once for all that want to
// know at the same time, and goes on when the one who caused it has left. The
// error is ask's or ctx's.
func (b *Book) Permit(ctx context.Context, who Who, p Place, lease time.Duration, ask func(context.Context) error) (Verdict, error) {
	if b.Leased(who, p) {
		return Leased, nil
	}
	return b.Ask(ctx, who, p, lease, ask)
}

// Ask is Permit without regard to leases.
func (b *Book) Ask(ctx context.Context, who Who, p Place, lease time.Duration, ask func(context.Context) error) (Verdict, error) {
	k := keyOf(who, p)
	answer := b.flights.DoChan(hex.EncodeToString(k[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		err := ask(ctx)
		if err == nil {
			b.Grant(who, p, lease)
		}
		return nil, err
	})
	select {
	case <-ctx.Done():
		return Failed, context.Cause(ctx)
	case a := <-answer:
		return Heard(a.Err), a.Err
	}
}

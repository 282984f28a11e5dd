package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/lru"
)

const (
	// tagValidity is how long an upstream's word on a tag is good if the
	// operator says nothing else: long enough that a crowd of containers
	// starting at once costs one request, short enough that nobody who pushes a
	// tag can tell. Failures are never good for longer.
	tagValidity = time.Second
	maxTags     = 4096
	// askPatience bounds a question about a tag: there must be time left to
	// answer with what is known already.
	askPatience = lookupPatience - time.Second
	// tagRewritten is by how much the time of an answer on disk may be too
	// early: a crowd that asks each second is no reason to write each second.
	tagRewritten = time.Minute
)

// tags asks upstreams what a tag points to: once for all that ask at the same
// time or while the answer is good, failures included. A question lives on when
// the client that caused it leaves, for at most askPatience. Answers are kept
// on disk, for restarts and for when upstreams are down.
type tags struct {
	store   *blobcache.Cache
	flights singleflight.Group

	mu     sync.Mutex
	recent *lru.Cache[tagKey, tagAnswer]
	// era counts how often something was forgotten. What was asked in another
	// era is the answer of those who asked then, and nobody else's.
	era int
}

// tagKey names a question about a tag: registries choose by what a client
// accepts.
type tagKey struct {
	tag    string // REGISTRY/NAME:TAG
	accept string // what the client accepts, hashed: clients choose its length
	who    string // whom the answer is for, if it is not for everybody
}

func newAccepts(types []string) accepts {
	sum := sha256.Sum256([]byte(strings.Join(types, ",")))
	return accepts{types, hex.EncodeToString(sum[:])}
}

// below is the prefix of the names of all questions about the tag.
func below(tag string) string { return tag + "\n" }

// String is the name of the question in the store.
func (k tagKey) String() string { return below(k.tag) + k.accept }

type tagAnswer struct {
	desc blob.Descriptor
	err  error
	at   time.Time
	// confirmed: it was asked for again because the upstream did not have desc.
	confirmed bool
}

// good tells whether a still counts if answers may be maxAge old. Those of the
// future are of a clock that was wrong.
func (a tagAnswer) good(maxAge time.Duration) bool {
	if a.err != nil || maxAge < tagValidity {
		maxAge = tagValidity
	}
	age := time.Since(a.at)
	return age >= 0 && age < maxAge
}

func newTags(store *blobcache.Cache) *tags {
	return &tags{store: store, recent: lru.New[tagKey, tagAnswer](maxTags)}
}

// resolve returns what ask answers for key, or has answered within maxAge.
func (t *tags) resolve(ctx context.Context, key tagKey, maxAge time.Duration, ask func(context.Context) (blob.Descriptor, error)) (blob.Descriptor, error) {
	a, ok, era := t.fresh(key, maxAge)
	if ok {
		return a.desc, a.err
	}
	flight := t.flights.DoChan(fmt.Sprint(era, key), func() (any, error) {
		if a, ok, _ := t.fresh(key, maxAge); ok { // another flight has just landed
			return a.desc, a.err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askPatience)
		defer cancel()
		desc, err := ask(ctx)
		t.keep(key, era, tagAnswer{desc: desc, err: err, at: time.Now()})
		return desc, err
	})
	select {
	case <-ctx.Done():
		return blob.Descriptor{}, context.Cause(ctx)
	case r := <-flight:
		desc, _ := r.Val.(blob.Descriptor)
		return desc, r.Err
	}
}

// fresh returns the answer to key if it is good, and the era.
func (t *tags) fresh(key tagKey, maxAge time.Duration) (a tagAnswer, ok bool, era int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok = t.recent.Get(key)
	if !ok && maxAge > tagValidity {
		var kept blobcache.Tag
		kept, ok = t.store.Tag(key.String())
		a = tagAnswer{desc: kept.Manifest, at: kept.At}
	}
	return a, ok && a.good(maxAge), t.era
}

// keep takes in the answer to a question that was asked in era.
func (t *tags) keep(key tagKey, era int, a tagAnswer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if era != t.era {
		return
	}
	before, _ := t.recent.Peek(key)
	a.confirmed = before.confirmed && before.desc.Digest == a.desc.Digest
	t.recent.Add(key, a)
	if a.err != nil || key.who != "" { // who will be somebody else after a restart
		return
	}
	kept, ok := t.store.Tag(key.String())
	if age := a.at.Sub(kept.At); !ok || kept.Manifest != a.desc || age < 0 || age > tagRewritten {
		t.store.KeepTag(key.String(), blobcache.Tag{Manifest: a.desc, At: a.at})
	}
}

// doubt has the next client ask again what the tag of key is, because the
// upstream does not have d any more. What was only just confirmed is not asked
// again: clients by the thousand may want a tag that leads nowhere.
func (t *tags) doubt(key tagKey, d digest.Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.recent.Peek(key)
	if ok && (a.desc.Digest != d || a.confirmed && a.good(tagValidity)) {
		return
	}
	t.recent.Add(key, tagAnswer{desc: blob.Descriptor{Digest: d}, confirmed: true})
}

// last returns the newest answer about a tag that is at most maxAge old, was
// given to key or is of a type that the client accepts.
func (t *tags) last(key tagKey, accept []string, maxAge time.Duration) (blobcache.Tag, bool) {
	var newest blobcache.Tag
	for name, kept := range t.store.Tags(below(key.tag)) {
		fits := name == key.String() || slices.Contains(accept, kept.Manifest.MediaType)
		// A clock that was set back makes it no older than it is.
		if fits && time.Since(kept.At) <= maxAge && kept.At.After(newest.At) {
			newest = kept
		}
	}
	return newest, newest.Manifest.Digest != ""
}

// forget drops what is known of tags whose names in the store begin with
// prefix, where it is d, or all of it if d is empty, and returns how many
// answers it were.
func (t *tags) forget(prefix string, d digest.Digest) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.era++
	for _, key := range t.recent.Keys() {
		a, _ := t.recent.Peek(key)
		if strings.HasPrefix(key.String(), prefix) && (d == "" || a.desc.Digest == d) {
			t.recent.Remove(key)
		}
	}
	return t.store.ForgetTags(prefix, func(kept blobcache.Tag) bool { return d == "" || kept.Manifest.Digest == d })
}

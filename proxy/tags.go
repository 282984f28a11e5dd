package proxy

import (
	"context"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"shoal/blobcache/blob"
)

const (
	// tagValidity is how long an upstream's word on a tag is good: long enough
	// that a crowd of containers starting at once costs one request, short
	// enough that nobody who pushes a tag can tell.
	tagValidity = time.Second
	maxTags     = 4096
)

// tags asks upstreams what a tag points to: once for all that ask at the same
// time or within tagValidity, failures included. A question lives on when the
// client that caused it leaves, for at most lookupPatience.
type tags struct {
	flights singleflight.Group
	recent  *lru.Cache[string, tagAnswer]
}

type tagAnswer struct {
	desc blob.Descriptor
	err  error
	at   time.Time
}

func newTags() *tags {
	return &tags{recent: newLRU[string, tagAnswer](maxTags)}
}

// resolve returns what ask answers for key, or has just answered.
func (t *tags) resolve(ctx context.Context, key string, ask func(context.Context) (blob.Descriptor, error)) (blob.Descriptor, error) {
	if a, ok := t.fresh(key); ok {
		return a.desc, a.err
	}
	flight := t.flights.DoChan(key, func() (any, error) {
		if a, ok := t.fresh(key); ok { // another flight has just landed
			return a.desc, a.err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupPatience)
		defer cancel()
		desc, err := ask(ctx)
		t.recent.Add(key, tagAnswer{desc, err, time.Now()})
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

func (t *tags) fresh(key string) (tagAnswer, bool) {
	a, ok := t.recent.Get(key)
	return a, ok && time.Since(a.at) < tagValidity
}

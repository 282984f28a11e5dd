package blobcache

import (
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/images"
)

// usedGrain is how long a second use of a manifest is not noted for all that it
// names: the order of eviction needs no more.
const usedGrain = time.Second

// Refer notes what the manifest d names, which is here or on its way: they are
// one image from now on, used and evicted together. It is for manifests that
// were proven.
func (c *Cache) Refer(d digest.Digest, to ...digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blobs[d]
	if len(to) == 0 || e == nil && !c.filling(d) || slices.Equal(c.refs[d], to) {
		return
	}
	c.link(d, to)
	if e != nil && !e.proven.IsZero() {
		c.meta.PutBlob(d, c.record(e))
		c.useAll(e)
	}
}

// link notes what d names. The caller holds mu.
func (c *Cache) link(d digest.Digest, to []digest.Digest) {
	c.unlink(d)
	c.keptSet = nil
	c.refs[d] = to
	for _, t := range to {
		if c.parents[t] == nil {
			c.parents[t] = map[digest.Digest]struct{}{}
		}
		c.parents[t][d] = struct{}{}
	}
}

// unlink forgets what d names. The caller holds mu.
func (c *Cache) unlink(d digest.Digest) {
	to, ok := c.refs[d]
	if !ok {
		return
	}
	c.keptSet = nil
	delete(c.refs, d)
	for _, t := range to {
		if delete(c.parents[t], d); len(c.parents[t]) == 0 {
			delete(c.parents, t)
		}
	}
}

// filling tells whether d is on its way. The caller holds mu.
func (c *Cache) filling(d digest.Digest) bool {
	for k := range c.fills {
		if k.digest == d {
			return true
		}
	}
	return false
}

// links is who names whom. The caller of its functions holds mu.
func (c *Cache) links() images.Links {
	return images.Links{
		Refs:    func(d digest.Digest) []digest.Digest { return c.refs[d] },
		Parents: func(d digest.Digest) []digest.Digest { return slices.Collect(maps.Keys(c.parents[d])) },
	}
}

// Use counts as a use of d, without its bytes, and tells whether it is here.
func (c *Cache) Use(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blobs[d]
	if e == nil || e.proven.IsZero() || c.buried(d) {
		return false
	}
	c.use(e)
	return true
}

// use notes a use of e. The caller holds mu.
func (c *Cache) use(e *entry) {
	age := time.Since(e.used)
	if c.refs[e.desc.Digest] == nil || age < 0 || age >= usedGrain {
		c.useAll(e)
	}
}

// useAll makes e the last used one; a manifest together with the indexes that
// name it and with all that it leads to, so that an image ages as one. What names
// others is the older one of them. The caller holds mu.
func (c *Cache) useAll(e *entry) {
	d, now := e.desc.Digest, time.Now()
	if len(c.refs[d]) > 0 {
		for p := range c.parents[d] {
			c.touch(p, now)
		}
	}
	for _, t := range c.links().All(d) {
		c.touch(t, now)
	}
}

// touch notes a use of d, if it is here. The caller holds mu.
func (c *Cache) touch(d digest.Digest, now time.Time) {
	if e := c.blobs[d]; e != nil && e.place != nil {
		c.idle.touch(e, now)
		e.dirty = true
	}
}

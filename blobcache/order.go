package blobcache

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/images"
)

// tidyEvery is how often Run looks whether something is too old or too much.
const tidyEvery = time.Second

// victims returns what goes next: the image that was not used for longest, with
// all that no other image needs, if nothing of it is in use, on its way or
// pinned; or, if there is none left, a blob of which that is true. A partial blob
// and one of no image are images of their own here. With a time it is only an
// image of which nothing was used since before. The caller holds mu.
func (c *Cache) victims(before time.Time) []*entry {
	kept, coming := c.kept(), map[digest.Digest]bool{}
	for k := range c.fills {
		coming[k.digest] = true
	}
	var single *entry
	used := func(e *entry) bool { return !before.IsZero() && !e.used.Before(before) }
	for e := range c.idle.oldest {
		if used(e) {
			return nil
		}
		if e.pins > 0 || kept[e.desc.Digest] && !e.partial {
			continue
		}
		if single == nil {
			single = e
		}
		if e.partial {
			return []*entry{e}
		}
		if group := c.group(e, kept, coming); group != nil && !slices.ContainsFunc(group, used) {
			return group
		}
	}
	if single == nil || !before.IsZero() {
		return nil
	}
	return []*entry{single}
}

// group returns the entries of the oldest image that e is part of, nil if it
// must stay. The caller holds mu.
func (c *Cache) group(e *entry, kept, coming map[digest.Digest]bool) (group []*entry) {
	links := c.links()
	root := c.root(e.desc.Digest)
	for _, d := range links.All(root) {
		if coming[d] {
			return nil
		}
	}
	for _, d := range links.Alone(root) {
		e := c.blobs[d]
		if e == nil || e.place == nil {
			continue
		}
		if e.pins > 0 || kept[d] {
			return nil
		}
		group = append(group, e)
	}
	return group
}

// root returns the manifest that leads to d and that no other one here names, the
// one that was not used for longest if there are several. The caller holds mu.
func (c *Cache) root(d digest.Digest) digest.Digest {
	for range maxNesting {
		oldest := d
		for p := range c.parents[d] {
			if e := c.blobs[p]; e != nil && (oldest == d || e.used.Before(c.blobs[oldest].used)) {
				oldest = p
			}
		}
		if oldest == d {
			break
		}
		d = oldest
	}
	return d
}

// maxNesting is how deep manifests are nested at most that are looked at as one
// image: an index of indexes of images.
const maxNesting = 4

// tidy evicts what is over the high water mark, takes the disk's last bytes, or
// is older than it may get.
func (c *Cache) tidy() {
	c.mu.Lock()
	over := c.highWater > 0 && c.used > c.highWater
	c.mu.Unlock()
	for over && c.evictOne() {
		c.mu.Lock()
		over = c.used > c.lowWater
		c.mu.Unlock()
	}
	for {
		low, err := c.lowOnDisk(0)
		if err != nil || !low || !c.evictOne() {
			break // an error shows with the next fill, too
		}
	}
	for c.maxAge > 0 && c.evict(time.Now().Add(-c.maxAge)) {
	}
	c.metrics.excess.Set(float64(c.excess()))
}

// excess is by how many bytes the cache is above its high water, or the disk short
// of what is to be free, which more so.
func (c *Cache) excess() (n int64) {
	if c.minFree > 0 {
		if free, err := c.disk.free(c.partialDir()); err == nil {
			n = max(0, c.minFree-free)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.highWater > 0 {
		n = max(n, c.used-c.highWater)
	}
	return n
}

// Inventory is what is here.
type Inventory struct {
	Blobs   []images.Blob
	Partial int64 // bytes of blobs that are not whole, running fills included
	Used    int64 // bytes in all
}

// Inventory returns what is here, whole and proven, and what it is linked by.
func (c *Cache) Inventory() Inventory {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := Inventory{Blobs: make([]images.Blob, 0, len(c.blobs)), Used: c.used, Partial: c.used}
	for d, e := range c.blobs {
		in.Partial -= e.bytes
		if !e.proven.IsZero() {
			in.Blobs = append(in.Blobs, images.Blob{Descriptor: e.desc, Refs: c.refs[d], Used: e.used, InUse: e.pins > 0})
		}
	}
	return in
}

// Removal is what Remove did, or left.
type Removal struct {
	Blobs int
	Bytes int64
	// Busy are blobs that somebody reads, and Pinned those of pinned images:
	// they stay.
	Busy, Pinned int
}

// Remove removes blobs that nobody reads, that are not pinned, and that were not
// used since before; the zero time does not look at that. In a dry run it only
// counts them.
func (c *Cache) Remove(blobs []digest.Digest, before time.Time, dryRun bool) (done Removal) {
	for i, d := range blobs {
		trash := ""
		c.mu.Lock()
		switch e := c.blobs[d]; {
		case e == nil || e.place == nil, !before.IsZero() && !e.used.Before(before):
		case e.pins > 0:
			done.Busy++
		case c.kept()[d]:
			done.Pinned++
		default:
			done.Blobs++
			done.Bytes += e.bytes
			if !dryRun {
				trash = c.detach(e)
			}
		}
		c.mu.Unlock()
		c.empty(trash)
		if i%removalsAFlush == removalsAFlush-1 && !dryRun {
			c.flush()
		}
	}
	return done
}

// removalsAFlush keeps the records of what is removed below what may wait to be
// written.
const removalsAFlush = 1000

package blobcache

import (
	"fmt"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// Reach is who may have a blob, as far as the cache was told. The cache keeps
// it and obeys nobody by it: those who give bytes away ask for it.
type Reach uint8

// The wider ones come first. The numbers stand in meta.db.
const (
	// Everybody: clients, whatever they name it by, and members of the swarm.
	Everybody Reach = iota
	// Members of the swarm, and clients that the blob's registry permits.
	Members
	// Permitted clients only: nobody in the swarm hears of it.
	Permitted
)

const (
	// maxMarks is how many blobs may be restricted before those are forgotten
	// of which nothing is here, and which nobody named for markAge.
	maxMarks = 1 << 16
	markAge  = time.Hour
)

// mark is the Reach of a blob that is not for everybody.
type mark struct {
	reach Reach
	at    time.Time // when it was last named, by this process
}

// Reach returns who may have d, which need not be here.
func (c *Cache) Reach(d digest.Digest) Reach {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.marks[d].reach
}

// Restrict narrows the reach of blobs, before the first byte comes that is not
// for everybody. One that is here whole keeps its reach, because it was had
// otherwise, and so does one that is restricted already unless to is wider. What
// it says is on disk when it returns, so that it outlives a crash; the error is
// blob.ErrNoSpace, because then no such blob can be kept.
func (c *Cache) Restrict(to Reach, blobs ...digest.Digest) error {
	c.mu.Lock()
	now := time.Now()
	for _, d := range blobs {
		m, restricted := c.marks[d]
		e := c.blobs[d]
		if !restricted && e != nil && !e.proven.IsZero() {
			continue
		}
		if !restricted || to < m.reach {
			c.setReach(d, to)
			c.marked++
		}
		c.marks[d] = mark{min(to, c.marks[d].reach), now}
	}
	c.forgetMarks(now)
	marked, saved := c.marked, c.marked == c.onDisk
	c.mu.Unlock()
	if saved {
		return nil
	}
	if err := c.meta.Flush(); err != nil {
		return fmt.Errorf("restrict: %w: %w", blob.ErrNoSpace, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onDisk = max(c.onDisk, marked) // others may have restricted more meanwhile
	return nil
}

// Widen lets everybody have d, because it is known that everybody may.
func (c *Cache) Widen(d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, restricted := c.marks[d]; restricted {
		c.setReach(d, Everybody)
	}
}

// setReach notes the reach of d, and tells if it is news that members may have
// it. The caller holds mu.
func (c *Cache) setReach(d digest.Digest, to Reach) {
	before := c.marks[d].reach
	c.marks[d] = mark{to, time.Now()}
	if to == Everybody {
		delete(c.marks, d)
	}
	c.meta.Mark(d, byte(to))
	if e := c.blobs[d]; before == Permitted && to < Permitted && e != nil && !e.proven.IsZero() {
		c.emit(Event{Blob: e.desc})
	}
}

// forgetMarks keeps the marks from growing without bound. The caller holds mu.
func (c *Cache) forgetMarks(now time.Time) {
	if len(c.marks) <= maxMarks {
		return
	}
	here := make(map[digest.Digest]bool, len(c.blobs))
	for d := range c.blobs {
		here[d] = true
	}
	for k := range c.partials {
		here[k.digest] = true
	}
	for k := range c.fills {
		here[k.digest] = true
	}
	maps.DeleteFunc(c.marks, func(d digest.Digest, m mark) bool {
		old := !here[d] && now.Sub(m.at) > markAge
		if old {
			c.meta.Mark(d, 0)
		}
		return old
	})
}

// loadMarks reads who may have what. Where the records are lost, what is found
// may have been for few: it is for nobody else until it is widened.
func (c *Cache) loadMarks() error {
	marks, err := c.meta.Marks()
	if err != nil {
		return err
	}
	now := time.Now()
	for d, reach := range marks {
		c.marks[d] = mark{min(Reach(reach), Permitted), now}
	}
	if !c.meta.Fresh() {
		return nil
	}
	for d := range c.blobs {
		c.setReach(d, Permitted)
	}
	for k := range c.partials {
		c.setReach(k.digest, Permitted)
	}
	if n := len(c.marks); n > 0 {
		c.log.Warn("blobs without records: kept from members and clients until their registry says who may have them", "count", n)
	}
	return nil
}

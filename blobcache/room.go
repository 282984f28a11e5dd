package blobcache

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// trashPrefix marks what is being deleted; Open clears it.
const trashPrefix = ".trash-"

// quietAboutSpace is how long a second lack of room is not logged again.
const quietAboutSpace = time.Minute

// reserve counts n more bytes as used, and evicts what was not used for
// longest until they fit the budget and leave free what is to be free.
// ErrNoSpace if the rest is in use or pinned.
func (c *Cache) reserve(n int64) error {
	for {
		low, err := c.lowOnDisk(n)
		if err != nil {
			return err
		}
		c.mu.Lock()
		if !low && (c.budget <= 0 || c.used+n <= c.budget) {
			c.addUsed(n)
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		if c.evictOne() {
			continue
		}
		if low {
			return c.outOfSpace(fmt.Errorf("%w: less than %d bytes would be free on the disk, the rest of the cache is in use or pinned", blob.ErrNoSpace, c.minFree))
		}
		return c.outOfSpace(fmt.Errorf("%w: budget of %d bytes, the rest is in use or pinned", blob.ErrNoSpace, c.budget))
	}
}

// lowOnDisk tells whether less than the least would be free on the disk after n
// more bytes.
func (c *Cache) lowOnDisk(n int64) (bool, error) {
	if c.minFree == 0 {
		return false, nil
	}
	free, err := c.disk.free(c.partialDir())
	return free-n < c.minFree, err
}

// writeAt writes p. When the disk is full it evicts what nobody uses;
// blob.ErrNoSpace if there is nothing left to evict.
func (c *Cache) writeAt(file *os.File, p []byte, off int64) error {
	for {
		_, err := c.disk.writeAt(file, p, off)
		if !noSpace(err) {
			return err
		}
		if !c.evictOne() {
			return c.outOfSpace(fmt.Errorf("%w: %w", blob.ErrNoSpace, err))
		}
	}
}

// release takes back what reserve counted.
func (c *Cache) release(n int64) { c.addBytes(-n) }

// addBytes counts n bytes that are on disk.
func (c *Cache) addBytes(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addUsed(n)
}

// addUsed keeps the gauge with the sum. The caller holds mu.
func (c *Cache) addUsed(n int64) {
	c.used += n
	c.metrics.bytes.Set(float64(c.used))
}

// evictOne removes the image, blob or partial that was not used for longest, and
// tells whether there was one that nobody uses.
func (c *Cache) evictOne() bool { return c.evict(time.Time{}) }

// evict is evictOne for images of which nothing was used since before, unless
// that is zero.
func (c *Cache) evict(before time.Time) bool {
	c.mu.Lock()
	going := c.victims(before)
	trash := make([]string, 0, len(going))
	for _, e := range going {
		trash = append(trash, c.detach(e))
		c.metrics.evictions.Inc()
	}
	c.mu.Unlock()
	for i, e := range going {
		c.log.Debug("evicted", "digest", e.desc.Digest, "bytes", e.bytes, "partial", e.partial, "used", e.used)
		c.empty(trash[i])
	}
	return len(going) > 0
}

// Drop removes the blob d, though nothing is wrong with it, and tells whether
// it was here. Whoever reads it reads on.
func (c *Cache) Drop(d digest.Digest) bool {
	c.mu.Lock()
	e := c.blobs[d]
	if e == nil || e.place == nil {
		c.mu.Unlock()
		return false
	}
	trash := c.detach(e)
	c.mu.Unlock()
	c.empty(trash)
	return true
}

// detach takes e out of the cache. What remains to be deleted, at leisure and
// without mu, is at the path that it returns: the name is free for a new file
// at once. The caller holds mu.
func (c *Cache) detach(e *entry) (trash string) {
	path := c.blobPath(e.desc.Digest)
	if e.partial {
		path = c.fillDir(e.key())
		delete(c.partials, e.key())
	} else {
		delete(c.blobs, e.desc.Digest)
		c.unlink(e.desc.Digest)
		c.meta.DeleteBlob(e.desc.Digest)
		if !e.proven.IsZero() {
			c.metrics.blobs.Dec()
			c.emit(Event{Blob: e.desc, Gone: true})
		}
	}
	c.idle.remove(e)
	c.addUsed(-e.bytes)
	if e.pins > 0 {
		c.pinned -= e.bytes
	}
	return c.toTrash(path)
}

// toTrash renames path to where it can be deleted later. The caller holds mu.
func (c *Cache) toTrash(path string) string {
	c.trashed++
	trash := filepath.Join(c.partialDir(), trashPrefix+strconv.Itoa(c.trashed))
	if err := os.Rename(path, trash); err != nil {
		c.empty(path) // at once, before the name is taken again
		return ""
	}
	return trash
}

// empty deletes what toTrash or detach returned.
func (c *Cache) empty(trash string) {
	if trash == "" {
		return
	}
	if err := os.RemoveAll(trash); err != nil {
		c.log.Error("space is lost: leftover cannot be deleted", "error", err)
	}
}

// pin keeps e from eviction until unpin. The caller holds mu.
func (c *Cache) pin(e *entry) {
	if e.pins++; e.pins == 1 && e.place != nil {
		c.pinned += e.bytes
	}
}

func (c *Cache) unpin(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.pins--; e.pins == 0 && e.place != nil {
		c.pinned -= e.bytes
	}
}

// fits tells whether a fill of size bytes, of which have are on disk, can come
// to its end if nothing else changes: fills that run and blobs in use keep
// what they need, all else may be evicted. The caller holds mu.
func (c *Cache) fits(size, have int64) error {
	promised, running := size, int64(0) // running: on disk already
	for _, f := range c.fills {
		promised += f.promise.Load()
		running += f.held.Load()
	}
	taken := c.pinned + c.keptBytes()
	if c.budget > 0 && taken+promised > c.budget {
		return fmt.Errorf("%w: %d bytes, budget of %d, %d in use, pinned or promised to running fills",
			blob.ErrNoSpace, size, c.budget, taken+promised-size)
	}
	free, err := c.disk.free(c.partialDir())
	if err != nil {
		return err
	}
	free = max(0, free-c.minFree)
	evictable := c.used - taken - running - have
	if missing := promised - running - have; missing > free+evictable {
		return fmt.Errorf("%w: %d bytes, disk has %d free and %d evictable, %d promised to running fills",
			blob.ErrNoSpace, size, free, evictable, promised-size)
	}
	return nil
}

// outOfSpace counts err and logs it, at most once a minute: the pulls go on
// from the origin, so that only the log tells the operator.
func (c *Cache) outOfSpace(err error) error {
	c.metrics.noSpace.Inc()
	c.mu.Lock()
	now := time.Now()
	loud := now.Sub(c.full) >= quietAboutSpace
	if loud {
		c.full = now
	}
	used := c.used
	c.mu.Unlock()
	if loud {
		c.log.Error("the cache has no room: blobs pass through without being kept", "error", err, "dir", c.dir, "used", used, "budget", c.budget)
	}
	return err
}

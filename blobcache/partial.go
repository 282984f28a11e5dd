package blobcache

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"shoal/blobcache/blob"
)

// staleAfter is the age at which a partial blob that nobody went on with is
// deleted: whoever pulls an image again does so within a day.
const staleAfter = 24 * time.Hour

// save brings what was written to the disk, and then the bitmap that says so:
// never the other way round. It does nothing if nothing has changed.
func (f *Fill) save() error {
	f.saving.Lock()
	defer f.saving.Unlock()
	f.mu.Lock()
	if !f.dirty || f.whole {
		f.mu.Unlock()
		return nil
	}
	f.dirty = false
	p := progress{have: f.have.Clone(), flowed: f.flowed}
	f.mu.Unlock()
	err := f.c.disk.syncData(f.file)
	if err == nil {
		err = f.c.disk.writeBitmap(f.c.fillDir(f.key), f.key.size, p)
	}
	if err != nil {
		f.mu.Lock()
		f.dirty = true
		f.mu.Unlock()
	}
	return err
}

// loadBlobs finds the whole blobs. A file whose record is missing or does not
// fit is there but not proven: a crash came between its name and its record,
// or somebody put it there.
func (c *Cache) loadBlobs() error {
	records, err := c.meta.Blobs()
	if err != nil {
		return err
	}
	files, err := os.ReadDir(c.blobDir())
	if err != nil {
		return err
	}
	for _, file := range files {
		d, err := blob.ParseDigest("sha256:" + file.Name())
		if err != nil || !file.Type().IsRegular() {
			c.log.Warn("not a blob: left alone", "path", filepath.Join(c.blobDir(), file.Name()))
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(c.blobPath(d), &st); err != nil {
			return fmt.Errorf("stat %s: %w", c.blobPath(d), err)
		}
		stamp := stampFrom(&st)
		e := &entry{
			desc:  blob.Descriptor{Digest: d, Size: stamp.Size},
			bytes: stamp.Size,
			used:  time.Unix(0, stamp.Mtime),
		}
		if r, ok := records[d]; ok {
			e.desc.MediaType, e.used = r.MediaType, r.Used
			if r.Stamp == stamp && r.Size == stamp.Size {
				e.stamp, e.proven = stamp, r.Proven
				c.metrics.blobs.Inc()
			}
			if len(r.Refs) > 0 {
				c.link(d, r.Refs)
			}
			delete(records, d)
		}
		c.blobs[d] = e
	}
	for d := range records {
		c.meta.DeleteBlob(d)
	}
	return nil
}

// loadPartials finds the partial blobs and clears what was being deleted.
func (c *Cache) loadPartials() error {
	dirs, err := os.ReadDir(c.partialDir())
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		path := filepath.Join(c.partialDir(), dir.Name())
		d, ok := parsePartial(dir.Name())
		switch {
		case strings.HasPrefix(dir.Name(), trashPrefix):
			c.empty(path)
		case !ok || !dir.IsDir():
			c.log.Warn("not a partial blob: left alone", "path", path)
		default:
			if e := c.findPartial(d); e != nil {
				c.partials[e.key()] = e
			} else {
				c.empty(path)
			}
		}
	}
	return nil
}

// parsePartial reads the name of a partial blob's folder, HEX-SIZE.
func parsePartial(name string) (blob.Descriptor, bool) {
	hex, size, ok := strings.Cut(name, "-")
	d, err := blob.ParseDigest("sha256:" + hex)
	n, errSize := strconv.ParseInt(size, 10, 64)
	return blob.Descriptor{Digest: d, Size: n}, ok && err == nil && errSize == nil && n >= 0 && n <= blob.MaxSize
}

// findPartial returns the entry of a partial blob on disk, or nil if there is
// no data.
func (c *Cache) findPartial(d blob.Descriptor) *entry {
	var st unix.Stat_t
	path := filepath.Join(c.fillDir(fillKey{d.Digest, d.Size}), dataName)
	if err := unix.Stat(path, &st); err != nil || st.Size == 0 {
		return nil
	}
	return &entry{desc: d, partial: true, bytes: st.Blocks * 512, used: time.Unix(0, st.Mtim.Nano())}
}

// rank puts all that Open found in the order of its last use.
func (c *Cache) rank() {
	all := slices.AppendSeq(slices.Collect(maps.Values(c.blobs)), maps.Values(c.partials))
	slices.SortFunc(all, func(a, b *entry) int {
		// What names others is the older one: see useAll.
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(len(c.parents[a.desc.Digest]), len(c.parents[b.desc.Digest])))
	})
	for _, e := range all { // each is newer than those before it
		c.idle.add(e)
		c.addUsed(e.bytes)
	}
}

// addPartial makes e known. The caller holds mu.
func (c *Cache) addPartial(e *entry) {
	c.partials[e.key()] = e
	c.idle.add(e)
	c.addUsed(e.bytes)
}

// DropPartials deletes the partial blobs that were last written before t. In a
// dry run it only counts them.
func (c *Cache) DropPartials(t time.Time, dryRun bool) (done Removal) {
	var trash []string
	c.mu.Lock()
	for _, e := range c.partials {
		if !e.used.Before(t) {
			continue
		}
		done.Blobs++
		done.Bytes += e.bytes
		if !dryRun {
			trash = append(trash, c.detach(e))
			c.metrics.evictions.Inc()
		}
	}
	c.mu.Unlock()
	for _, path := range trash {
		c.empty(path)
	}
	return done
}

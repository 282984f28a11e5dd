package blobcache

import (
	"container/list"
	"time"

	"shoal/blobcache/blob"
	"shoal/blobcache/internal/meta"
)

// entry is a whole blob or a partial one that is not running. All fields are
// guarded by Cache.mu.
type entry struct {
	desc    blob.Descriptor
	partial bool
	bytes   int64 // on disk
	used    time.Time
	pins    int // never evicted while > 0
	place   *list.Element

	// Of whole blobs only.
	proven time.Time // zero: not since this file was found
	stamp  meta.Stamp
	dirty  bool     // used is newer than the record on disk
	renew  *renewal // a proof of it that is running, or nil
}

func (e *entry) key() fillKey { return fillKey{e.desc.Digest, e.desc.Size} }

// record is what is kept of a whole blob. The caller holds mu.
func (c *Cache) record(e *entry) meta.Record {
	return meta.Record{Size: e.desc.Size, MediaType: e.desc.MediaType, Stamp: e.stamp, Proven: e.proven, Used: e.used, Refs: c.refs[e.desc.Digest]}
}

// lru orders entries by last use. It decides who goes; it takes nobody itself.
type lru struct {
	order list.List // *entry, the last used in front
}

// add puts e at its place by e.used; a new use is the usual case and is O(1).
func (l *lru) add(e *entry) {
	for at := l.order.Front(); at != nil; at = at.Next() {
		if !at.Value.(*entry).used.After(e.used) {
			e.place = l.order.InsertBefore(e, at)
			return
		}
	}
	e.place = l.order.PushBack(e)
}

// touch makes e the last used one, at now.
func (l *lru) touch(e *entry, now time.Time) {
	e.used = now
	l.order.MoveToFront(e.place)
}

func (l *lru) remove(e *entry) {
	l.order.Remove(e.place)
	e.place = nil
}

// oldest yields the entries, those first that were not used for longest.
func (l *lru) oldest(yield func(*entry) bool) {
	for at := l.order.Back(); at != nil; at = at.Prev() {
		if !yield(at.Value.(*entry)) {
			return
		}
	}
}

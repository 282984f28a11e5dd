package blobcache

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// saveEvery is how often the progress of fills is written: what is older
	// than a second survives a kill.
	saveEvery = 500 * time.Millisecond
	// usesEvery is how often times of last use are written; a crash takes back
	// that much of the order of eviction.
	usesEvery = 30 * time.Second
	// staleEvery is how often stale partial blobs are looked for.
	staleEvery = time.Hour
	// savers bounds the bitmaps that are written at once: the disk is one.
	savers = 4
)

// Run does the periodic work until ctx ends: progress of fills and records to
// the disk, away with stale partial blobs and with what is too much or too old,
// blobs proven again. First it proves the blobs that have no
// valid record. It returns nil when its goroutines have ended. Without it
// everything works, but less survives a crash.
func (c *Cache) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { c.welcome(ctx); return nil })
	g.Go(func() error { c.every(ctx, saveEvery, c.saveAll); return nil })
	g.Go(func() error { c.every(ctx, saveEvery, c.flush); return nil })
	g.Go(func() error { c.every(ctx, usesEvery, c.keepUses); return nil })
	g.Go(func() error {
		c.every(ctx, staleEvery, func() { c.DropPartials(time.Now().Add(-staleAfter), false) })
		return nil
	})
	g.Go(func() error { c.every(ctx, tidyEvery, c.tidy); return nil })
	if c.scrubEvery > 0 {
		g.Go(func() error { c.scrubbing(ctx); return nil })
	}
	return g.Wait()
}

func (c *Cache) every(ctx context.Context, period time.Duration, work func()) {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			work()
		}
	}
}

// welcome makes the cache fit its budget, which may be smaller than last time,
// and proves blobs that were found without a valid record.
func (c *Cache) welcome(ctx context.Context) {
	c.DropPartials(time.Now().Add(-staleAfter), false)
	if c.reserve(0) != nil {
		return // logged
	}
	c.mu.Lock()
	var strangers []*entry
	for _, e := range c.blobs {
		if e.proven.IsZero() {
			c.pin(e)
			strangers = append(strangers, e)
		}
	}
	c.mu.Unlock()
	for _, e := range strangers {
		if ctx.Err() == nil {
			err := c.prove(ctx, e)
			c.log.Info("blob without a record", "digest", e.desc.Digest, "size", e.desc.Size, "error", err)
		}
		c.unpin(e)
	}
}

// saveAll writes the progress of all fills.
func (c *Cache) saveAll() {
	c.mu.Lock()
	fills := make([]*Fill, 0, len(c.fills))
	for _, f := range c.fills {
		fills = append(fills, f)
	}
	c.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(savers)
	for _, f := range fills {
		g.Go(func() error {
			err := f.save()
			if err != nil && f.unsaved.CompareAndSwap(false, true) {
				c.log.Error("progress of a partial blob is not kept", "digest", f.key.digest, "error", err)
			}
			return nil
		})
	}
	_ = g.Wait() // they log
}

// Flush writes what is known of blobs, tags and names to the disk, which Run does
// every half a second.
func (c *Cache) Flush() error { return c.meta.Flush() }

// flush writes the records.
func (c *Cache) flush() {
	err := c.meta.Flush()
	if err != nil && c.unflushed.CompareAndSwap(false, true) {
		c.log.Error("records of the cache are not written: blobs will be proven again after a restart", "error", err)
	}
	if err == nil {
		c.unflushed.Store(false)
	}
}

// keepUses hands times of last use to the records.
func (c *Cache) keepUses() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for d, e := range c.blobs {
		if e.dirty && !e.proven.IsZero() {
			e.dirty = false
			c.meta.PutBlob(d, c.record(e))
		}
	}
}

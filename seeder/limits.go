package seeder

import (
	"context"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"shoal/blobcache/blob"
)

const (
	// busyWait is for how long at most a selection holds back while runtimes
	// wait for downloads: on a node where they always do, it must go on, too.
	busyWait = time.Minute
	// busyLook is the time between two looks whether they still do.
	busyLook = 200 * time.Millisecond
)

// limits keep what nobody waits for out of the way of what somebody waits for.
type limits struct {
	images *semaphore.Weighted // that are asked for or fetched at a time
	bytes  *rate.Limiter       // nil: as fast as they come
	busy   func() bool         // whether a runtime waits for a download; nil: never
	check  time.Duration       // between two checks of who holds what
}

func newLimits(c Config, busy func() bool) *limits {
	l := &limits{images: semaphore.NewWeighted(int64(c.Concurrency)), busy: busy, check: c.CheckEvery}
	if c.Rate > 0 {
		l.bytes = rate.NewLimiter(rate.Limit(c.Rate), int(min(c.Rate, 1<<30)))
	}
	return l
}

// groups cuts blobs into those that begin together: all, or one at a time if there
// is a rate. A blob that began comes as fast as it can: somebody may be waiting for
// it by now.
func (l *limits) groups(blobs []blob.Descriptor) iter.Seq[[]blob.Descriptor] {
	n := max(1, len(blobs))
	if l != nil && l.bytes != nil {
		n = 1
	}
	return slices.Chunk(blobs, n)
}

// wait returns when a group may begin.
func (l *limits) wait(ctx context.Context, group []blob.Descriptor) error {
	if l == nil {
		return nil
	}
	for began := time.Now(); l.busy != nil && l.busy() && time.Since(began) < busyWait; {
		select {
		case <-time.After(busyLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if l.bytes == nil {
		return nil
	}
	var size int64
	for _, d := range group {
		size += d.Size
	}
	for size > 0 {
		n := int(min(size, int64(l.bytes.Burst())))
		if err := l.bytes.WaitN(ctx, n); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

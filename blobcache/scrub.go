package blobcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/time/rate"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// scrubPause is how long there is between two looks for blobs whose proof is
// older than it may get.
const scrubPause = time.Minute

// Pace returns what bounds the bytes that Scrub reads a second; 0 does not.
func Pace(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return rate.NewLimiter(rate.Inf, blob.PieceSize)
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), blob.PieceSize)
}

// scrubbing scrubs each blob when its proof has become older than it may be: those
// first whose proof is the oldest. A use of a blob that proves it counts, too.
func (c *Cache) scrubbing(ctx context.Context) {
	pace := Pace(c.scrubRate)
	c.every(ctx, scrubPause, func() {
		for _, d := range c.unproven(time.Now().Add(-c.scrubEvery)) {
			if ctx.Err() != nil {
				return
			}
			if err := c.Scrub(ctx, d, pace); err != nil && !errors.Is(err, blob.ErrNotFound) && ctx.Err() == nil {
				c.log.Warn("blob could not be looked at", "digest", d, "error", err)
			}
		}
	})
}

// unproven returns the blobs that were not proven since t, the oldest proof first.
func (c *Cache) unproven(t time.Time) []digest.Digest {
	c.mu.Lock()
	var old []*entry
	proven := map[*entry]time.Time{}
	for _, e := range c.blobs {
		if !e.proven.IsZero() && e.proven.Before(t) {
			old, proven[e] = append(old, e), e.proven
		}
	}
	c.mu.Unlock()
	slices.SortFunc(old, func(a, b *entry) int {
		return cmp.Or(proven[a].Compare(proven[b]), cmp.Compare(a.desc.Digest, b.desc.Digest))
	})
	all := make([]digest.Digest, len(old))
	for i, e := range old {
		all[i] = e.desc.Digest
	}
	return all
}

// Scrub reads the blob d from the disk, no faster than pace, and proves it. One
// that is not what it was is dropped, subscribers are told, and the error is
// blob.ErrNotFound and blob.ErrCorrupt. One that is not here is blob.ErrNotFound.
// It is not evicted meanwhile, and counts as no use of it.
func (c *Cache) Scrub(ctx context.Context, d digest.Digest, pace *rate.Limiter) error {
	c.mu.Lock()
	e := c.blobs[d]
	if e == nil || c.closed {
		c.mu.Unlock()
		return fmt.Errorf("%s: %w", d, blob.ErrNotFound)
	}
	c.pin(e)
	c.mu.Unlock()
	defer c.unpin(e)
	file, err := os.Open(c.blobPath(d))
	if err != nil {
		return c.rotten(e, err)
	}
	defer file.Close()
	stamp, err := stampOf(file) // before the bytes: a change meanwhile will show
	if err != nil {
		return c.rotten(e, err)
	}
	if err := uncache(file); err != nil {
		return fmt.Errorf("%s: %w", d, err)
	}
	c.metrics.scrubbedBlobs.Inc()
	h, err := c.scrubFile(ctx, io.LimitReader(file, e.desc.Size+1), pace)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return c.rotten(e, err)
	case h.Sum() != e.desc.Hash() || h.Len() != e.desc.Size:
		return c.rotten(e, blob.ErrCorrupt)
	}
	chain, _ := h.Chain()
	return c.proved(e, stamp, chain)
}

// rotten discards e.
func (c *Cache) rotten(e *entry, why error) error {
	err := c.discard(e, why)
	if errors.Is(err, errReplaced) {
		return err
	}
	return fmt.Errorf("%s: %w: %w", e.desc.Digest, err, blob.ErrCorrupt)
}

func (c *Cache) scrubFile(ctx context.Context, file io.Reader, pace *rate.Limiter) (*proof.Hasher, error) {
	buf := c.pieces.Get().(*[blob.PieceSize]byte)
	defer c.pieces.Put(buf)
	h := proof.NewHasher()
	for {
		n, err := io.ReadFull(file, buf[:])
		h.Write(buf[:n])
		c.metrics.scrubbed.Add(float64(n))
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return h, nil
		}
		if err != nil {
			return h, err
		}
		if err := pace.WaitN(ctx, n); err != nil {
			return h, err
		}
	}
}

package proxy

import (
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/singleflight"

	"shoal/blobcache"
	"shoal/blobcache/blob"
)

// direct is a Fetcher without a swarm: it fills the cache from the origin, one
// stream for each blob, and gives up at the first error of that.
type direct struct {
	cache *blobcache.Cache
	work  sync.WaitGroup
	once  sync.Once
	ctx   context.Context
	end   context.CancelFunc

	flights singleflight.Group

	mu      sync.Mutex
	failing error // of the next pieces to be written
}

func (f *direct) stop() {
	f.begin()
	f.end()
	f.work.Wait()
}

func (f *direct) begin() {
	f.once.Do(func() { f.ctx, f.end = context.WithCancel(context.Background()) })
}

func (f *direct) Fetch(ctx context.Context, d blob.Descriptor, source blob.Source) (*blobcache.Fill, error) {
	f.begin()
	flight := f.flights.DoChan(d.Digest.String(), func() (any, error) {
		return f.open(d, source)
	})
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case r := <-flight:
		fill, _ := r.Val.(*blobcache.Fill)
		return fill, r.Err
	}
}

func (f *direct) open(d blob.Descriptor, source blob.Source) (*blobcache.Fill, error) {
	if fill, ok := f.cache.Running(d.Digest); ok {
		return fill, nil
	}
	if here, ok := f.cache.Stat(d.Digest); ok {
		fill, _, err := f.cache.Fill(here)
		return fill, err
	}
	s, err := source.Open(f.ctx, d, blob.Range{Length: -1})
	if err != nil {
		return nil, err
	}
	if d.Size < 0 {
		d.Size = s.Size
	}
	fill, started, err := f.cache.Fill(d)
	if err != nil || !started || d.Size != s.Size {
		s.Body.Close()
		if err == nil && started {
			err = fmt.Errorf("%w: size %d told, %d claimed", blob.ErrCorrupt, s.Size, d.Size)
			fill.Fail(err)
		}
		return fill, err
	}
	f.work.Go(func() {
		if err := f.drive(fill, s, source); err != nil {
			fill.Fail(err)
		}
	})
	return fill, nil
}

// drive brings the pieces, and once more when they did not lead to the digest.
func (f *direct) drive(fill *blobcache.Fill, s *blob.Stream, source blob.Source) error {
	for range 2 {
		err := f.stream(fill, s)
		s.Body.Close()
		if err != nil {
			return err
		}
		for missing := false; !missing; {
			select {
			case <-fill.Done():
				return nil
			case <-f.ctx.Done():
				return f.ctx.Err()
			case <-fill.Rejected():
				missing = len(fill.Rejections()) > 0
			}
		}
		if s, err = source.Open(f.ctx, fill.Descriptor(), blob.Range{Length: -1}); err != nil {
			return err
		}
	}
	return blob.ErrCorrupt
}

func (f *direct) stream(fill *blobcache.Fill, s *blob.Stream) error {
	d := fill.Descriptor()
	for i := range blob.PieceCount(d.Size) {
		p := make([]byte, blob.Piece(i, d.Size).Length)
		if _, err := io.ReadFull(s.Body, p); err != nil {
			return err
		}
		f.mu.Lock()
		err := f.failing
		f.mu.Unlock()
		if err != nil {
			return err
		}
		if err := fill.WritePiece(i, p, blobcache.Provenance{Identity: s.Identity}); err != nil {
			return err
		}
	}
	return nil
}

package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
)

const (
	// passTries is how often an upstream that makes no progress is asked
	// again, passPause the time between.
	passTries = 3
	passPause = time.Second
	// buried is how long a blob is not served after wrong bytes of it went
	// out, so that no client resumes on top of them.
	buried = time.Minute
)

// passThrough answers with a blob for which the cache has no room, or that it
// cannot keep because its pieces cannot be proven. The upstream is asked before
// the headers go out.
func (x *exchange) passThrough(ctx context.Context) error {
	s, err := x.repo.Blobs().Open(ctx, x.known(), blob.Range{Length: -1})
	if err != nil {
		return err
	}
	if s.Size < 0 || s.Range.Offset != 0 {
		s.Body.Close()
		return fmt.Errorf("%w: the upstream tells no size of %s", blob.ErrUnavailable, x.req.Digest)
	}
	if err := x.begin(s.Size); err != nil || x.want.Length == 0 {
		s.Body.Close()
		return err
	}
	x.flush()
	return x.pass(ctx, s, nil)
}

// pass sends the blob, or what is left of it after the bytes that went out.
func (x *exchange) pass(ctx context.Context, first *blob.Stream, sent io.ReaderAt) error {
	full := blob.Shared(x.req.Digest) && (x.by != nil || x.cache.Reach(x.req.Digest) == blobcache.Everybody) // or else it is for others
	if full && x.notices.first("pass "+x.req.Digest.String(), noticeOnce) {
		x.log.Error("no room in the cache: the blob goes past it; free disk space or raise --cache-size",
			"digest", x.req.Digest, "size", x.size)
	}
	p := &pass{
		source: x.repo.Blobs(), first: first, out: x.sink(fromPassthrough),
		desc: blob.Descriptor{Digest: x.req.Digest, Size: x.size},
		want: x.want, sent: x.sent, compare: sent,
	}
	err := p.run(ctx)
	if err == nil && x.by == nil {
		x.cache.Widen(x.req.Digest) // the registry has it, and not only its word for it
	}
	if errors.Is(err, blob.ErrCorrupt) {
		return x.bury(err)
	}
	return err
}

// bury keeps the blob from being served for a while, because clients may hold
// wrong bytes of it.
func (x *exchange) bury(err error) error {
	x.rotten.Add(x.req.Digest, time.Now().Add(buried))
	return err
}

// pass is a blob on its way from the origin to one client, past a cache that
// does not take it. It reads the blob whole, whatever range is wanted,
// because only the whole can be proven, and keeps the last piece of the range
// back until it is.
type pass struct {
	source blob.Source
	desc   blob.Descriptor
	want   blob.Range // of the client, Length true
	out    io.Writer
	// sent is how many bytes of want went out before, from a fill, and
	// compare reads them again: what the origin says now must agree with them.
	sent    int64
	compare io.ReaderAt
	first   *blob.Stream // of the whole, already open; or nil

	pos      int64 // in the blob: bytes hashed so far
	sum      hash.Hash
	identity string
	held     []byte // the last piece of want, as far as it is here
}

// run returns nil when all of want went out, proven. After another error bytes
// may have gone out, and the body must not end cleanly; ErrCorrupt says that
// they may be wrong.
func (p *pass) run(ctx context.Context) error {
	p.sum = p.desc.Digest.Algorithm().Hash()
	for tries := 0; ; {
		before := p.pos
		err := p.stream(ctx)
		if err == nil {
			break
		}
		if p.pos > before {
			tries = 0
		}
		tries++
		if ctx.Err() != nil || tries == passTries || !retry(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(passPause):
		}
	}
	if digest.NewDigest(p.desc.Digest.Algorithm(), p.sum) != p.desc.Digest {
		return fmt.Errorf("passthrough of %s from %s: %w", p.desc.Digest, p.identity, blob.ErrCorrupt)
	}
	if _, err := p.out.Write(p.held); err != nil {
		return fmt.Errorf("%w: %w", errClient, err)
	}
	return nil
}

// retry says whether asking the origin again may help.
func retry(err error) bool {
	return !errors.Is(err, errClient) && !errors.Is(err, blob.ErrCorrupt) &&
		!errors.Is(err, blob.ErrDenied) && !errors.Is(err, blob.ErrNotFound)
}

// stream opens the origin where the hash stands and reads to the end.
func (p *pass) stream(ctx context.Context) error {
	s := p.first
	p.first = nil
	if s == nil {
		var err error
		if s, err = p.source.Open(ctx, p.desc, blob.Range{Offset: p.pos, Length: -1}); err != nil {
			return err
		}
	}
	defer s.Body.Close()
	switch {
	case s.Size != p.desc.Size:
		return fmt.Errorf("%w: the upstream tells a size of %d, not %d", blob.ErrCorrupt, s.Size, p.desc.Size)
	case s.Range.Offset > p.pos:
		return fmt.Errorf("%w: the upstream starts at %d, not %d", blob.ErrUnavailable, s.Range.Offset, p.pos)
	case p.identity != "" && s.Identity != p.identity:
		// What went out can no longer be vouched for by one upstream.
		return fmt.Errorf("%w: the upstream changed from %s to %s", blob.ErrCorrupt, p.identity, s.Identity)
	}
	p.identity = s.Identity
	if _, err := io.CopyN(io.Discard, s.Body, p.pos-s.Range.Offset); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := s.Body.Read(buf[:min(int64(len(buf)), p.desc.Size-p.pos+1)])
		if p.pos+int64(n) > p.desc.Size {
			return fmt.Errorf("%w: longer than %d bytes", blob.ErrCorrupt, p.desc.Size)
		}
		if takeErr := p.take(buf[:n]); takeErr != nil {
			return takeErr
		}
		switch {
		case p.pos == p.desc.Size && (err == nil || errors.Is(err, io.EOF)):
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
}

// take hashes the next bytes of the blob, and compares, sends or holds those
// that are wanted.
func (p *pass) take(b []byte) error {
	p.sum.Write(b)
	part := clip(b, p.pos, p.want)
	at := max(p.pos, p.want.Offset) // of part
	p.pos += int64(len(b))
	if gone := p.want.Offset + p.sent - at; gone > 0 && len(part) > 0 {
		n := min(gone, int64(len(part)))
		if err := p.same(part[:n], at); err != nil {
			return err
		}
		part, at = part[n:], at+n
	}
	direct := max(0, min(int64(len(part)), p.want.End(p.desc.Size)-blob.PieceSize-at))
	if direct > 0 {
		if _, err := p.out.Write(part[:direct]); err != nil {
			return fmt.Errorf("%w: %w", errClient, err)
		}
	}
	p.held = append(p.held, part[direct:]...)
	return nil
}

// same checks that b is what the client got from a fill at that place.
func (p *pass) same(b []byte, at int64) error {
	got := make([]byte, len(b))
	if _, err := p.compare.ReadAt(got, at); err != nil {
		return fmt.Errorf("reading again what went out: %w", err)
	}
	if !bytes.Equal(got, b) {
		return fmt.Errorf("%w: bytes that went out differ from the origin's", blob.ErrCorrupt)
	}
	return nil
}

// clip returns the bytes of b, which is at pos of a blob, that r covers.
func clip(b []byte, pos int64, r blob.Range) []byte {
	from := min(max(r.Offset-pos, 0), int64(len(b)))
	to := min(max(r.Offset+r.Length-pos, 0), int64(len(b)))
	return b[from:to]
}

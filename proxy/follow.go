package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
)

const (
	// headStartAfter is how long a client sees nothing of a fill that goes on
	// before it gets headStart bytes from the origin: some runtimes give a
	// pull up after a minute without progress.
	headStartAfter = 15 * time.Second
	headStart      = 64 << 10
	// maxEarly bounds what one client gets that way. The driver of a fill
	// gives up long before.
	maxEarly = 1 << 20
)

// errSlow: a client has seen nothing for headStartAfter.
var errSlow = errors.New("the fill is slow")

// follower sends a running fill to one client.
type follower struct {
	x      *exchange
	fill   *blobcache.Fill
	size   int64
	out    *sink
	watch  *time.Timer       // runs while the client waits for the fill
	still  func() error      // whether it may have what comes
	reader *blobcache.Reader // the last one
	// early are the last bytes that went out, if they came from the origin
	// past the fill and were not compared with it yet. They are of one
	// identity.
	early    []byte
	identity string
}

// sendFill sends from a running fill. The headers go out at once; it returns
// an error before them if the fill has ended already and left nothing.
func (x *exchange) sendFill(ctx context.Context, fill *blobcache.Fill) error {
	x.waiting.Add(1)
	defer x.waiting.Add(-1)
	f := &follower{x: x, fill: fill, size: fill.Descriptor().Size, out: x.sink(fromFill)}
	f.still = func() error { return x.still(ctx, x.req.Digest) }
	probe, err := fill.Open(ctx, blob.Range{Length: -1}) // and keeps the blob, if it is whole
	if err != nil {
		return err
	}
	defer probe.Close()
	if err := x.begin(f.size); err != nil || x.want.Length == 0 {
		return err
	}
	x.flush()
	defer func() {
		if f.reader != nil {
			f.reader.Close()
		}
	}()
	for {
		err := f.follow(ctx)
		switch {
		case errors.Is(err, errSlow):
			err = f.headStart(ctx)
		case errors.Is(err, blob.ErrNoSpace):
			return f.passThrough(ctx)
		case err == nil:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// follow sends until all went out, the fill fails, or nothing comes.
func (f *follower) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.watch = time.AfterFunc(headStartAfter, func() { cancel(errSlow) })
	defer f.watch.Stop()
	at := f.pos() - int64(len(f.early))
	r, err := f.fill.Open(ctx, blob.Range{Offset: at, Length: f.x.want.End(f.size) - at})
	if err != nil {
		return err
	}
	if f.reader != nil {
		f.reader.Close()
	}
	f.reader = r
	if len(f.early) > 0 {
		same := make([]byte, len(f.early))
		if _, err := io.ReadFull(r, same); err != nil {
			return err
		}
		if !bytes.Equal(same, f.early) {
			return f.x.bury(fmt.Errorf("%w: the fill differs from what %s gave", blob.ErrCorrupt, f.identity))
		}
		f.early = nil
	}
	_, err = r.WriteTo(f)
	return err
}

// pos is where in the blob the client is.
func (f *follower) pos() int64 { return f.x.want.Offset + f.x.sent }

// Write is of io.Writer. The client's own time is not the fill's.
func (f *follower) Write(b []byte) (int, error) {
	f.watch.Stop()
	defer f.watch.Reset(headStartAfter)
	if err := f.still(); err != nil {
		return 0, err
	}
	return f.out.Write(b)
}

// ReadFrom is of io.ReaderFrom, for sendfile.
func (f *follower) ReadFrom(src io.Reader) (int64, error) {
	f.watch.Stop()
	defer f.watch.Reset(headStartAfter)
	if err := f.still(); err != nil {
		return 0, err
	}
	return f.out.ReadFrom(src)
}

// headStart gives the client some bytes from the origin, if that is as safe as
// what flows from a fill: the bytes before them are proven, or came the same
// way from the same upstream, and the last piece of the answer stays back. They
// are compared with the fill's when that has come so far. An origin that has
// none to give is no error; the client waits on.
func (f *follower) headStart(ctx context.Context) error {
	pos, end := f.pos(), f.x.want.End(f.size)
	n := min(headStart, (end-1)/blob.PieceSize*blob.PieceSize-pos, int64(maxEarly-len(f.early)))
	if n <= 0 || !f.provenTo(pos-int64(len(f.early))) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, headStartAfter)
	defer cancel()
	d := blob.Descriptor{Digest: f.x.req.Digest, Size: f.size}
	s, err := f.x.repo.Blobs().Open(ctx, d, blob.Range{Offset: pos, Length: n})
	if err != nil {
		f.x.log.Debug("no head start", "digest", d.Digest, "error", err)
		return nil
	}
	defer s.Body.Close()
	if s.Size != f.size || s.Range.Offset != pos || len(f.early) > 0 && s.Identity != f.identity {
		return nil
	}
	b := make([]byte, n)
	got, err := io.ReadFull(s.Body, b)
	if err != nil {
		f.x.log.Debug("short head start", "digest", d.Digest, "error", err)
	}
	f.early, f.identity = append(f.early, b[:got]...), s.Identity
	_, err = f.x.sink(fromHeadStart).Write(b[:got])
	return err
}

// provenTo says whether what the client has of the blob before pos is proven.
func (f *follower) provenTo(pos int64) bool {
	proven := f.fill.Proven()
	for i := f.x.want.Offset / blob.PieceSize; i*blob.PieceSize < pos; i++ {
		if !proven.Test(uint(i)) {
			return false
		}
	}
	return true
}

// passThrough goes on from the origin when the disk is full.
func (f *follower) passThrough(ctx context.Context) error {
	if f.x.sent == 0 {
		return f.x.passThrough(ctx)
	}
	return f.x.pass(ctx, nil, &went{f.reader, f.early, f.pos() - int64(len(f.early))})
}

// went reads again what a client has got: from a fill, and behind it early.
type went struct {
	fill  io.ReaderAt
	early []byte
	from  int64 // of early, in the blob
}

// ReadAt is of io.ReaderAt.
func (w *went) ReadAt(p []byte, off int64) (int, error) {
	if off >= w.from {
		return bytes.NewReader(w.early).ReadAt(p, off-w.from)
	}
	n := min(int64(len(p)), w.from-off)
	m, err := w.fill.ReadAt(p[:n], off)
	if err != nil || n == int64(len(p)) {
		return m, err
	}
	k, err := w.ReadAt(p[n:], w.from)
	return m + k, err
}

package blobcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"shoal/blobcache/blob"
)

// maxRun is how much a Reader sends in one go, in bytes: small enough that it
// soon notices when the fill has failed or its ctx has ended, large enough
// that sendfile is worth its call.
const maxRun = 4 << 20

// Reader follows a fill from some offset. It yields a byte only when
//   - its piece is proven, or
//   - its piece agrees with a chain that a trusted key has signed, and it is not
//     the last piece of the blob, or
//   - its piece and all before it came from one upstream identity, read by
//     this node itself since the fill started here, and it is not the last
//     piece of the range.
//
// Otherwise it waits, and so it does at the end until the last piece is
// proven: io.EOF means that all was right. When bytes that flowed prove wrong
// the error is blob.ErrCorrupt.
type Reader struct {
	f    *Fill
	ctx  context.Context // of Open: a Reader obeys it until Close
	file *os.File        // our own, for its offset
	blob *Blob           // instead of f when it had ended before Open
	pos  int64
	end  int64
	once sync.Once
}

// Open returns a Reader of r of the blob, which obeys ctx until it is closed.
// Any number may be open. After the end of the fill they read the blob from
// the cache. Errors: blob.ErrTooLarge if r starts behind the end; what the
// fill failed of; those of Cache.Get.
func (f *Fill) Open(ctx context.Context, r blob.Range) (*Reader, error) {
	if r.Offset < 0 || r.Offset > f.key.size {
		return nil, fmt.Errorf("open %s at %d of %d: %w", f.key.digest, r.Offset, f.key.size, blob.ErrTooLarge)
	}
	rd := &Reader{f: f, ctx: ctx, pos: r.Offset, end: r.End(f.key.size)}
	file, err := f.openFile()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.key.digest, err)
	}
	if file != nil {
		rd.file = file
		return rd, nil
	}
	if rd.blob, err = f.c.Get(ctx, f.key.digest); err != nil {
		return nil, err
	}
	rd.file = rd.blob.File()
	return rd, nil
}

// openFile opens the fill's file for a reader; nil if the blob is in the cache
// by now.
func (f *Fill) openFile() (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return nil, f.err
	case f.ended || f.pinned != nil:
		return nil, nil
	}
	file, err := os.Open(f.path)
	if err == nil {
		f.readers++
	}
	return file, err
}

// Read reports whether somebody reads the fill, and so waits for it.
func (f *Fill) Read() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readers > 0
}

// Close gives the reader back.
func (r *Reader) Close() error {
	var err error
	r.once.Do(func() {
		if r.blob != nil {
			err = r.blob.Close()
			return
		}
		err = r.file.Close()
		r.f.mu.Lock()
		r.f.readers--
		pinned := r.f.pinned
		r.f.mu.Unlock()
		if pinned != nil {
			r.f.c.unpin(pinned)
		}
	})
	return err
}

// Read reads what may be read, waiting for at least one byte.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.await()
	if err != nil {
		return 0, err
	}
	n, err = readAt(r.file, p[:min(int64(len(p)), n)], r.pos)
	r.pos += n
	return int(n), err
}

func readAt(f *os.File, p []byte, off int64) (int64, error) {
	n, err := f.ReadAt(p, off)
	if n > 0 {
		return int64(n), nil
	}
	return 0, unexpected(err)
}

// unexpected makes sure that a file which is too short is no clean end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadAt reads bytes again that were yielded before, even when the fill has
// failed since. It says nothing about any others.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) { return r.file.ReadAt(p, off) }

// WriteTo writes all that is left to w, waiting for it as it comes. What it
// hands to w is a limited *os.File, which net/http and *net.TCPConn send
// without copying it through user space.
func (r *Reader) WriteTo(w io.Writer) (sent int64, err error) {
	for {
		n, err := r.await()
		if errors.Is(err, io.EOF) {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		if _, err := r.file.Seek(r.pos, io.SeekStart); err != nil {
			return sent, err
		}
		done, err := io.CopyN(w, r.file, n)
		r.pos += done
		sent += done
		if err != nil {
			return sent, unexpected(err)
		}
	}
}

// await waits until there is something to read at pos and returns how many
// bytes may be, at most maxRun. io.EOF at the end.
func (r *Reader) await() (int64, error) {
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, context.Cause(r.ctx)
		}
		if r.blob != nil {
			if r.pos == r.end {
				return 0, io.EOF
			}
			return min(r.end-r.pos, maxRun), nil
		}
		n, changed, err := r.f.available(r.pos, r.end)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
		}
	}
}

// available returns how many bytes from pos to end may go out, or io.EOF at
// the end, or a channel to wait on.
func (f *Fill) available(pos, end int64) (int64, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil && !f.proven.All(): // if only the keeping failed, readers go on
		return 0, nil, f.err
	case pos == end && (end < f.key.size || f.whole):
		return 0, nil, io.EOF
	case pos == end:
		return 0, f.wait(), nil
	}
	upTo, last := pos, int((end-1)/blob.PieceSize)
	for upTo < end && upTo-pos < maxRun && f.mayFlow(int(upTo/blob.PieceSize), last) {
		upTo = min(end, (upTo/blob.PieceSize+1)*blob.PieceSize)
	}
	if upTo == pos {
		return 0, f.wait(), nil
	}
	return upTo - pos, nil, nil
}

// mayFlow tells whether piece i may go out to a reader of a range that ends in
// piece last, and takes it down if it is not proven. The caller holds mu.
func (f *Fill) mayFlow(i, last int) bool {
	switch {
	case f.proven.Test(uint(i)):
		return true
	case f.tainted:
		return false
	case f.flowsOnTrust(i):
		return true
	case i >= f.run || i == last:
		return false
	}
	if i >= f.flowed {
		f.flowed = i + 1
		f.dirty = true
	}
	return true
}

package blobcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"shoal/blobcache/blob"
	"shoal/blobcache/internal/meta"
	"shoal/blobcache/proof"
)

// Blob is a whole, proven blob. It is not evicted before Close.
type Blob struct {
	c     *Cache
	entry *entry
	desc  blob.Descriptor
	file  *os.File
	once  sync.Once
}

// Descriptor returns what is known of the blob; its size is a fact.
func (b *Blob) Descriptor() blob.Descriptor { return b.desc }

// File returns the blob's bytes, at offset 0 when opened. It is this Blob's
// own file, so that its offset may be moved and net/http can send it by
// sendfile; Close closes it.
func (b *Blob) File() *os.File { return b.file }

// Close gives the blob back.
func (b *Blob) Close() error {
	err := error(nil)
	b.once.Do(func() {
		err = b.file.Close()
		b.c.unpin(b.entry)
	})
	return err
}

// Get opens the blob d if it is here, whole and proven. When its file has
// changed since the proof, or the proof is older than Options.ReverifyAfter, it
// is hashed first, which ctx may cut short; a blob that fails is dropped.
// Errors: blob.ErrNotFound; for 60 s after wrong bytes of it went out,
// blob.ErrNotFound and blob.ErrCorrupt both.
func (c *Cache) Get(ctx context.Context, d digest.Digest) (*Blob, error) {
	b, err := c.get(ctx, d)
	if errors.Is(err, errReplaced) {
		b, err = c.get(ctx, d)
	}
	switch {
	case err == nil:
		c.metrics.hits.Inc()
	case errors.Is(err, blob.ErrNotFound):
		c.metrics.misses.Inc()
	}
	return b, err
}

func (c *Cache) get(ctx context.Context, d digest.Digest) (*Blob, error) {
	c.mu.Lock()
	e := c.blobs[d]
	var err error
	switch {
	case c.closed:
		err = ErrClosed
	case c.buried(d):
		err = errBuried(d)
	case e == nil:
		err = fmt.Errorf("%s: %w", d, blob.ErrNotFound)
	default:
		c.pin(e)
		c.use(e)
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	file, err := c.openProven(ctx, e)
	if err != nil {
		c.unpin(e)
		return nil, fmt.Errorf("%s: %w", d, err)
	}
	return &Blob{c: c, entry: e, desc: c.descriptor(e), file: file}, nil
}

func (c *Cache) descriptor(e *entry) blob.Descriptor {
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.desc
}

// openProven opens the pinned e and has it proven if need be.
func (c *Cache) openProven(ctx context.Context, e *entry) (*os.File, error) {
	const tries = 3 // a file that changes under each proof has a writer, and is no good
	for range tries {
		file, err := os.Open(c.blobPath(e.desc.Digest))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, c.discard(e, err)
		}
		if err != nil {
			return nil, err
		}
		fresh, err := c.fresh(e, file)
		if fresh {
			return file, nil
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return nil, err
		}
		if err := c.prove(ctx, e); err != nil {
			return nil, err
		}
	}
	return nil, c.discard(e, errors.New("the file keeps changing"))
}

// fresh tells whether file is the one of which e was proven, and not too long
// ago.
func (c *Cache) fresh(e *entry, file *os.File) (bool, error) {
	stamp, err := stampOf(file)
	c.mu.Lock()
	defer c.mu.Unlock()
	return err == nil && !e.proven.IsZero() && stamp == e.stamp && time.Since(e.proven) < c.reverify, err
}

// renewal is a proof of bytes on disk that is running. Many may wait for it.
type renewal struct {
	done chan struct{}
	err  error // valid once done is closed
}

// prove hashes the pinned e again, once for all who ask meanwhile. When the
// bytes are wrong, e is discarded and the error is blob.ErrNotFound.
func (c *Cache) prove(ctx context.Context, e *entry) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	r := e.renew
	if r == nil {
		r = &renewal{done: make(chan struct{})}
		e.renew = r
		c.pin(e) // the proof may outlive its caller
		c.work.Go(func() {
			r.err = c.renewProof(e)
			c.mu.Lock()
			e.renew = nil
			c.mu.Unlock()
			close(r.done)
			c.unpin(e)
		})
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Cache) renewProof(e *entry) error {
	file, err := os.Open(c.blobPath(e.desc.Digest))
	if err != nil {
		return c.discard(e, err)
	}
	defer file.Close()
	stamp, err := stampOf(file) // before the bytes: a change during the proof will show
	if err != nil {
		return c.discard(e, err)
	}
	chain, err := c.proveFile(file, e.desc)
	if c.life.Err() != nil {
		return ErrClosed
	}
	if err != nil {
		return c.discard(e, err)
	}
	return c.proved(e, stamp, chain)
}

// proved notes that the file of that stamp was proven to be e.
func (c *Cache) proved(e *entry, stamp meta.Stamp, chain proof.Chain) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.place == nil {
		return errReplaced
	}
	first := e.proven.IsZero()
	e.stamp, e.proven = stamp, time.Now()
	c.meta.PutChain(e.desc, chain)
	c.meta.PutBlob(e.desc.Digest, c.record(e))
	if first {
		c.metrics.blobs.Inc()
		c.emit(Event{Blob: e.desc})
	}
	return nil
}

// proveFile returns the chain of file if it is the blob d, blob.ErrCorrupt if
// it is not. It ends early when the cache is closed.
func (c *Cache) proveFile(file *os.File, d blob.Descriptor) (proof.Chain, error) {
	if chain, ok := c.Chain(d); ok {
		if err := c.checkFile(file, d, chain); err == nil {
			return chain, nil
		}
		// The records may be what is wrong.
	}
	return c.hashFile(file, d)
}

// checkFile tells, on all processors, whether each piece of file leads from one
// state of the chain to the next and the last one to the digest: then file is
// the blob d, whatever the chain was believed to be. The error is
// blob.ErrCorrupt if they disagree.
func (c *Cache) checkFile(file *os.File, d blob.Descriptor, chain proof.Chain) error {
	if info, err := file.Stat(); err != nil || info.Size() != d.Size || !chain.Fits(d.Size) {
		return errors.Join(blob.ErrCorrupt, err)
	}
	var (
		g    errgroup.Group
		next atomic.Int64
		n    = int64(max(1, blob.PieceCount(d.Size))) // an empty blob has an empty piece
	)
	for range min(int64(runtime.GOMAXPROCS(0)), n) {
		g.Go(func() error {
			buf := c.pieces.Get().(*[blob.PieceSize]byte)
			defer c.pieces.Put(buf)
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				if c.life.Err() != nil {
					return ErrClosed
				}
				if err := checkPiece(file, d, chain, int(i), buf[:]); err != nil {
					next.Store(n) // the others need not go on
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func checkPiece(file *os.File, d blob.Descriptor, chain proof.Chain, i int, buf []byte) error {
	r := blob.Piece(i, d.Size)
	if _, err := file.ReadAt(buf[:r.Length], r.Offset); err != nil {
		return unexpected(err)
	}
	ok, err := chain.Check(d, i, buf[:r.Length])
	if err == nil && !ok {
		err = blob.ErrCorrupt
	}
	return err
}

// hashFile is proveFile from front to back, without a chain.
func (c *Cache) hashFile(file *os.File, d blob.Descriptor) (proof.Chain, error) {
	buf := c.pieces.Get().(*[blob.PieceSize]byte)
	defer c.pieces.Put(buf)
	h := proof.NewHasher()
	for h.Len() <= d.Size && c.life.Err() == nil {
		n, err := file.ReadAt(buf[:], h.Len())
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if h.Sum() != d.Hash() {
		return nil, blob.ErrCorrupt
	}
	chain, _ := h.Chain()
	return chain, nil
}

// errReplaced: the file was dropped or committed anew while it was looked at.
var errReplaced = fmt.Errorf("%w: replaced", blob.ErrNotFound)

// discard drops e, whose bytes are not what they should be, and says so. It
// returns blob.ErrNotFound: the blob can be had elsewhere.
func (c *Cache) discard(e *entry, why error) error {
	c.mu.Lock()
	if e.place == nil { // somebody else was first
		c.mu.Unlock()
		return errReplaced
	}
	trash := c.detach(e)
	c.emit(Event{Blob: e.desc, Gone: true, Rotten: true})
	c.mu.Unlock()
	c.metrics.corruption.Inc()
	c.metrics.rotten.Inc()
	c.log.Error("blob on disk is not what it was: dropped, to be fetched again", "digest", e.desc.Digest, "error", why)
	c.empty(trash)
	return blob.ErrNotFound
}

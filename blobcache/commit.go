package blobcache

import (
	"errors"
	"fmt"
	"os"
	"time"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// closed ends the writing: the pieces lead to the digest. Readers may have all
// of it at once, unless somebody is to be judged first; the rest is about
// keeping it. The caller holds mu.
func (f *Fill) closed() {
	f.judging = true
	if len(f.suspects) == 0 && len(f.offers) == 0 {
		f.release()
	}
	f.inflight.Add(1)
	f.c.work.Go(f.conclude)
}

// release lets readers have everything. The caller holds mu.
func (f *Fill) release() {
	f.whole = true
	f.proven = f.have.Clone()
	f.wake()
	f.share()
}

// chain returns the chain that closed, and nil where there are none. It is
// what was hashed, not the hint: of that only the states in use were compared.
func (f *Fill) chain() proof.Chain {
	if f.sealed != nil {
		return f.sealed
	}
	chain, _ := f.hasher.ChainOf(f.key.size)
	return chain
}

// conclude judges, commits and ends the fill.
func (f *Fill) conclude() {
	chain := f.chain()
	flowed, err := f.judge(chain)
	if flowed {
		f.c.bury(f.key.digest)
	}
	f.mu.Lock()
	switch {
	case err != nil:
		f.fail(err)
	case f.err == nil && flowed:
		// The blob is good, but clients hold wrong bytes of it.
		f.whole = true
		f.err = fmt.Errorf("%s: %w: bytes of another upstream version went out", f.key.digest, blob.ErrCorrupt)
		f.wake()
		f.share()
	case f.err == nil && !f.whole:
		f.release()
	}
	whole := f.whole
	f.mu.Unlock()
	if whole {
		if err := f.commit(chain); err != nil {
			f.c.log.Error("blob is lost: it was whole and could not be kept", "digest", f.key.digest, "error", err)
			f.mu.Lock()
			f.err = errors.Join(f.err, err)
			f.mu.Unlock()
		}
	}
	f.inflight.Done()
	if whole {
		f.retire()
	}
}

func (f *Fill) commit(chain proof.Chain) error {
	if err := f.c.disk.sync(f.file); err != nil {
		return err
	}
	err := f.c.adopt(adoption{
		desc: f.Descriptor(), file: f.file, path: f.path, chain: chain, fill: f,
	})
	if err == nil {
		f.keepEndorsement(chain)
	}
	return err
}

// adoption is a file that was proven and is on disk, on its way to its name.
type adoption struct {
	desc  blob.Descriptor
	file  *os.File
	path  string
	chain proof.Chain
	fill  *Fill // whose file it is; nil for Put
}

// rename gives the file its name; readers that come to the fill find it there.
func (a adoption) rename(c *Cache, name string) error {
	if a.fill == nil {
		return c.disk.rename(a.path, name)
	}
	a.fill.mu.Lock()
	defer a.fill.mu.Unlock()
	err := c.disk.rename(a.path, name)
	if err == nil {
		a.fill.path = name
	}
	return err
}

// adopt gives a file its name under blobs/ and makes it known. The bytes were
// counted by reserve.
func (c *Cache) adopt(a adoption) error {
	c.committing.Lock()
	defer c.committing.Unlock()
	if a.fill != nil {
		a.fill.saving.Lock()
		defer a.fill.saving.Unlock()
	}
	d := a.desc.Digest
	name := c.blobPath(d)
	c.mu.Lock()
	err := a.rename(c, name)
	if err == nil {
		c.replaced(c.blobs[d])
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := c.disk.syncDir(c.blobDir()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	stamp, err := stampOf(a.file)
	if err != nil {
		return errors.Join(err, os.Remove(name))
	}
	now := time.Now()
	e := &entry{desc: a.desc, bytes: a.desc.Size, used: now, proven: now, stamp: stamp}
	c.mu.Lock()
	c.blobs[d] = e
	c.idle.add(e)
	c.useAll(e)
	if a.fill != nil {
		a.fill.become(e)
	}
	c.metrics.blobs.Inc()
	c.meta.PutChain(a.desc, a.chain)
	c.meta.PutBlob(d, c.record(e))
	c.emit(Event{Blob: a.desc})
	others := c.liars(a)
	c.mu.Unlock()
	for _, f := range others {
		f.Fail(fmt.Errorf("%s: %w: a size of %d was claimed, it is %d", d, blob.ErrCorrupt, f.key.size, a.desc.Size))
	}
	return nil
}

// replaced forgets the entry of a file that a rename has just replaced. The
// caller holds mu.
func (c *Cache) replaced(e *entry) {
	if e == nil {
		return
	}
	delete(c.blobs, e.desc.Digest)
	c.idle.remove(e)
	c.addUsed(-e.bytes)
	if e.pins > 0 {
		c.pinned -= e.bytes
	}
	if !e.proven.IsZero() {
		c.metrics.blobs.Dec()
	}
}

// liars returns the fills of other sizes of a blob whose size is now a fact.
// The caller holds mu.
func (c *Cache) liars(a adoption) (fills []*Fill) {
	for k, f := range c.fills {
		if k.digest == a.desc.Digest && k.size != a.desc.Size {
			fills = append(fills, f)
		}
	}
	return fills
}

// become lets the readers of f pin its blob. The Cache's mu is held.
func (f *Fill) become(e *entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pinned = e
	f.held.Store(0)
	f.promise.Store(0)
	for range f.readers {
		f.c.pin(e)
	}
}

// retire ends the fill after it has failed or was committed: when nobody uses
// its file any more it is closed, and what remains is put in order.
func (f *Fill) retire() {
	f.mu.Lock()
	f.leaving = true
	f.mu.Unlock()
	f.inflight.Wait()
	err := f.Err()
	result := resultCommitted
	switch {
	case errors.Is(err, blob.ErrCorrupt):
		result = resultCorrupt
	case err != nil:
		result = resultFailed
		if errSave := f.save(); errSave != nil {
			f.c.log.Warn("progress of a partial blob is not kept", "digest", f.key.digest, "error", errSave)
		}
	}
	f.saving.Lock()
	f.mu.Lock()
	f.dirty = false // nothing is saved from here on
	f.mu.Unlock()
	if f.file != nil {
		f.file.Close() // nothing is waiting to be written
	}
	f.saving.Unlock()
	f.c.retired(f, result)
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.c.metrics.fills.WithLabelValues(result).Inc()
	close(f.done)
}

// retired takes f out of the running ones. What failed stays as a partial
// blob, unless its bytes are known to be bad.
func (c *Cache) retired(f *Fill, result string) {
	dir := c.fillDir(f.key)
	c.mu.Lock()
	delete(c.fills, f.key)
	if c.blobs[f.key.digest] == nil {
		c.unlink(f.key.digest)
	}
	c.metrics.running.Dec()
	c.addUsed(-f.held.Load())
	trash := ""
	if e := c.findPartial(f.named()); e != nil && result == resultFailed {
		c.addPartial(e)
	} else {
		trash = c.toTrash(dir)
	}
	c.mu.Unlock()
	c.empty(trash)
}

package blobcache

import (
	"errors"

	"shoal/blobcache/blob"
)

// The frontier is the number of pieces that were hashed in order. It moves in
// one of three ways, so that each byte is hashed once and closure costs
// nothing extra: the writer of the next piece hashes it while it is in hand;
// pieces that agree with an offered chain were hashed when they were written,
// and are passed for free; pieces that came ahead of their turn are read back
// by hashForward.

// begin starts what a new fill has to do. The caller holds mu.
func (f *Fill) begin() {
	if f.err != nil { // the cache was closed meanwhile
		return
	}
	if f.sealed != nil && f.have.Any() {
		f.inflight.Add(1)
		f.c.work.Go(f.proveRestored)
		return
	}
	f.advance()
}

// advance moves the frontier as far as it goes without reading, and sees to it
// that somebody reads on from there. The caller holds mu.
func (f *Fill) advance() {
	if f.err != nil || f.whole || f.hashing || f.judging {
		return
	}
	if f.sealed != nil {
		if f.proven.Count() == uint(f.n) {
			f.closed()
		}
		return
	}
	f.passLinked()
	switch {
	case f.err != nil, f.judging:
	case f.front == f.n:
		f.closed()
	case f.have.Test(uint(f.front)):
		f.hashing = true
		f.inflight.Add(1)
		f.c.work.Go(f.hashForward)
	}
}

// hashForward hashes pieces from the disk until one is missing.
func (f *Fill) hashForward() {
	defer f.inflight.Done()
	buf := f.c.pieces.Get().(*[blob.PieceSize]byte)
	defer f.c.pieces.Put(buf)
	for {
		i, ok := f.nextToHash()
		if !ok {
			return
		}
		data, err := f.read(i, buf[:])
		agrees := err == nil && f.hash(i, data)
		f.mu.Lock()
		var dropped int64
		if err == nil {
			f.passed(i, agrees)
		} else {
			dropped = f.lose(i, err)
		}
		stop := f.err != nil || f.judging
		f.hashing = !stop
		f.mu.Unlock()
		f.c.release(dropped)
		if stop {
			return
		}
	}
}

// lose drops piece i, which cannot be read back as it was written, and has the
// driver bring it again: no sender is to blame for our disk. It returns the
// piece's length, to be released without mu. The caller holds mu.
func (f *Fill) lose(i int, err error) int64 {
	f.c.log.Warn("piece is lost on disk", "digest", f.key.digest, "piece", i, "error", err)
	f.tell(Rejection{Piece: i, Missing: true})
	return f.drop(i)
}

// nextToHash returns the piece at the frontier if it is to be hashed;
// otherwise it gives up the hasher.
func (f *Fill) nextToHash() (int, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passLinked()
	if f.err == nil && !f.judging && f.front < f.n && f.have.Test(uint(f.front)) {
		return f.front, true
	}
	f.hashing = false
	f.advance()
	return 0, false
}

// hash hashes piece i, the one at the frontier. For the last one it tells
// whether the digest is right, for others it says true. The caller has set
// hashing and does not hold mu.
func (f *Fill) hash(i int, data []byte) bool {
	f.hasher.Write(data)
	return i < f.n-1 || f.hasher.Sum() == f.named().Hash()
}

// passed moves the frontier over piece i, which was just hashed; agrees is
// what hash said. The caller holds mu.
func (f *Fill) passed(i int, agrees bool) {
	if f.err != nil {
		return
	}
	if i == f.n-1 && !agrees {
		if f.trusted { // it knows which ones are wrong
			f.recheckLater()
			return
		}
		f.judging = true
		f.inflight.Add(1)
		f.c.work.Go(f.reject)
		return
	}
	f.front++
}

// proveRestored checks pieces that were found on disk against a proven chain.
func (f *Fill) proveRestored() {
	defer f.inflight.Done()
	buf := f.c.pieces.Get().(*[blob.PieceSize]byte)
	defer f.c.pieces.Put(buf)
	found := f.Have()
	for i, ok := found.NextSet(0); ok && !f.failing(); i, ok = found.NextSet(i + 1) {
		f.mu.Lock()
		done := f.proven.Test(i)
		f.mu.Unlock()
		if done {
			continue // written since
		}
		data, err := f.read(int(i), buf[:])
		if err == nil {
			var agrees bool
			if agrees, err = f.sealed.Check(f.named(), int(i), data); !agrees {
				err = errors.Join(blob.ErrCorrupt, err)
			}
		}
		if errors.Is(err, blob.ErrCorrupt) && f.wentOut(int(i)) {
			f.poisoned(err)
			return
		}
		dropped := int64(0)
		f.mu.Lock()
		if err == nil {
			f.proven.Set(i)
		} else {
			dropped = f.lose(int(i), err)
		}
		f.advance()
		f.wake()
		f.mu.Unlock()
		f.c.release(dropped)
	}
}

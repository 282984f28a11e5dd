package blobcache

import (
	"crypto/sha256"
	"fmt"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
)

// WritePiece writes piece i, whole, which from sent. A piece that is here
// already is no error and is not looked at. The data is not kept.
//
// Errors: blob.ErrCorrupt if it does not match a proven chain: from lied, and
// nothing was stored. ErrConflict if it does not match a chain that somebody
// offered: nothing was stored and nobody is convicted; ask another source. (If
// the same bytes come again, or from the origin, the chain is dropped
// instead.) ErrRefused if from was found wrong during this fill: ask another
// source. blob.ErrNoSpace; the fill stays as it is, to be failed by its
// driver. ErrClosed if the fill has failed. Anything else is the driver's
// mistake or the disk's.
func (f *Fill) WritePiece(i int, data []byte, from Provenance) error {
	return f.write(&delivery{f: f, i: i, from: from}, data)
}

// WriteVouched is WritePiece of a piece for which signer has made voucher,
// whoever sent it: signer answers for it. The caller has checked the voucher,
// and that the data matches it. The piece may be given to members with the
// voucher, which is not looked at here.
func (f *Fill) WriteVouched(i int, data []byte, signer string, voucher statement.Voucher) error {
	return f.write(&delivery{f: f, i: i, from: Provenance{Peer: signer}, voucher: &voucher}, data)
}

// WriteLinked is WritePiece of a piece that is said to agree with the chain
// whose bytes have that SHA-256, for which VouchChain has said true: who signed
// the chain answers for it. blob.ErrCorrupt means that it does not agree: who
// said so lied, whatever the chain is worth. ErrConflict, that the fill does
// not go by that chain any more.
func (f *Fill) WriteLinked(i int, data []byte, chain [sha256.Size]byte) error {
	return f.write(&delivery{f: f, i: i, under: &chain}, data)
}

func (f *Fill) write(w *delivery, data []byte) error {
	i := w.i
	if i < 0 || i >= f.n || int64(len(data)) != blob.Piece(i, f.key.size).Length {
		return fmt.Errorf("%d bytes as piece %d of %s, size %d: no such piece", len(data), i, f.key.digest, f.key.size)
	}
	if w.under == nil && (w.from.Peer == "") == (w.from.Identity == "") {
		return fmt.Errorf("piece %d of %s: exactly one of peer and identity must be told", i, f.key.digest)
	}
	needed, err := f.claim(w)
	if !needed {
		return err
	}
	defer f.inflight.Done()
	if err = w.check(data); err == nil {
		err = f.store(i, data)
	}
	if err == nil && w.front {
		w.agrees = f.hash(i, data)
	}
	f.settle(w, err)
	if err != nil {
		return fmt.Errorf("piece %d of %s from %v: %w", i, f.key.digest, w.from, err)
	}
	return nil
}

// delivery is one piece on its way to the disk.
type delivery struct {
	f       *Fill
	i       int
	from    Provenance
	voucher *statement.Voucher // nil if there is none
	under   *[sha256.Size]byte // said to agree with that chain, if not nil

	// What claim and check find.
	chain  proof.Chain       // to be checked against, if not nil
	sealed bool              // chain is proven
	front  bool              // this write hashes the frontier
	agrees bool              // with the chain; for the frontier, see hash
	audit  bool              // it is brought again to be compared
	sum    [sha256.Size]byte // of the data; only in an audit
}

// claim makes the caller the writer of the piece. It returns false and no
// error if the piece is here already.
func (f *Fill) claim(w *delivery) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := uint(w.i)
	for {
		switch {
		case f.err != nil:
			return false, fmt.Errorf("piece %d of %s: fill is %w: %w", i, f.key.digest, ErrClosed, f.err)
		case f.whole || f.have.Test(i):
			return false, nil
		}
		if !f.busy.Test(i) {
			break
		}
		changed := f.wait() // for another writer of the same piece
		f.mu.Unlock()
		<-changed
		f.mu.Lock()
	}
	if w.under != nil && f.sealed == nil {
		if f.hint == nil || f.hintSum != *w.under {
			return false, fmt.Errorf("piece %d of %s: %w: its chain is not that of the fill", i, f.key.digest, ErrConflict)
		}
		w.from = Provenance{Peer: f.hintBy}
	}
	if f.refuses(w.from) {
		return false, fmt.Errorf("piece %d of %s from %v: %w", i, f.key.digest, w.from, ErrRefused)
	}
	_, w.audit = f.audited[w.i]
	switch {
	case f.sealed != nil:
		w.chain, w.sealed = f.sealed, true
	case f.hint != nil:
		w.chain = f.hint
	case f.front == w.i && !f.hashing && !f.judging:
		w.front, f.hashing = true, true
	}
	f.busy.Set(i)
	f.inflight.Add(1)
	return true, nil
}

// check compares data with the chain, on the caller's core.
func (w *delivery) check(data []byte) error {
	if w.audit {
		w.sum = sha256.Sum256(data)
	}
	if w.chain == nil {
		return nil
	}
	ok, err := w.chain.Check(w.f.named(), w.i, data)
	if err != nil {
		return err
	}
	w.agrees = ok
	switch {
	case ok:
		return nil
	case w.sealed || w.under != nil:
		return blob.ErrCorrupt
	}
	return w.f.doubt(w, sha256.Sum256(data))
}

// store writes data to the file, within the budget.
func (f *Fill) store(i int, data []byte) error {
	length := int64(len(data))
	if err := f.c.reserve(length); err != nil {
		return err
	}
	f.writing.Lock()
	err := f.c.writeAt(f.file, data, int64(i)*blob.PieceSize)
	f.writing.Unlock()
	if err != nil {
		f.c.release(length)
		return err
	}
	f.held.Add(length)
	return nil
}

// settle ends a write and lets everybody know.
func (f *Fill) settle(w *delivery, err error) {
	i := uint(w.i)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy.Clear(i)
	if err == nil {
		f.have.Set(i)
		f.from[i] = f.source(w.from)
		f.dirty = true
		switch {
		case w.sealed:
			f.proven.Set(i)
		case w.chain != nil && w.agrees && sameChain(w.chain, f.hint):
			f.linked.Set(i)
		}
		f.extendRun()
		f.keepVoucher(w)
		f.compare(w)
	}
	if w.front {
		f.hashing = false
		if err == nil {
			f.passed(w.i, w.agrees)
		}
	}
	f.advance()
	f.wake()
}

// sameChain tells whether a and b are the very same list, not equal ones.
func sameChain(a, b proof.Chain) bool { return len(a) > 0 && len(b) > 0 && &a[0] == &b[0] }

// source returns the number of p. The caller holds mu.
func (f *Fill) source(p Provenance) uint32 {
	n, ok := f.index[p]
	if !ok {
		n = uint32(len(f.sources))
		f.sources = append(f.sources, p)
		f.index[p] = n
	}
	return n
}

// extendRun moves the end of the run of pieces from one upstream identity. The
// caller holds mu.
func (f *Fill) extendRun() {
	for f.run < f.n && f.have.Test(uint(f.run)) &&
		f.from[f.run] == f.from[0] && f.sources[f.from[0]].Identity != "" {
		f.run++
	}
}

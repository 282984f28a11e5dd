package blobcache

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
)

// offer is a chain that somebody offered, and that is not proven. Its fields
// are guarded by Fill.mu.
type offer struct {
	hint        proof.Chain // nil if there is none; agrees with hasher
	hintSum     [sha256.Size]byte
	hintBy      string             // who answers for it
	hintVoucher *statement.Voucher // nil if nobody has signed it
	trusted     bool               // a trusted key has signed it: what agrees with it may flow
	linked      *bitset.BitSet     // pieces that agree with hint
	compared    int                // pieces 0 to compared-1 were hashed and compared with it
}

// OfferChain gives the fill a chain for which peer answers: a hint. While it
// lasts, pieces are checked against it as they are written, on all cores, and
// need not be hashed again in order. It is dropped when it conflicts with what
// was hashed. With a voucher, which must be peer's, the pieces that agree with
// the chain may be given to members; nil means that there is none.
//
// Errors: blob.ErrCorrupt if it differs from a proven chain: peer lied.
// ErrConflict if it differs from what was hashed or offered so far. ErrRefused
// if peer was found wrong. For a fill that has ended, and where chains are not
// supported, it does nothing.
func (f *Fill) OfferChain(c proof.Chain, peer string, voucher *statement.Voucher) error {
	if !c.Fits(f.key.size) {
		return fmt.Errorf("chain of %s from %s: %w: length", f.key.digest, peer, ErrConflict)
	}
	sum := sha256.Sum256(c.Bytes())
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.whole || !f.c.chains {
		return nil
	}
	if err := f.consider(c, sum, peer); err != nil {
		return fmt.Errorf("chain of %s from %s: %w", f.key.digest, peer, err)
	}
	if f.sealed != nil {
		return nil
	}
	if f.hint == nil {
		f.hint, f.hintSum, f.hintBy = slices.Clone(c), sum, peer
		f.compared = 0
	}
	f.vouchHint(peer, voucher)
	f.advance()
	return nil
}

// consider takes down who offered what, and tells whether the chain may be
// used. The caller holds mu.
func (f *Fill) consider(c proof.Chain, sum [sha256.Size]byte, peer string) error {
	if f.sealed != nil {
		if sum != sha256.Sum256(f.sealed.Bytes()) {
			return blob.ErrCorrupt
		}
		return nil
	}
	if len(f.offers) < maxOffers {
		f.offers[peer] = sum
	}
	_, dropped := f.refused[sum]
	switch {
	case f.refuses(Provenance{Peer: peer}):
		return ErrRefused
	case dropped || !f.consistent(c, sum):
		return ErrConflict
	}
	return nil
}

// consistent tells whether c agrees with the hint, if any, and with what was
// hashed so far. The caller holds mu.
func (f *Fill) consistent(c proof.Chain, sum [sha256.Size]byte) bool {
	if f.hint != nil {
		return sum == f.hintSum
	}
	if f.hashing || f.judging {
		return true // the hasher is in use; passLinked will compare
	}
	s, ok := f.hasher.State()
	return !ok || f.front >= f.n || s == c.Before(f.front)
}

// VouchChain tells whether the fill goes by the chain that the voucher is
// about, offered or proven: then WriteLinked takes pieces that are said to
// agree with it. If nobody has vouched for an offered one, it takes this
// voucher, for which signer answers.
func (f *Fill) VouchChain(signer string, voucher statement.Voucher) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sealed != nil {
		return sha256.Sum256(f.sealed.Bytes()) == voucher.Sum
	}
	if f.hint == nil || f.hintSum != voucher.Sum || f.consider(f.hint, voucher.Sum, signer) != nil {
		return false
	}
	f.vouchHint(signer, &voucher)
	return true
}

// vouchHint has signer answer for the hint, if nobody has signed it yet. The
// caller holds mu.
func (f *Fill) vouchHint(signer string, voucher *statement.Voucher) {
	if f.hintVoucher != nil || voucher == nil {
		return
	}
	f.hintBy, f.hintVoucher = signer, voucher
	f.share()
}

// Hint returns the chain that somebody has vouched for, and the voucher; it is
// not proven. False if there is none.
func (f *Fill) Hint() (c proof.Chain, voucher statement.Voucher, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hintVoucher == nil {
		return nil, statement.Voucher{}, false
	}
	return f.hint, *f.hintVoucher, true
}

// passLinked moves the frontier over pieces that agree with the hint: if they
// start from the state that was reached, they lead to the states there. Here
// the proof would break if a piece were passed from any other state, so that
// it is compared, whatever should hold. The caller holds mu and may use the
// hasher.
func (f *Fill) passLinked() {
	if f.hint == nil || f.front == f.n {
		return
	}
	if s, ok := f.hasher.State(); !ok || s != f.hint.Before(f.front) {
		if ok && f.trusted {
			f.recheckLater()
			return
		}
		f.dropHint("what was hashed leads elsewhere")
		return
	}
	f.linkHashed()
	for f.front < f.n && f.linked.Test(uint(f.front)) {
		if f.front < len(f.hint) {
			if err := f.hasher.Skip(f.hint[f.front]); err != nil {
				f.fail(err)
				return
			}
		}
		f.front++
	}
	f.compared = f.front
}

// linkHashed finds out which of the pieces that were hashed in order agree with
// the hint: it may have come after them. The state in front of the frontier
// does. The caller holds mu and may use the hasher.
func (f *Fill) linkHashed() {
	hashed, ok := f.hasher.Chain() // all but the state in front of the frontier
	if !ok || f.compared == f.front {
		return
	}
	agrees := func(i int) bool { return i >= len(hashed) || hashed.Before(i+1) == f.hint.Before(i+1) }
	before := f.compared == 0 || agrees(f.compared-1)
	for ; f.compared < f.front; f.compared++ {
		behind := agrees(f.compared)
		if before && behind {
			f.linked.Set(uint(f.compared))
		}
		before = behind
	}
	if f.hintVoucher != nil {
		f.share()
	}
	f.wake() // readers may go on if a trusted key has signed it
}

// doubt decides over a piece that does not agree with a hint. The origin's
// word counts more than the hint, and so do the same bytes when they come a
// second time, from somebody else if a trusted key has signed the hint; then the
// hint is dropped and the error is nil.
func (f *Fill) doubt(w *delivery, sum [sha256.Size]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !sameChain(w.chain, f.hint) {
		return nil // dropped meanwhile
	}
	if w.from.Identity != "" {
		f.doubted[Provenance{Peer: f.hintBy}] = struct{}{}
		f.dropHint("the origin has other bytes")
		return nil
	}
	s := suspect{sum: sum, from: w.from}
	if twice := f.seconds(w.i, s); !f.accuse(w.i, s) && !f.trusted || twice {
		f.dropHint("the same other bytes came twice")
		return nil
	}
	return ErrConflict
}

// dropHint goes back to hashing in order. The caller holds mu.
func (f *Fill) dropHint(why string) {
	if f.hint == nil {
		return
	}
	f.c.log.Debug("offered chain is dropped", "digest", f.key.digest, "by", f.hintBy, "why", why)
	f.distrust(why)
	if len(f.refused) < maxOffers {
		f.refused[f.hintSum] = struct{}{}
	}
	linked := f.linked
	f.offer = offer{linked: linked.ClearAll()}
	f.share()
}

package blobcache

import (
	"crypto/sha256"
	"fmt"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

const (
	// maxRounds is how often the pieces of a fill may lead to a wrong digest
	// before it fails: two are enough to be rid of peers and of an upstream.
	maxRounds = 8
	// maxOffers bounds the peers whose chains are remembered for conviction.
	maxOffers = 64
	// maxSuspects bounds the refused versions of one piece.
	maxSuspects = 8
)

// ChainPiece is the Piece of a Rejection that is about an offered chain.
const ChainPiece = -1

// Rejection tells the driver of a piece that it has to bring again, of a lie,
// or of both.
type Rejection struct {
	// Piece is what was rejected, or ChainPiece.
	Piece int
	// From is who sent it; nobody if our own disk is to blame.
	From Provenance
	// Proven: the right bytes are known and these were not them, so From lied
	// (or its disk has rotted). Otherwise From is only one of those whose
	// pieces, together, did not lead to the digest.
	Proven bool
	// Missing: the piece is to be brought again.
	Missing bool
}

// trial is what a fill knows against whom until closure decides.
type trial struct {
	rounds     int
	survived   *bitset.BitSet // pieces that were kept at a failed closure
	suspects   map[int][]suspect
	offers     map[string][sha256.Size]byte   // hash of the chain, by peer
	refused    map[[sha256.Size]byte]struct{} // chains that were dropped
	rejections []Rejection
}

// suspect is a piece that was refused or dropped without proof.
type suspect struct {
	sum    [sha256.Size]byte
	from   Provenance
	flowed bool // to clients
}

func newTrial(n int) trial {
	return trial{
		survived: bitset.New(uint(n)),
		suspects: map[int][]suspect{},
		offers:   map[string][sha256.Size]byte{},
		refused:  map[[sha256.Size]byte]struct{}{},
	}
}

// accuse keeps s until closure; it says false if that very version of the
// piece was there already, or there are too many to tell.
func (t *trial) accuse(i int, s suspect) bool {
	fresh := len(t.suspects[i]) < maxSuspects
	for _, old := range t.suspects[i] {
		if old == s {
			return false
		}
		fresh = fresh && old.sum != s.sum
	}
	if len(t.suspects[i]) < maxSuspects {
		t.suspects[i] = append(t.suspects[i], s)
	}
	return fresh
}

// Rejected returns a channel that yields a value when Rejections has news.
func (f *Fill) Rejected() <-chan struct{} { return f.rejected }

// Rejections returns what was rejected since the last call. The last ones,
// convictions by closure, are there when Done is closed.
func (f *Fill) Rejections() []Rejection {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.rejections
	f.rejections = nil
	return r
}

// tell queues a rejection for the driver. The caller holds mu.
func (f *Fill) tell(r Rejection) {
	f.rejections = append(f.rejections, r)
	select {
	case f.rejected <- struct{}{}:
	default:
	}
}

// OfferChain gives the fill a chain that peer sent: a hint. While it lasts,
// pieces are checked against it as they are written, on all cores, and need
// not be hashed again in order. It is dropped when it conflicts with what was
// hashed.
//
// Errors: blob.ErrCorrupt if it differs from a proven chain: peer lied.
// ErrConflict if it differs from what was hashed or offered so far. For a
// fill that has ended, and where chains are not supported, it does nothing.
func (f *Fill) OfferChain(c proof.Chain, peer string) error {
	if !c.Fits(f.key.size) {
		return fmt.Errorf("chain of %s from %s: %w: length", f.key.digest, peer, ErrConflict)
	}
	sum := sha256.Sum256(c.Bytes())
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.whole || !f.c.chains {
		return nil
	}
	if f.sealed != nil {
		if sum != sha256.Sum256(f.sealed.Bytes()) {
			return fmt.Errorf("chain of %s from %s: %w", f.key.digest, peer, blob.ErrCorrupt)
		}
		return nil
	}
	if len(f.offers) < maxOffers {
		f.offers[peer] = sum
	}
	_, refused := f.refused[sum]
	if refused || !f.consistent(c) {
		return fmt.Errorf("chain of %s from %s: %w", f.key.digest, peer, ErrConflict)
	}
	if f.hint == nil {
		f.hint = append(proof.Chain{}, c...)
	}
	return nil
}

// consistent tells whether c agrees with the hint, if any, and with what was
// hashed so far. The caller holds mu.
func (f *Fill) consistent(c proof.Chain) bool {
	if f.hint != nil {
		return equalChains(c, f.hint)
	}
	if f.hashing || f.judging {
		return true // the hasher is in use; passLinked will compare
	}
	s, ok := f.hasher.State()
	return !ok || f.front >= f.n || s == c.Before(f.front)
}

func equalChains(a, b proof.Chain) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// doubt decides over a piece that does not agree with a hint. The origin's
// word counts more than the hint, and so do the same bytes when they come a
// second time; then the hint is dropped and the error is nil.
func (f *Fill) doubt(w *delivery, sum [sha256.Size]byte, from Provenance) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !sameChain(w.chain, f.hint) {
		return nil // dropped meanwhile
	}
	if from.Identity != "" {
		f.dropHint("the origin has other bytes")
		return nil
	}
	if !f.accuse(w.i, suspect{sum: sum, from: from}) {
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
	f.c.log.Debug("offered chain is dropped", "digest", f.key.digest, "why", why)
	if len(f.refused) < maxOffers {
		f.refused[sha256.Sum256(f.hint.Bytes())] = struct{}{}
	}
	f.hint = nil
	f.linked.ClearAll()
}

// reject sorts out a closure that failed: all pieces are here and do not lead
// to the digest. judging keeps everybody else away from the hasher.
func (f *Fill) reject() {
	defer f.inflight.Done()
	f.c.metrics.corruption.Inc()
	f.mu.Lock()
	f.rounds++
	keep, sole := f.keepers()
	hopeless := sole != "" || f.rounds >= maxRounds
	f.mu.Unlock()
	f.c.log.Warn("pieces do not lead to the digest", "digest", f.key.digest, "size", f.key.size,
		"pieces", f.n, "kept", keep.Count(), "round", f.rounds, "upstream", sole)
	if hopeless {
		err := fmt.Errorf("%s: %w: size %d, round %d, all from upstream %q", f.key.digest, blob.ErrCorrupt, f.key.size, f.rounds, sole)
		if f.wentOut(0) {
			f.poisoned(err)
		} else {
			f.Fail(err)
		}
		return
	}
	sums, err := f.sums(func(i int) bool { return !keep.Test(uint(i)) })
	var dropped int64
	f.mu.Lock()
	if err != nil {
		f.fail(err)
	} else {
		dropped = f.startOver(keep, sums)
	}
	f.mu.Unlock()
	f.c.release(dropped)
}

// wentOut tells whether piece i may have gone to clients before it was proven.
func (f *Fill) wentOut(i int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return i < f.flowed
}

// poisoned fails the fill because of wrong bytes that clients have, and has
// nobody go on with them.
func (f *Fill) poisoned(err error) {
	f.c.bury(f.key.digest)
	f.Fail(err)
}

// keepers chooses the pieces that stay after a failed closure: those from the
// upstream identity that sent most, unless they have survived one already, so
// that it ends. sole is the identity if it sent everything: then it is to
// blame. The caller holds mu.
func (f *Fill) keepers() (keep *bitset.BitSet, sole string) {
	counts := make([]int, len(f.sources))
	totals := make([]int, len(f.sources))
	best := 0
	for i, s := range f.from {
		totals[s]++
		if f.sources[s].Identity == "" || f.survived.Test(uint(i)) {
			continue
		}
		if counts[s]++; counts[s] > counts[best] {
			best = int(s)
		}
	}
	keep = bitset.New(uint(f.n))
	for i, s := range f.from {
		if counts[best] > 0 && int(s) == best && !f.survived.Test(uint(i)) {
			keep.Set(uint(i))
		}
		if totals[s] == f.n {
			sole = f.sources[s].Identity
		}
	}
	return keep, sole
}

// sums reads the chosen pieces back and returns their SHA-256 sums.
func (f *Fill) sums(chosen func(i int) bool) (map[int][sha256.Size]byte, error) {
	buf := f.c.pieces.Get().(*[blob.PieceSize]byte)
	defer f.c.pieces.Put(buf)
	sums := map[int][sha256.Size]byte{}
	for i := range f.n {
		if !chosen(i) {
			continue
		}
		data, err := f.read(i, buf[:])
		if err != nil {
			return nil, fmt.Errorf("read back piece %d of %s: %w", i, f.key.digest, err)
		}
		sums[i] = sha256.Sum256(data)
	}
	return sums, nil
}

// startOver drops the pieces in sums, which become suspects, and returns their
// length. The caller holds mu.
func (f *Fill) startOver(keep *bitset.BitSet, sums map[int][sha256.Size]byte) (dropped int64) {
	for i, sum := range sums {
		from := f.sources[f.from[i]]
		f.accuse(i, suspect{sum: sum, from: from, flowed: i < f.flowed})
		dropped += f.drop(i)
		f.tell(Rejection{Piece: i, From: from, Missing: true})
	}
	f.survived = keep
	f.dropHint("it did not lead to the digest")
	f.hasher.Reset()
	f.front = 0
	f.extendRun()
	f.judging = false
	f.advance()
	f.wake()
	return dropped
}

// drop forgets piece i and returns its length, to be released without mu. The
// caller holds mu.
func (f *Fill) drop(i int) int64 {
	f.have.Clear(uint(i))
	f.from[i] = 0
	f.run = min(f.run, i)
	f.dirty = true
	length := blob.Piece(i, f.key.size).Length
	f.held.Add(-length)
	return length
}

// judge convicts, now that the right bytes are known. It tells whether wrong
// bytes have flowed to clients.
func (f *Fill) judge(chain proof.Chain) (flowed bool, err error) {
	sums, err := f.sums(func(i int) bool { return len(f.suspects[i]) > 0 })
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, sum := range sums {
		for _, s := range f.suspects[i] {
			if s.sum != sum {
				flowed = flowed || s.flowed
				f.tell(Rejection{Piece: i, From: s.from, Proven: true})
			}
		}
	}
	truth := sha256.Sum256(chain.Bytes())
	for peer, sum := range f.offers {
		if sum != truth {
			f.tell(Rejection{Piece: ChainPiece, From: Provenance{Peer: peer}, Proven: true})
		}
	}
	return flowed, nil
}

package blobcache

import (
	"crypto/sha256"
	"fmt"
	"slices"

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
	// From is who answers for it; nobody if our own disk is to blame.
	From Provenance
	// Proven: the right bytes are known and these were not them, so From lied
	// (or its disk has rotted). Otherwise From is only one of those whose
	// pieces, together, did not lead to the digest.
	Proven bool
	// Missing: the piece is to be brought again.
	Missing bool
	// Origin: the piece should come from the origin, if there is one.
	Origin bool
}

// trial is what a fill knows against whom until closure decides.
type trial struct {
	rounds     int
	survived   *bitset.BitSet // pieces that were kept at a failed closure
	suspects   map[int][]suspect
	offers     map[string][sha256.Size]byte   // hash of the chain, by peer
	refused    map[[sha256.Size]byte]struct{} // chains that were dropped
	rejections []Rejection
	audit
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
		audit:    newAudit(),
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

// seconds tells whether somebody else has brought the very bytes of s, too.
func (t *trial) seconds(i int, s suspect) bool {
	return slices.ContainsFunc(t.suspects[i], func(old suspect) bool { return old.sum == s.sum && old.from != s.from })
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

// wentOut tells whether piece i may have gone to clients before it was proven.
func (f *Fill) wentOut(i int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flew(i)
}

// flew is wentOut. The caller holds mu.
func (f *Fill) flew(i int) bool { return i < f.flowed || f.streamed.Test(uint(i)) }

// poisoned fails the fill because of wrong bytes that clients have, and has
// nobody go on with them.
func (f *Fill) poisoned(err error) {
	f.c.bury(f.key.digest)
	f.Fail(err)
}

// sums reads pieces back and returns their SHA-256 sums.
func (f *Fill) sums(pieces *bitset.BitSet) (map[int][sha256.Size]byte, error) {
	buf := f.c.pieces.Get().(*[blob.PieceSize]byte)
	defer f.c.pieces.Put(buf)
	sums := map[int][sha256.Size]byte{}
	for i, ok := pieces.NextSet(0); ok; i, ok = pieces.NextSet(i + 1) {
		data, err := f.read(int(i), buf[:])
		if err != nil {
			return nil, fmt.Errorf("read back piece %d of %s: %w", i, f.key.digest, err)
		}
		sums[int(i)] = sha256.Sum256(data)
	}
	return sums, nil
}

// drop forgets piece i and returns its length, to be released without mu. The
// caller holds mu.
func (f *Fill) drop(i int) int64 {
	f.have.Clear(uint(i))
	f.from[i] = 0
	f.run = min(f.run, i)
	f.dirty = true
	f.recall(i)
	length := blob.Piece(i, f.key.size).Length
	f.held.Add(-length)
	return length
}

// judge convicts, now that the right bytes are known. It tells whether wrong
// bytes have flowed to clients.
func (f *Fill) judge(chain proof.Chain) (flowed bool, err error) {
	accused := bitset.New(uint(f.n))
	for i := range f.suspects {
		accused.Set(uint(i))
	}
	sums, err := f.sums(accused)
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
	f.judgeKeys(truth)
	return flowed, nil
}

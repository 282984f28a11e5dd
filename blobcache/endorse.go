package blobcache

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
)

// A chain that a trusted key has signed is a hint whose pieces flow. That changes
// nothing about closure: the blob is whole only when its pieces lead to the digest,
// and its last piece is held until then. If the chain is contradicted meanwhile, by
// the origin or by two who agree with each other, nobody knows yet who is right:
// nothing more flows until closure has told. If it was the key, it is convicted,
// and if wrong bytes of it went out, the readers come to no clean end.

// endorsing is what a fill does on the word of trusted keys. Its fields are
// guarded by Fill.mu.
type endorsing struct {
	endorsement *statement.Endorsement  // to be passed on; nil if there is none
	said        map[statement.Key]sumOf // what trusted keys have said of the chain
	streamed    *bitset.BitSet          // pieces beyond flowed that went out on trust
	onTrust     bool                    // something did
	tainted     bool                    // and the chain was dropped since
}

type sumOf = [sha256.Size]byte

func newEndorsing(n int) endorsing {
	return endorsing{said: map[statement.Key]sumOf{}, streamed: bitset.New(uint(n))}
}

// OfferEndorsed gives the fill a chain, with what somebody has signed about it. If
// the key is trusted, pieces that agree with the chain go out to readers as they
// come, in any order. If not, it is kept to be passed on to those who may trust
// it, where the fill goes by that chain anyway.
//
// Errors: blob.ErrCorrupt if the chain is not the one that was signed, and those
// of package statement: who sent both lied, unless it is statement.ErrTime.
// ErrConflict if the fill goes by the chain of another trusted key, or has seen
// this one contradicted. For a fill that has ended, and where chains are not
// supported, it does nothing.
func (f *Fill) OfferEndorsed(c proof.Chain, e statement.Endorsement) error {
	err := e.Check(f.named(), time.Now())
	sum := sha256.Sum256(c.Bytes())
	if err == nil && (!c.Fits(f.key.size) || sum != e.Sum) {
		err = blob.ErrCorrupt
	}
	result := resultInvalid
	if err == nil {
		result, err = f.takeEndorsed(c, e)
	}
	f.c.metrics.endorsements.WithLabelValues(result).Inc()
	if err != nil {
		return fmt.Errorf("endorsement of %s by %s: %w", f.key.digest, e.Signer, err)
	}
	return nil
}

func (f *Fill) takeEndorsed(c proof.Chain, e statement.Endorsement) (result string, err error) {
	believed := f.c.trust.believes(e.Signer)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.whole || !f.c.chains {
		return resultIgnored, nil
	}
	if believed {
		f.said[e.Signer] = e.Sum
	}
	switch {
	case f.sealed != nil:
		truth := sha256.Sum256(f.sealed.Bytes())
		f.judgeKeys(truth)
		if e.Sum != truth {
			return resultIgnored, nil
		}
	case !believed && (f.hint == nil || f.hintSum != e.Sum):
		return resultIgnored, nil
	case believed:
		if err := f.goBy(c, e); err != nil {
			return resultIgnored, err
		}
	}
	if f.endorsement == nil || believed {
		f.endorsement = &e
	}
	if !believed {
		return resultIgnored, nil
	}
	return resultTrusted, nil
}

// goBy makes the chain of a trusted key the hint. The caller holds mu.
func (f *Fill) goBy(c proof.Chain, e statement.Endorsement) error {
	if _, dropped := f.refused[e.Sum]; dropped || f.trusted && f.hintSum != e.Sum {
		return ErrConflict
	}
	if f.hint != nil && f.hintSum != e.Sum {
		f.dropHint("a trusted key has signed another")
	}
	if f.hint == nil {
		f.hint, f.hintSum, f.hintBy = slices.Clone(c), e.Sum, e.Signer.String()
		f.compared = 0
	}
	f.trusted = true
	f.advance()
	f.wake()
	return nil
}

// Endorsed returns the chain that the fill goes by and what somebody has signed
// about it, which need not be trusted here. False if there is none.
func (f *Fill) Endorsed() (c proof.Chain, e statement.Endorsement, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.endorsement == nil:
	case f.sealed != nil:
		return f.sealed, *f.endorsement, true
	case f.hint != nil && f.hintSum == f.endorsement.Sum:
		return f.hint, *f.endorsement, true
	}
	return nil, statement.Endorsement{}, false
}

// Trusts tells whether pieces that come go out to readers on the word of a trusted
// key, or because their chain closed here earlier.
func (f *Fill) Trusts() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trusted || f.sealed != nil
}

// flowsOnTrust tells whether piece i may go out because it agrees with a chain
// that a trusted key has signed, and takes that down. The last piece is for
// closure. The caller holds mu.
func (f *Fill) flowsOnTrust(i int) bool {
	if !f.trusted || i == f.n-1 || !f.linked.Test(uint(i)) {
		return false
	}
	f.onTrust = true
	switch {
	case i == f.flowed:
		f.flowed++
		f.dirty = true
	case i > f.flowed:
		f.streamed.Set(uint(i))
	}
	return true
}

// distrust notes that the hint is dropped. The caller holds mu.
func (f *Fill) distrust(why string) {
	if !f.trusted {
		return
	}
	f.tainted = f.tainted || f.onTrust
	f.c.log.Warn("a chain that a trusted key has signed is contradicted: closure will tell who is right", "digest", f.key.digest, "why", why, "went_out", f.onTrust)
}

// judgeKeys convicts the keys that have signed another chain than the true one.
// The caller holds mu.
func (f *Fill) judgeKeys(truth sumOf) {
	for k, sum := range f.said {
		if sum != truth {
			f.c.convict(k, f.key.digest)
		}
	}
}

// keepEndorsement keeps what was signed about the chain that has closed.
func (f *Fill) keepEndorsement(chain proof.Chain) {
	f.mu.Lock()
	e := f.endorsement
	f.mu.Unlock()
	if e != nil && e.Sum == sha256.Sum256(chain.Bytes()) {
		f.c.meta.PutEndorsement(f.named(), *e)
	}
}

// recheckLater has what is on disk compared with the chain of a trusted key, which
// came after it and does not agree with what was hashed. The caller holds mu and
// may use the hasher; judging keeps everybody else away from it.
func (f *Fill) recheckLater() {
	f.judging = true
	f.inflight.Add(1)
	f.c.work.Go(f.recheck)
}

func (f *Fill) recheck() {
	defer f.inflight.Done()
	f.mu.Lock()
	chain, found := f.hint, f.have.Difference(f.linked)
	f.mu.Unlock()
	right, wrong, err := f.compareWith(chain, found)
	var dropped int64
	f.mu.Lock()
	switch {
	case err != nil:
		f.fail(err)
	case !sameChain(chain, f.hint): // contradicted meanwhile
	case f.fromOrigin(wrong):
		f.dropHint("the origin has other bytes")
	default:
		f.linked.InPlaceUnion(right)
		for i, sum := range wrong {
			dropped += f.dismiss(i, sum, false)
		}
	}
	f.hasher.Reset()
	f.front, f.compared, f.judging = 0, 0, false
	f.advance()
	f.wake()
	f.mu.Unlock()
	f.c.release(dropped)
}

// compareWith sorts pieces that are on disk by whether they agree with the chain.
// Of those that do not it returns the SHA-256.
func (f *Fill) compareWith(chain proof.Chain, found *bitset.BitSet) (right *bitset.BitSet, wrong map[int]sumOf, err error) {
	buf := f.c.pieces.Get().(*[blob.PieceSize]byte)
	defer f.c.pieces.Put(buf)
	right, wrong = bitset.New(uint(f.n)), map[int]sumOf{}
	for i, ok := found.NextSet(0); ok; i, ok = found.NextSet(i + 1) {
		data, err := f.read(int(i), buf[:])
		agrees := false
		if err == nil {
			agrees, err = chain.Check(f.named(), int(i), data)
		}
		switch {
		case err != nil:
			return nil, nil, errors.Join(fmt.Errorf("read back piece %d of %s", i, f.key.digest), err)
		case agrees:
			right.Set(i)
		default:
			wrong[int(i)] = sha256.Sum256(data)
		}
	}
	return right, wrong, nil
}

// fromOrigin tells whether this node took one of the pieces from the origin. The
// caller holds mu.
func (f *Fill) fromOrigin(pieces map[int]sumOf) bool {
	for i := range pieces {
		if f.sources[f.from[i]].Identity != "" {
			return true
		}
	}
	return false
}

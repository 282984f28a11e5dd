package blobcache

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
)

// A closure that failed says that some piece is wrong, and not which. If the
// driver can have pieces brought from the origin, they are audited: one piece
// of each who answers for some is brought again. Who had other bytes than the
// origin is guilty: all that it answers for goes, to be brought again by
// anybody else, and it is refused from then on. While nobody is found, twice as
// many pieces are audited. In the end, and if there is no origin to ask,
// everything goes that did not come from there.
//
// The origin's word settles no more than this fill. Bans follow from the closure
// that succeeds: what was dropped is compared with the right bytes then.

const (
	// maxAudits bounds the rounds: the last is of 8 pieces of each.
	maxAudits = 4
	// lastAudit is the last failed closure that leads to an audit. Two more
	// are left of maxRounds, to be rid of everybody at once and of an upstream.
	lastAudit = maxRounds - 2
)

// audit is what a fill finds out with the origin's help. Its fields are guarded
// by Fill.mu.
type audit struct {
	possible bool                    // the driver can have pieces brought from the origin
	audits   int                     // that were made
	audited  map[int]suspect         // pieces that are being brought again
	differed bool                    // one of them was another than before
	guilty   map[Provenance]struct{} // they are refused
	doubted  map[Provenance]struct{} // their chains disagreed with the origin; guilty at the next failed closure
	linker   Provenance              // who answers for the chain that all pieces agree with but the last; nobody if there is none
}

func newAudit() audit {
	return audit{
		audited: map[int]suspect{},
		guilty:  map[Provenance]struct{}{},
		doubted: map[Provenance]struct{}{},
	}
}

// Auditable tells the fill whether its driver can have single pieces brought
// from the origin now. At first it cannot.
func (f *Fill) Auditable(yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.possible = yes
	if !yes && len(f.audited) > 0 && f.err == nil {
		clear(f.audited)
		f.sortOutLater()
	}
}

// refuses tells whether nothing more is taken from p. The caller holds mu.
func (f *Fill) refuses(p Provenance) bool {
	_, guilty := f.guilty[p]
	return guilty
}

// reject takes in a closure that failed: all pieces are here and do not lead
// to the digest. judging keeps everybody else away from the hasher.
func (f *Fill) reject() {
	f.c.metrics.corruption.Inc()
	f.mu.Lock()
	f.rounds++
	if f.possible {
		for p := range f.doubted {
			f.guilty[p] = struct{}{}
		}
		f.suspectLinker()
	}
	_, sole := f.keepers()
	f.mu.Unlock()
	f.c.log.Warn("pieces do not lead to the digest", "digest", f.key.digest, "size", f.key.size,
		"pieces", f.n, "round", f.rounds, "upstream", sole)
	if sole == "" && f.rounds < maxRounds {
		f.sortOut()
		return
	}
	defer f.inflight.Done()
	err := fmt.Errorf("%s: %w: size %d, round %d, all from upstream %q", f.key.digest, blob.ErrCorrupt, f.key.size, f.rounds, sole)
	if f.wentOut(0) {
		f.poisoned(err)
	} else {
		f.Fail(err)
	}
}

// suspectLinker notes who answers for a chain along which all pieces lead to
// the last one, and not to the digest: if that piece is right, the chain is
// not. The caller holds mu.
func (f *Fill) suspectLinker() {
	f.linker = Provenance{}
	if f.hint == nil {
		return
	}
	f.linker = Provenance{Peer: f.hintBy}
	if f.own.Test(uint(f.n - 1)) {
		f.guilty[f.linker] = struct{}{}
	}
}

// sortOutLater has the pieces sorted out, when the caller has let go of mu.
func (f *Fill) sortOutLater() {
	f.inflight.Add(1)
	f.c.work.Go(f.sortOut)
}

// sortOut decides which pieces go. It is called after a failed closure and
// after each audit, while judging is set.
func (f *Fill) sortOut() {
	defer f.inflight.Done()
	f.mu.Lock()
	if f.err != nil {
		f.mu.Unlock()
		return
	}
	guilty := f.piecesOf(f.guilty)
	picks := f.picks()
	keep, _ := f.keepers()
	differed := f.differed
	f.differed = false
	var gone *bitset.BitSet
	switch {
	case differed || guilty.Any():
		gone, keep = guilty, nil
	case picks.Any():
		gone, keep = picks, nil
	default:
		gone = f.have.Difference(keep)
	}
	f.mu.Unlock()
	sums, err := f.sums(gone)
	var dropped int64
	f.mu.Lock()
	switch {
	case err != nil:
		f.fail(err)
	case keep == nil && !differed && guilty.None():
		dropped = f.summon(sums)
	default:
		dropped = f.startOver(keep, sums)
	}
	f.mu.Unlock()
	f.c.release(dropped)
}

// piecesOf returns the pieces for which any of them answers. The caller holds
// mu.
func (f *Fill) piecesOf(ps map[Provenance]struct{}) *bitset.BitSet {
	set := bitset.New(uint(f.n))
	for i, s := range f.from {
		if _, ok := ps[f.sources[s]]; ok && f.have.Test(uint(i)) {
			set.Set(uint(i))
		}
	}
	return set
}

// picks chooses the pieces of the next audit at random, so that nobody knows
// before which of its pieces will be looked at; of one who sent the end of a
// chain that does not lead to the digest, that. It chooses none if it is not
// the time for audits, or if most pieces would have to come again anyway. The
// caller holds mu.
func (f *Fill) picks() *bitset.BitSet {
	picks := bitset.New(uint(f.n))
	if !f.possible || f.audits >= maxAudits || f.rounds > lastAudit {
		return picks
	}
	by := make([][]uint, len(f.sources))
	suspects := uint(0)
	for i, s := range f.from {
		if f.sources[s].Identity == "" && f.have.Test(uint(i)) {
			by[s] = append(by[s], uint(i))
			suspects++
		}
	}
	for _, pieces := range by {
		if len(pieces) == f.n {
			return picks // one answers for everything, and is wrong: that is enough
		}
		rand.Shuffle(len(pieces), func(i, k int) { pieces[i], pieces[k] = pieces[k], pieces[i] })
		for _, i := range pieces[:min(len(pieces), 1<<f.audits)] {
			picks.Set(i)
		}
	}
	if last := uint(f.n - 1); f.linker.Peer != "" && f.sources[f.from[last]].Identity == "" {
		picks.Set(last)
	}
	if picks.Count() > max(2, suspects/2) {
		picks.ClearAll()
	}
	return picks
}

// summon drops the pieces in sums and has the origin bring them again, to be
// compared. It returns their length. The caller holds mu.
func (f *Fill) summon(sums map[int][sha256.Size]byte) (dropped int64) {
	f.audits++
	for i, sum := range sums {
		from := f.sources[f.from[i]]
		f.audited[i] = suspect{sum: sum, from: from}
		dropped += f.dismiss(i, sum, true)
	}
	f.dropHint("it did not lead to the digest")
	f.wake()
	return dropped
}

// dismiss drops piece i, which becomes a suspect, and has it brought again. It
// returns its length. The caller holds mu.
func (f *Fill) dismiss(i int, sum [sha256.Size]byte, byOrigin bool) int64 {
	from := f.sources[f.from[i]]
	f.accuse(i, suspect{sum: sum, from: from, flowed: f.flew(i)})
	f.tell(Rejection{Piece: i, From: from, Missing: true, Origin: byOrigin})
	return f.drop(i)
}

// compare takes in a piece that was brought again for an audit. The last one
// ends it. The caller holds mu.
func (f *Fill) compare(w *delivery) {
	was, ok := f.audited[w.i]
	if !ok || !w.audit {
		return
	}
	delete(f.audited, w.i)
	differs := was.sum != w.sum
	f.differed = f.differed || differs
	if w.from.Identity != "" {
		switch {
		case differs:
			f.guilty[was.from] = struct{}{}
		case !differs && w.i == f.n-1 && f.linker.Peer != "":
			f.guilty[f.linker] = struct{}{}
		}
	}
	if len(f.audited) == 0 {
		f.sortOutLater()
	}
}

// startOver drops the pieces in sums, and hashing begins anew. keep are those
// that stay because they are of one upstream; nil if others may stay, too. It
// returns the length of what was dropped. The caller holds mu.
func (f *Fill) startOver(keep *bitset.BitSet, sums map[int][sha256.Size]byte) (dropped int64) {
	for i, sum := range sums {
		dropped += f.dismiss(i, sum, keep != nil && f.sources[f.from[i]].Peer != "")
	}
	if keep != nil {
		f.survived = keep
	}
	f.linker = Provenance{}
	f.dropHint("it did not lead to the digest")
	f.hasher.Reset()
	f.front = 0
	f.extendRun()
	f.judging = false
	f.advance()
	f.wake()
	return dropped
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

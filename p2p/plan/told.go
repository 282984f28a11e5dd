package plan

import (
	"math/bits"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// Serving is how an origin answers requests for a range.
type Serving uint8

// Nobody asked it yet; it serves ranges; it sends the whole blob whatever
// range is asked for; it cannot be reached.
const (
	Unknown Serving = iota
	Ranged
	Streams
	Unreachable
)

// State is what a member says of itself and its fill.
type State struct {
	// Whole means every piece; Has is not read then.
	Whole bool
	// Has are the pieces that it will give, and Claims those that its
	// requests to the origin are about to bring; nil means none.
	Has, Claims *bitset.BitSet
	// Progress counts the bytes of this blob that it has had from the origin.
	Progress int64
	// Volunteer means that it may own runs.
	Volunteer bool
	// Origin is how the origin serves it.
	Origin Serving
}

// Told replaces what is known of a member by what it says now. It keeps
// nothing of s, and only differences cost.
func (p *Plan) Told(now time.Duration, m Member, s State) {
	mem := p.members[m]
	if mem == nil {
		return
	}
	if s.Whole != (mem.has == nil) || mem.refused != nil {
		p.change(mem, func() { mem.replace(s, p.pieces) })
	} else if !s.Whole {
		p.update(mem, s.Has)
	}
	p.toldClaims(mem, s.Claims)
	if s.Progress > mem.progress {
		mem.heard = now
	}
	mem.progress, mem.volunteer, mem.serving = s.Progress, s.Volunteer, s.Origin
}

// replace sets what m offers, without what it was refused for.
func (m *member) replace(s State, pieces int) {
	switch {
	case !s.Whole && s.Has != nil:
		m.has = s.Has.Clone()
	case !s.Whole:
		m.has = bitset.New(uint(pieces))
	case m.refused != nil:
		m.has = bitset.New(uint(pieces)).SetAll()
	default:
		m.has = nil
	}
	if m.refused != nil {
		m.has.InPlaceDifference(m.refused)
	}
}

// update sets what m offers where it differs from before.
func (p *Plan) update(m *member, has *bitset.BitSet) {
	var o *offers
	if m.counted {
		o = p.offersOf(m)
	}
	differ(m.has, has, func(i int, in bool) {
		m.has.SetTo(uint(i), in)
		if o != nil {
			o.add(i, in)
		}
	})
}

// toldClaims sets what m claims where it differs from before.
func (p *Plan) toldClaims(m *member, claims *bitset.BitSet) {
	if m.claims == nil {
		if claims == nil || claims.None() {
			return
		}
		m.claims = bitset.New(uint(p.pieces))
	}
	differ(m.claims, claims, func(i int, in bool) {
		m.claims.SetTo(uint(i), in)
		p.claimed.add(i, in)
	})
}

// differ calls do for every piece in which set, which has all pieces, differs
// from to; nil is empty, and what is beyond the end is not there. do may
// change set.
func differ(set, to *bitset.BitSet, do func(i int, in bool)) {
	var words []uint64
	if to != nil {
		words = to.Words()
	}
	for w, was := range set.Words() {
		var is uint64
		if w < len(words) {
			is = words[w]
		}
		for x := was ^ is; x != 0; x &= x - 1 {
			b := bits.TrailingZeros64(x)
			if i := w*64 + b; i < int(set.Len()) {
				do(i, is>>b&1 == 1)
			}
		}
	}
}

// Volunteer says whether this node may own runs.
func (p *Plan) Volunteer(yes bool) { p.volunteer = yes }

// Claims returns the pieces that this node's requests to the origin are about
// to bring: what it tells others. The set is the plan's own: it must not be
// changed, and changes with the next call.
func (p *Plan) Claims() *bitset.BitSet { return p.asked }

// Serving returns how the origin serves this node, as far as it has seen
// itself.
func (p *Plan) Serving() Serving { return p.origin.serving }

// KnowsOrigin tells how the origin served earlier fills.
func (p *Plan) KnowsOrigin(s Serving) { p.origin.serving = s }

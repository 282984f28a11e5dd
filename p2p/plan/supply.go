package plan

import (
	"math/bits"

	"github.com/bits-and-blooms/bitset"
)

// counts counts members by piece.
type counts struct {
	of   []int32
	some *bitset.BitSet // with any
}

func newCounts(pieces int) counts {
	return counts{of: make([]int32, pieces), some: bitset.New(uint(pieces))}
}

// add counts one more with piece i, or one less.
func (c *counts) add(i int, in bool) {
	if in {
		c.of[i]++
		c.some.Set(uint(i))
		return
	}
	if c.of[i]--; c.of[i] == 0 {
		c.some.Clear(uint(i))
	}
}

// addAll counts one more, or one less, with each piece of set; nil is empty.
func (c *counts) addAll(set *bitset.BitSet, in bool) {
	if set == nil {
		return
	}
	for i, ok := set.NextSet(0); ok && i < uint(len(c.of)); i, ok = set.NextSet(i + 1) {
		c.add(int(i), in)
	}
}

// supply counts what live members offer.
type supply struct {
	counts     // of those with only a part, those that offer the piece
	live   int // members
	wholes int // of these, with every piece
}

// has reports whether a live member offers piece i.
func (s *supply) has(i int) bool { return s.wholes > 0 || s.of[i] > 0 }

// supplyOf returns the supply that m is part of when it is live.
func (p *Plan) supplyOf(m *member) *supply {
	if m.far {
		return &p.far
	}
	return &p.near
}

// count makes a member live, and its offers part of what the swarm offers, or
// takes them out.
func (p *Plan) count(m *member, in bool) {
	if m.counted == in {
		return
	}
	m.counted = in
	p.look = true
	s, d := p.supplyOf(m), 1
	if !in {
		d = -1
	}
	s.live += d
	if m.has == nil {
		s.wholes += d
		return
	}
	s.addAll(m.has, in)
}

// change runs do, which changes what m offers, and keeps the counts right.
func (p *Plan) change(m *member, do func()) {
	counted := m.counted
	p.count(m, false)
	do()
	if m.has != nil {
		m.held = int(m.has.Count())
	}
	p.count(m, counted)
}

// offered reports whether a live member offers piece i.
func (p *Plan) offered(i int) bool { return p.near.has(i) || p.far.has(i) }

// live and wholes return the number of live members, and of those with every
// piece.
func (p *Plan) live() int   { return p.near.live + p.far.live }
func (p *Plan) wholes() int { return p.near.wholes + p.far.wholes }

// offers reports whether the member would give piece i.
func (m *member) offers(i int) bool { return m.has == nil || m.has.Test(uint(i)) }

// differ calls do for every piece in which set, which has room for all pieces,
// differs from to; nil is empty, and what is beyond the end is not there. do
// may change set.
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

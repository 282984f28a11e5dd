package plan

import (
	"math"

	"github.com/bits-and-blooms/bitset"
)

// seeds is which pieces this node fetches first from members that many ask:
// those that have the whole blob, and those of other zones. It shares them with
// the other fillers of its zone by rendezvous, as owners do with the origin, so
// that each piece leaves such a member about once and is traded from then on.
type seeds struct {
	stale bool
	rank  []uint8        // by run, how many of the fillers come before this node
	mine  *bitset.BitSet // where none does
}

// scarce returns the run of candidates that a member which many ask is to give:
// this node's own near the head, then what no other filler is to fetch. It says
// no if there is no reason to hold back.
func (p *Plan) scarce(most int) (first, count int, ok bool) {
	if p.near.live-p.near.wholes <= p.near.wholes {
		return 0, 0, false
	}
	p.shareSeeds()
	end := p.head() + p.tune.Spread
	for i, found := p.candidates.NextSet(0); found && int(i) < end; i, found = p.candidates.NextSet(i + 1) {
		if !p.seeds.mine.Test(i) {
			continue
		}
		n := 1
		for n < most && p.seeds.mine.Test(i+uint(n)) {
			n++
		}
		return int(i), p.candidateRun(int(i), n), true
	}
	return 0, 0, false
}

// shareSeeds computes seeds anew if the fillers have changed.
func (p *Plan) shareSeeds() {
	s := &p.seeds
	if !s.stale {
		return
	}
	s.stale = false
	length := p.runLength()
	if s.mine == nil {
		s.mine = bitset.New(uint(p.pieces))
		s.rank = make([]uint8, (p.pieces+length-1)/length)
	}
	s.mine.ClearAll()
	for run := range s.rank {
		own := claim(p.owners.key, run, p.owners.self)
		if s.rank[run] = p.outbid(run, own); s.rank[run] == 0 {
			s.mine.SetRange(uint(run*length), uint(min(p.pieces, (run+1)*length)))
		}
	}
}

// outbid returns how many other fillers of the zone have a heavier claim.
func (p *Plan) outbid(run int, own uint64) uint8 {
	n := 0
	for _, m := range p.order {
		if !m.whole && !m.far && claim(p.owners.key, run, m.node) > own {
			n++
		}
	}
	return uint8(min(n, math.MaxUint8))
}

package plan

import "github.com/bits-and-blooms/bitset"

// seeds is which pieces this node fetches first from members that many ask:
// those that have the whole blob, and those of other zones. It shares them with
// the other fillers of its zone by rendezvous, as owners do with the origin, so
// that each piece leaves such a member about once and is traded from then on.
type seeds struct {
	stale bool
	mine  *bitset.BitSet
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
	if s.mine == nil {
		s.mine = bitset.New(uint(p.pieces))
	}
	s.mine.ClearAll()
	length := p.runLength()
	for run := range (p.pieces + length - 1) / length {
		own := claim(p.owners.key, run, p.owners.self)
		if !p.outbid(run, own) {
			s.mine.SetRange(uint(run*length), uint(min(p.pieces, (run+1)*length)))
		}
	}
}

// outbid reports whether another filler of the zone has a heavier claim.
func (p *Plan) outbid(run int, own uint64) bool {
	for _, m := range p.order {
		if !m.whole && !m.far && claim(p.owners.key, run, m.node) > own {
			return true
		}
	}
	return false
}

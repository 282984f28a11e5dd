package plan

import (
	"time"

	"github.com/bits-and-blooms/bitset"
)

// abroad is what this node does so that a piece comes into its zone once, over
// a link that the members of the zone share.
type abroad struct {
	asked *bitset.BitSet  // owed by requests to members of other zones
	rate  meter           // bytes from these
	fresh []time.Duration // by piece, since when it is known to be for anybody to bring; 0: it is not
	next  time.Duration   // when the next of them is for this node
	mine  *bitset.BitSet  // scratch of bring
}

func newAbroad(pieces int, window time.Duration) abroad {
	return abroad{
		asked: bitset.New(uint(pieces)), rate: newMeter(window), fresh: make([]time.Duration, pieces), next: never,
		mine: bitset.New(uint(pieces)),
	}
}

// shared reports whether others of the zone fill the blob, too.
func (p *Plan) shared() bool { return p.near.live > p.near.wholes }

// Inbound returns the pieces that this node's requests to members of other
// zones are about to bring: what it tells others of its own. The set is the
// plan's own: it must not be changed, and changes with the next call.
func (p *Plan) Inbound() *bitset.BitSet { return p.abroad.asked }

// bring leaves of the candidates, which a member of another zone offers and
// nobody of the own has or brings, those that this node is to bring now: its
// own, or, if there are none, those that nobody whose turn came before has
// begun. It reports whether there are any.
func (p *Plan) bring(now time.Duration) bool {
	p.shareSeeds()
	a, s := &p.abroad, &p.seeds
	p.candidates.CopyFull(a.mine)
	if a.mine.InPlaceIntersection(s.mine); a.mine.Any() {
		a.mine.CopyFull(p.candidates)
		return true
	}
	a.next = never
	length, any := p.runLength(), false
	for i, found := p.candidates.NextSet(0); found; i, found = p.candidates.NextSet(i + 1) {
		if a.fresh[i] == 0 {
			a.fresh[i] = max(now, 1)
		}
		turn := a.fresh[i] + time.Duration(s.rank[int(i)/length])*p.tune.Stagger
		if now >= turn {
			any = true
			continue
		}
		p.candidates.Clear(i)
		a.next = min(a.next, turn)
	}
	return any
}

// abroadRoom returns how many bytes more may be in flight into the zone. Of what
// is in flight nobody can help with, and what waits at the links of others keeps
// these from serving anybody soon: it should be no more than what keeps the own
// link busy. What comes into the zone comes to this node a moment later, and so
// its own rate is that of the zone.
func (p *Plan) abroadRoom(now time.Duration) int64 {
	rate, _ := p.all.rate(now)
	most := max(int64(p.tune.AbroadPieces)*p.piece, int64(rate*p.tune.OriginAhead.Seconds()))
	most -= int64(p.coming.some.Count()) * p.piece
	for _, m := range p.order {
		if m.far {
			most -= m.owed
		}
	}
	return most
}

// toldInbound takes in what a member of the own zone is about to bring from
// others.
func (p *Plan) toldInbound(now time.Duration, m *member, inbound *bitset.BitSet) {
	if m.far || m.inbound == nil && (inbound == nil || inbound.None()) {
		return
	}
	if m.inbound == nil {
		m.inbound = bitset.New(uint(p.pieces))
	}
	differ(m.inbound, inbound, func(i int, in bool) {
		p.await(m, true)
		m.brought = now
		m.inbound.SetTo(uint(i), in)
		p.come(i, in)
	})
}

// come counts one member more of the own zone that is about to bring piece i
// into it, or one less.
func (p *Plan) come(i int, in bool) {
	p.coming.add(i, in)
	if p.abroad.fresh[i] = 0; !in {
		p.look = true
	}
}

// await makes what a member is about to bring from other zones count, or not.
func (p *Plan) await(m *member, yes bool) {
	if m.inbound == nil || m.vain != yes {
		return
	}
	m.vain = !yes
	p.coming.addAll(m.inbound, yes)
	p.look = p.look || !yes
}

// impatient makes what members of the zone have been bringing for too long
// count no more.
func (p *Plan) impatient(now time.Duration) {
	after := p.tune.DeadAfter
	if rate, known := p.abroad.rate.rate(now); known {
		after = max(after, 4*lasts(p.piece, rate))
	}
	for _, m := range p.order {
		if m.inbound != nil && !m.vain && m.inbound.Any() && now-m.brought >= after {
			p.await(m, false)
		}
	}
}

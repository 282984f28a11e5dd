package plan

import (
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
	// Inbound are the pieces that its requests to members of other zones are
	// about to bring; nil means none. It counts only from the own zone.
	Inbound *bitset.BitSet
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
	p.doubt.crowd = p.doubt.crowd || !s.Whole
	if s.Whole != mem.whole || s.Whole != (mem.has == nil) || mem.refused != nil {
		p.change(mem, func() { mem.replace(s, p.pieces) })
		p.seeds.stale = true
	} else if !s.Whole {
		p.update(mem, s.Has)
	}
	p.toldOfOrigin(now, mem, s)
	p.toldInbound(now, mem, s.Inbound)
}

// replace sets what m offers, without what it was refused for.
func (m *member) replace(s State, pieces int) {
	m.whole = s.Whole
	switch {
	case !s.Whole && s.Has != nil:
		m.has = bitset.New(uint(pieces))
		differ(m.has, s.Has, func(i int, in bool) { m.has.SetTo(uint(i), in) })
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
	s := p.supplyOf(m)
	differ(m.has, has, func(i int, in bool) {
		m.has.SetTo(uint(i), in)
		if in {
			m.held++
		} else {
			m.held--
		}
		if m.counted {
			s.add(i, in)
			p.look = true
		}
	})
}

// toldOfOrigin takes in what a member says of its part in fetching from the
// origin.
func (p *Plan) toldOfOrigin(now time.Duration, m *member, s State) {
	if m.claims == nil && s.Claims != nil && s.Claims.Any() {
		m.claims = bitset.New(uint(p.pieces))
	}
	if m.claims != nil {
		idle := m.claims.None()
		differ(m.claims, s.Claims, func(i int, in bool) {
			m.claims.SetTo(uint(i), in)
			m.turned = now
			if !m.silent {
				p.claims(m, i, in)
			}
		})
		if idle && m.claims.Any() {
			m.heard, m.asking = now, now
			m.pulls.start(now)
		}
	}
	if !m.told { // when it had its first bytes is not known
		m.told, m.progress = true, s.Progress
	}
	if s.Progress > m.progress {
		m.pulls.add(now, s.Progress-m.progress)
		p.heard(now, m)
	}
	if m.claims == nil || m.claims.None() {
		m.pulls.stop(now)
	}
	if s.Volunteer != m.volunteer || s.Origin != m.serving || s.Whole && m.volunteer {
		p.owners.stale = true
	}
	m.progress, m.volunteer, m.serving = s.Progress, s.Volunteer, s.Origin
}

// heard notes that m is alive as far as the origin goes.
func (p *Plan) heard(now time.Duration, m *member) {
	m.heard = now
	p.silence(m, false)
}

// silence makes claims and ownership of m count no more, or again.
func (p *Plan) silence(m *member, yes bool) {
	if m.silent == yes {
		return
	}
	m.silent = yes
	p.claimAll(m, !yes)
	p.owners.stale = true
}

// claims counts that m fetches piece i from the origin, or does not any more.
func (p *Plan) claims(m *member, i int, in bool) {
	if p.claimed.add(i, in); !m.far {
		p.come(i, in)
	}
}

// claimAll does so for all that m claims.
func (p *Plan) claimAll(m *member, in bool) {
	if p.claimed.addAll(m.claims, in); !m.far {
		p.coming.addAll(m.claims, in)
	}
}

// Claims returns the pieces that this node's requests to the origin are about
// to bring: what it tells others. The set is the plan's own: it must not be
// changed, and changes with the next call.
func (p *Plan) Claims() *bitset.BitSet { return p.asked }

package plan

import (
	"time"

	"github.com/bits-and-blooms/bitset"
)

// Progress tells that bytes of a request arrived. It is called for every
// quarter of a piece or so, and for less when less comes.
func (p *Plan) Progress(now time.Duration, id ID, bytes int64) {
	r := p.find(id)
	if r == nil {
		return
	}
	if r.got == 0 && r.from != nil {
		p.trip = min(p.trip, now-r.began)
	} else if r.got == 0 {
		p.origin.trip = now - r.began
	}
	r.last, r.got = now, r.got+bytes
	if r.Member == Origin {
		p.origin.rate.add(now, bytes)
		p.origin.got += bytes
	} else {
		r.from.rate.add(now, bytes)
		r.from.owed = max(0, r.from.owed-bytes)
		p.fromMembers += bytes
		if p.swarm.add(now, bytes); r.from.far {
			p.abroad.rate.add(now, bytes)
		}
	}
	p.all.add(now, bytes)
	p.stall(r, false) // it may have woken up
}

// Beside tells of bytes that other fills of this node got meanwhile, and how many
// of them came from members. Fills share the node's links and take turns: one
// that gets little while others get much has no reason to leave the swarm. Where
// all members have the whole, what others got from the origin is none: the
// members had nothing to do with it.
func (p *Plan) Beside(now time.Duration, bytes, members int64) {
	p.beside.add(now, bytes)
	p.besideSwarm.add(now, members)
	p.besideMembers += members
}

// Delivered tells that the next piece of a request's run arrived and was
// stored. Pieces of a run arrive in order.
func (p *Plan) Delivered(now time.Duration, id ID) {
	r := p.find(id)
	if r == nil {
		return
	}
	i := r.next
	if !r.stalled {
		p.release(r, i)
	}
	r.next++
	p.look, p.stored = true, now
	if p.owed[i] > 0 { // another request has become superfluous
		p.stale = true
	}
	if !p.here.Test(uint(i)) {
		p.here.Set(uint(i))
		p.open.Clear(uint(i))
		p.missing--
		if p.missing == p.pieces/p.tune.LastPart {
			p.stale = true // patience ends sooner
		}
	}
	p.audit.Clear(uint(i))
	if r.stream && !r.stalled && r.next+p.tune.StreamAhead <= r.end() {
		p.hold(r, r.next+p.tune.StreamAhead-1)
	}
	if r.Member == Origin {
		p.origin.failures = 0
	} else if r.from.failures > 0 {
		r.from.failures, p.stale = 0, true
	}
	if r.next == r.end() {
		p.finish(now, r)
	}
}

// Failed tells that a request ended before its last piece. blame leaves the
// member alone for a while, longer each time; without, for a moment only (it
// was busy).
func (p *Plan) Failed(now time.Duration, id ID, blame bool) {
	r := p.find(id)
	if r == nil {
		return
	}
	p.finish(now, r)
	p.punish(now, r.Member, blame)
}

func (p *Plan) punish(now time.Duration, m Member, blame bool) {
	failures, rest := &p.origin.failures, &p.origin.rest
	if m != Origin {
		failures, rest = &p.members[m].failures, &p.members[m].rest
	}
	pause := p.tune.Backoff
	if blame && now >= *rest { // several requests that die together are one failure
		pause = min(p.tune.BackoffMost, p.tune.Backoff<<min(*failures, 10))
		*failures++
	}
	*rest = max(*rest, now+pause)
	p.alarm(*rest)
	p.stale = true
}

// Lost tells that piece i must be fetched again: what from gave for it was
// wrong, or may have been. With audit the origin is to give it, if there is
// one; from is not asked for it again, unless it is the origin or there is nobody
// else.
func (p *Plan) Lost(i int, from Member, audit bool) {
	if mem := p.members[from]; mem != nil {
		p.change(mem, func() {
			if mem.refused == nil {
				mem.refused = bitset.New(uint(p.pieces))
			}
			mem.refused.Set(uint(i))
			if mem.has == nil {
				mem.has = bitset.New(uint(p.pieces)).SetAll()
			}
			mem.has.Clear(uint(i))
		})
	}
	if audit {
		p.audit.Set(uint(i))
	}
	p.forgive(i)
	if !p.here.Test(uint(i)) {
		return
	}
	p.here.Clear(uint(i))
	p.missing++
	p.look = true
	if p.owed[i] == 0 {
		p.open.Set(uint(i))
	}
}

// forgive lets everybody be asked for piece i again if there is nobody else.
func (p *Plan) forgive(i int) {
	if p.originHelps() {
		return
	}
	for _, m := range p.order {
		if m.offers(i) {
			return
		}
	}
	for _, m := range p.order {
		if m.refused != nil && m.refused.Test(uint(i)) {
			p.change(m, func() {
				m.refused.Clear(uint(i))
				m.has.Set(uint(i))
			})
		}
	}
}

// Stored tells that piece i is here by other means than a request.
func (p *Plan) Stored(i int) {
	if p.here.Test(uint(i)) {
		return
	}
	p.here.Set(uint(i))
	p.open.Clear(uint(i))
	p.audit.Clear(uint(i))
	p.missing--
	p.stale = p.stale || p.owed[i] > 0
}

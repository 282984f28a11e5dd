package plan

import (
	"container/heap"
	"time"
)

// tick is how often the rates are looked at while nothing happens.
const tick = 250 * time.Millisecond

// Next returns what is to be done now, within the room that the driver has.
func (p *Plan) Next(now time.Duration, room Room) Orders {
	var o Orders
	o.Cancel = p.reap(now)
	p.judge(now)
	for ; room.Origin > 0; room.Origin-- {
		r, ok := p.askOrigin(now)
		if !ok {
			break
		}
		o.Start = append(o.Start, r)
	}
	o.Start = append(o.Start, p.askMembers(now, room.Members)...)
	return o
}

// reap ends requests that are dead or have nothing left to bring, gives back
// what stalled ones hold, and takes stock of who is live.
func (p *Plan) reap(now time.Duration) []ID {
	var cancel []ID
	for _, r := range append([]*request(nil), p.requests...) {
		silent, dead := now-r.last, p.tune.DeadAfter
		if r.Member == Origin {
			dead = p.tune.OriginDeadAfter
		}
		switch {
		case p.superfluous(r):
			p.finish(now, r)
			cancel = append(cancel, r.ID)
			if r.stalled { // others had to do its work
				p.punish(now, r.Member, true)
			}
		case silent >= dead:
			p.finish(now, r)
			p.punish(now, r.Member, true)
			cancel = append(cancel, r.ID)
		case silent >= p.tune.StallAfter && !r.stalled && r.Member != Origin:
			// The origin's pieces stay its own: nobody else offers them, and
			// asking it twice would not help.
			p.stall(r, true)
		}
	}
	for _, m := range p.order {
		p.count(m, m.failures == 0 && now >= m.rest && !m.frozen())
	}
	return cancel
}

// superfluous reports whether every piece that r still owes is here.
func (p *Plan) superfluous(r *request) bool {
	i, missing := p.here.NextClear(uint(r.next))
	return !missing || int(i) >= r.end()
}

// frozen reports whether all requests of m have stalled.
func (m *member) frozen() bool { return m.requests > 0 && m.stalled == m.requests }

// askMembers hands out requests, one at a time to the member that runs dry
// first, until nobody takes more.
func (p *Plan) askMembers(now time.Duration, room int) []Request {
	var start []Request
	var free ready
	slowest, endgame := p.slowest(now), p.open.None()
	for _, m := range p.order {
		if endgame && !m.rate.any { // cannot tell that it is faster
			continue
		}
		if p.takesMore(now, m) {
			free = append(free, candidate{m, dryIn(now, m)})
		}
	}
	heap.Init(&free)
	for len(free) > 0 && room > 0 {
		m := free[0].member
		first, count, ok := p.assign(now, m, slowest)
		if ok {
			start = append(start, p.begin(now, m.id, first, count, false))
			room--
		}
		if !ok || !p.takesMore(now, m) {
			heap.Pop(&free)
			continue
		}
		free[0].dry = dryIn(now, m)
		heap.Fix(&free, 0)
	}
	return start
}

// assign returns the run that m is to fetch next. slowest is how long the
// slowest request in flight will take.
func (p *Plan) assign(now time.Duration, m *member, slowest time.Duration) (first, count int, ok bool) {
	own, known := idleIn(now, m, p.piece)
	ahead := known && m.failures == 0 && 2*own < slowest // may be much sooner than others
	if ahead {
		if i, found := p.overtake(now, m.id, own, p.tune.StallAfter, p.holdsUp(m)); found {
			return i, 1, true
		}
	}
	if first, count, ok = p.choose(now, m); ok || !ahead {
		return first, count, ok
	}
	i, found := p.overtake(now, m.id, own, p.tune.TakeOver, m.offers)
	return i, 1, found
}

// NextWake returns the time at which Next should be called although nothing
// happened; false if only an event can change anything.
func (p *Plan) NextWake(now time.Duration) (time.Duration, bool) {
	if p.missing == 0 && len(p.requests) == 0 {
		return 0, false
	}
	wake := never
	soon := func(t time.Duration) {
		if t > now {
			wake = min(wake, t)
		}
	}
	if p.origin.present {
		soon(p.origin.from)
		soon(p.origin.rest)
	}
	for _, m := range p.order {
		soon(m.rest)
	}
	for _, r := range p.requests {
		if r.Member == Origin {
			soon(r.last + p.tune.OriginDeadAfter)
			continue
		}
		if !r.stalled {
			soon(r.last + p.tune.StallAfter)
		}
		soon(r.last + p.tune.DeadAfter)
	}
	if len(p.requests) > 0 {
		soon(now + tick) // rates fall while nothing comes
	}
	return wake, wake < never
}

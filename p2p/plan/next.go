package plan

import "time"

const (
	// tick is how often the rates are looked at while nothing happens.
	tick = 250 * time.Millisecond
	// lookEvery is how often members are looked at although nothing happened
	// that could let them take more.
	lookEvery = 20 * time.Millisecond
	// never is far behind every deadline, and leaves room to calculate with.
	never = 1000 * time.Hour
)

// lasts returns how long bytes take at a rate, at most never.
func lasts(bytes int64, rate float64) time.Duration {
	if s := float64(bytes) / max(rate, 1e-3); s < never.Seconds() {
		return time.Duration(s * float64(time.Second))
	}
	return never
}

// Next returns what is to be done now, within the room that the driver has.
func (p *Plan) Next(now time.Duration, room Room) Orders {
	var o Orders
	o.Cancel = p.reap(now)
	if p.missing == 0 {
		return o
	}
	if room.Origin == 0 && p.origin.requests == 0 {
		p.origin.barred = now
	}
	p.judge(now)
	o.Cancel = append(o.Cancel, p.yield(now)...)
	for ; room.Origin > 0; room.Origin-- {
		r, ok := p.askOrigin(now)
		if !ok {
			break
		}
		o.Start = append(o.Start, r)
	}
	if p.look || now-p.looked >= lookEvery {
		o.Start = append(o.Start, p.askMembers(now, room.Members)...)
	}
	return o
}

// alarm has reap look at deadlines not later than t.
func (p *Plan) alarm(t time.Duration) { p.due = min(p.due, t) }

// reap ends requests that are dead or have nothing left to bring, gives back
// what stalled ones hold, and takes stock of who is live.
func (p *Plan) reap(now time.Duration) []ID {
	if !p.stale && now < p.due {
		return nil
	}
	p.look = true
	var cancel []ID
	for k := 0; k < len(p.requests); {
		if r := p.requests[k]; p.over(now, r) {
			cancel = append(cancel, r.ID)
		} else {
			k++
		}
	}
	for _, m := range p.order {
		p.count(m, m.failures == 0 && now >= m.rest && !m.frozen())
	}
	p.stale, p.due = false, p.deadline(now)
	return cancel
}

// deadline returns the first that will pass if nothing happens.
func (p *Plan) deadline(now time.Duration) time.Duration {
	first := never
	for _, r := range p.requests {
		switch {
		case r.Member == Origin:
			first = min(first, r.last+p.tune.OriginDeadAfter)
		case r.stalled:
			first = min(first, r.last+p.tune.DeadAfter)
		default:
			first = min(first, r.last+p.patient(p.tune.StallAfter))
		}
	}
	for _, m := range p.order {
		if m.rest > now {
			first = min(first, m.rest)
		}
	}
	return first
}

// over ends r if it is dead or superfluous, and gives back what it holds if it
// has stalled.
func (p *Plan) over(now time.Duration, r *request) bool {
	silent, dead := now-r.last, p.tune.DeadAfter
	if r.Member == Origin {
		dead = p.tune.OriginDeadAfter
	}
	switch {
	case p.superfluous(r):
		stalled := r.stalled
		p.finish(now, r)
		if stalled { // others had to do its work
			p.punish(now, r.Member, true)
		}
		return true
	case silent >= dead:
		p.finish(now, r)
		p.punish(now, r.Member, true)
		return true
	case r.Member == Origin:
		// The origin's pieces stay its own: nobody else offers them, and
		// asking it twice would not help.
	case silent >= p.patient(p.tune.StallAfter):
		p.stall(r, true)
	}
	return false
}

// patient returns how long a silence may last that may otherwise last so long:
// less if hardly anything is missing.
func (p *Plan) patient(silence time.Duration) time.Duration {
	return p.lastly(silence, p.missing)
}

// lastly returns how long something may last that may otherwise last so long:
// less if of all pieces so few are left.
func (p *Plan) lastly(most time.Duration, left int) time.Duration {
	if !p.last(left) {
		return most
	}
	return time.Duration(float64(most) * p.tune.LastPatience)
}

// last reports whether so few pieces are the last part.
func (p *Plan) last(left int) bool { return left <= p.pieces/p.tune.LastPart }

// superfluous reports whether every piece that r still owes is here.
func (p *Plan) superfluous(r *request) bool {
	i, missing := p.here.NextClear(uint(r.next))
	return !missing || int(i) >= r.end()
}

// frozen reports whether all requests of m have stalled.
func (m *member) frozen() bool { return m.requests > 0 && m.stalled == m.requests }

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
	if p.stale {
		soon(p.deadline(now))
	} else if p.due < never {
		soon(max(p.due, now+1))
	}
	if p.origin.present {
		soon(p.origin.from)
		soon(p.origin.rest)
		if p.doubt.holds {
			soon(p.verdict())
		}
		if now >= p.origin.from && now >= p.origin.rest && len(p.order) > 0 {
			soon(p.originWake(now))
		}
	}
	if p.abroad.next < never {
		soon(p.abroad.next)
	}
	if len(p.requests) > 0 {
		soon(now + tick) // rates fall while nothing comes
	}
	return wake, wake < never
}

// originWake returns when there may be something to ask from the origin for,
// because others did nothing.
func (p *Plan) originWake(now time.Duration) time.Duration {
	o := p.own()
	switch {
	case p.origin.requests >= p.originRequests():
		return now + tick
	case o.me >= 0 && p.serving() != Ranged && p.myTurn() > now:
		return min(p.myTurn(), now+tick)
	case o.me >= 0 && len(o.list) > 1:
		return now + p.tune.Stagger
	}
	return now + tick
}

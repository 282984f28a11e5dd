package plan

import "time"

// request is a request in flight.
type request struct {
	Request
	from    *member // nil for the origin
	next    int     // the piece that comes next
	got     int64
	began   time.Duration
	last    time.Duration // when the last byte came
	stalled bool          // its claims were given back
	stream  bool          // an origin that does not serve ranges
}

func (r *request) end() int { return r.First + r.Count }

// hold and release count the live requests that owe piece i.
func (p *Plan) hold(r *request, i int) {
	p.owed[i]++
	p.open.Clear(uint(i))
	if r.Member == Origin {
		p.asked.Set(uint(i))
	} else if r.from.far {
		p.abroad.asked.Set(uint(i))
	}
}

func (p *Plan) release(r *request, i int) {
	p.owed[i]--
	if r.Member == Origin {
		p.asked.Clear(uint(i))
	}
	if p.owed[i] > 0 {
		return
	}
	if p.abroad.asked.Clear(uint(i)); !p.here.Test(uint(i)) {
		p.open.Set(uint(i))
	}
}

// claim takes (+1) or gives back (-1) the pieces that a request still owes. A
// stream holds only those that it will reach soon.
func (p *Plan) claim(r *request, by int) {
	end := r.end()
	if r.stream {
		end = min(end, r.next+p.tune.StreamAhead)
	}
	for i := r.next; i < end; i++ {
		if by > 0 {
			p.hold(r, i)
		} else {
			p.release(r, i)
		}
	}
}

// stall makes a request give back the pieces that it holds, or take them again.
func (p *Plan) stall(r *request, yes bool) {
	if r.stalled == yes {
		return
	}
	r.stalled = yes
	p.stale, p.look = true, true
	if yes {
		p.claim(r, -1)
		r.from.stalled++
	} else {
		p.claim(r, +1)
		r.from.stalled--
	}
}

// begin makes a request.
func (p *Plan) begin(now time.Duration, m Member, first, count int, stream bool) Request {
	p.lastID++
	r := &request{
		Request: Request{ID: p.lastID, Member: m, First: first, Count: count},
		from:    p.members[m], next: first, began: now, last: now, stream: stream,
	}
	p.requests = append(p.requests, r)
	p.byID[r.ID] = r
	p.claim(r, +1)
	if m == Origin {
		p.origin.requests++
		p.origin.rate.start(now)
		p.alarm(now + p.tune.OriginDeadAfter)
		return r.Request
	}
	r.from.requests++
	r.from.owed += p.bytes(first, count)
	r.from.rate.start(now)
	p.alarm(now + p.patient(p.tune.StallAfter))
	if r.from.failures > 0 { // nobody waits for a trial: it holds nothing until a byte comes
		p.stall(r, true)
	}
	return r.Request
}

// finish takes a request out, whole or not.
func (p *Plan) finish(now time.Duration, r *request) {
	for i, o := range p.requests {
		if o == r {
			p.requests = append(p.requests[:i], p.requests[i+1:]...)
			break
		}
	}
	delete(p.byID, r.ID)
	p.look = true
	if !r.stalled {
		p.claim(r, -1)
	}
	if r.Member == Origin {
		if p.origin.requests--; p.origin.requests == 0 {
			p.origin.rate.stop(now)
		}
		p.owners.idle = now
		return
	}
	mem := r.from
	if r.stalled {
		mem.stalled--
	}
	mem.owed = max(0, mem.owed-(p.bytes(r.First, r.Count)-r.got))
	if mem.requests--; mem.requests == 0 {
		mem.owed = 0
		mem.rate.stop(now)
	}
	if mem.stalled > 0 { // it may be frozen now
		p.stale = true
	}
}

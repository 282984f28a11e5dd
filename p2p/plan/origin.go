package plan

import "time"

// origin is what is known of the origin.
type origin struct {
	present  bool
	from     time.Duration // not asked before
	rest     time.Duration // nor before this, after failures
	failures int
	requests int // in flight
	serving  Serving
	first    bool // members are slower: it is asked first
	rate     meter
	hint     float64 // its rate as measured by other fills; 0 if unknown
}

// OriginFrom adds the origin, not to be asked before from. rate is what other
// fills measured, in bytes a second, or 0. A later call changes both.
func (p *Plan) OriginFrom(from time.Duration, rate float64) {
	p.origin.present, p.origin.from, p.origin.hint = true, from, rate
}

// NoOrigin removes the origin, for good or until OriginFrom; its requests are
// over. What it alone was to give may then come from anybody.
func (p *Plan) NoOrigin(now time.Duration) {
	for _, r := range p.of(Origin) {
		p.finish(now, r)
	}
	p.origin.present, p.origin.first = false, false
}

// originHelps reports whether the origin can be waited for: not if it is not
// there, or keeps failing.
func (p *Plan) originHelps() bool { return p.origin.present && p.origin.failures < 3 }

// OriginRate returns the rate that this fill measured, in bytes a second.
func (p *Plan) OriginRate(now time.Duration) (float64, bool) { return p.origin.rate.rate(now) }

// Answered tells that the origin has begun to answer a request, and whether
// with the range that was asked for. If not, the request now stands for all
// pieces, from the first one on.
func (p *Plan) Answered(now time.Duration, id ID, ranged bool) {
	r := p.find(id)
	if r == nil || r.Member != Origin {
		return
	}
	r.last = now
	if r.stream {
		return // the whole was asked for, and tells nothing
	}
	if p.origin.serving = Ranged; ranged {
		return
	}
	p.origin.serving = Streams
	p.claim(r, -1)
	r.First, r.Count, r.next, r.stream = 0, p.pieces, 0, true
	p.claim(r, +1)
}

// judge decides whether members are fast enough to leave the origin in peace.
func (p *Plan) judge(now time.Duration) {
	o := &p.origin
	if !o.present || p.swarm.span(now) < p.tune.Window*(buckets-1)/buckets {
		return
	}
	swarm, _ := p.swarm.rate(now)
	if rate, measured := o.rate.rate(now); measured {
		o.first = swarm < p.tune.OriginShare*rate
		return
	}
	// A rate from other fills was measured under other circumstances: half of
	// it is reason enough to measure again, not to leave the swarm.
	o.first = swarm < max(p.tune.SlowSwarm, o.hint/2)
}

// mayAskOrigin reports whether the origin can take a request now.
func (p *Plan) mayAskOrigin(now time.Duration) bool {
	o := &p.origin
	if !o.present || now < o.from || now < o.rest {
		return false
	}
	_, measured := o.rate.rate(now)
	switch {
	case o.serving != Ranged, o.first && !measured:
		return o.requests == 0
	default:
		return o.requests < p.tune.OriginRequests
	}
}

// forOrigin reports whether the origin is to fetch piece i, which is open.
func (p *Plan) forOrigin(i int) bool {
	return p.origin.first || !p.offered(i) && p.claimed.of[i] == 0 || p.audit.Test(uint(i))
}

// askOrigin begins a request to the origin if it is its turn.
func (p *Plan) askOrigin(now time.Duration) (Request, bool) {
	if !p.mayAskOrigin(now) {
		return Request{}, false
	}
	if p.near.wholes+p.far.wholes > 0 && !p.origin.first && p.audit.None() {
		return Request{}, false
	}
	first, ok := p.nextOpen(0, p.pieces, p.forOrigin)
	if !ok {
		if first, ok = p.originOvertakes(now); !ok {
			return Request{}, false
		}
		return p.begin(now, Origin, first, 1, false), true
	}
	if p.origin.serving == Streams {
		return p.begin(now, Origin, 0, p.pieces, true), true
	}
	most := p.tune.RunPieces
	if _, measured := p.origin.rate.rate(now); p.origin.first && !measured {
		most = 1
	}
	return p.begin(now, Origin, first, p.run(first, most, p.forOrigin), false), true
}

// originOvertakes finds a piece that a slow member holds up in the end, when
// the origin is known to be the faster.
func (p *Plan) originOvertakes(now time.Duration) (int, bool) {
	rate, measured := p.origin.rate.rate(now)
	if !p.origin.first || !measured || p.origin.serving == Streams {
		return 0, false
	}
	own := time.Duration(float64(p.piece) / rate * float64(time.Second))
	return p.overtake(now, Origin, own, p.tune.TakeOver, func(int) bool { return true })
}

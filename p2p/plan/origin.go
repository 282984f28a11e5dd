package plan

import "time"

// origin is what is known of the origin.
type origin struct {
	present  bool
	left     bool          // it was taken away
	from     time.Duration // not asked before
	rest     time.Duration // nor before this, after failures
	vacant   time.Duration // since when nobody asks, where only one is to ask
	barred   time.Duration // until when there was no room to ask it
	failures int
	requests int // in flight
	got      int64
	trip     time.Duration // from the last request to its first bytes
	serving  Serving       // as this node has seen it
	first    bool          // the swarm is slower: it is asked first
	rate     meter
	hint     float64 // its rate as measured by other fills; 0 if unknown
}

// OriginFrom adds the origin, not to be asked before from. rate is what other
// fills measured, in bytes a second, or 0. A later call changes both.
func (p *Plan) OriginFrom(from time.Duration, rate float64) {
	o := &p.origin
	if !o.present {
		o.vacant, o.barred, p.owners.idle = from, from, from
	}
	o.present, o.left, o.from, o.hint = true, false, from, rate
}

// NoOrigin removes the origin, for good or until OriginFrom; its requests are
// over. What it alone was to give may then come from anybody.
func (p *Plan) NoOrigin(now time.Duration) {
	for _, r := range p.of(Origin) {
		p.finish(now, r)
	}
	p.origin.present, p.origin.left, p.origin.first = false, true, false
}

// originHelps reports whether the origin can be waited for: not if it is not
// there, or keeps failing.
func (p *Plan) originHelps() bool { return p.origin.present && !p.originFails() }

// originFails reports whether the origin keeps failing.
func (p *Plan) originFails() bool { return p.origin.failures >= 3 }

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
	if r.stream || ranged && r.Count == p.pieces {
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

// judge decides whether the swarm and this node's part in it are fast enough to
// leave pieces to others. It enters that mode and leaves it by different
// measures: what this node fetches itself counts for the swarm as long as it
// fetches what nobody else does.
func (p *Plan) judge(now time.Duration) {
	o := &p.origin
	if !o.present || now < o.from {
		return
	}
	p.all.start(now)
	p.swarm.start(now)
	p.hesitate(now)
	if !p.all.settled(now) || now-o.barred < p.patience() {
		return
	}
	own, measured := o.rate.rate(now)
	if o.first {
		swarm, _ := p.swarm.rate(now)
		o.first = !measured || swarm < p.tune.OriginShare*own
		return
	}
	all, _ := p.all.rate(now)
	others := &p.beside
	if p.doubt.holds {
		others = &p.besideSwarm
	}
	beside, _ := others.rate(now)
	o.first = all+beside < p.hope(now)
}

// patience is how long the swarm may do nothing before this node asks the
// origin for what others should: nodes that wait for the same owners do not
// ask all at once.
func (p *Plan) patience() time.Duration {
	o, wait := p.own(), p.tune.Window*(buckets-1)/buckets
	if o.me < 0 && len(o.list) > 0 {
		wait += time.Duration(mix(o.self) % uint64(2*p.tune.Window))
	}
	if p.shared() && p.far.live > 0 {
		wait += time.Duration(p.outbid(everything, claim(o.key, everything, o.self))) * p.tune.Window
		if o.me < 0 {
			wait += 2 * p.tune.Window
		}
	}
	return wait
}

// hope is the rate that the swarm must reach: most of what this node would get,
// which is a share of what it has measured itself if others ask, too, or half of
// what it has reason to believe. A rate from other fills, or that of a member, was
// measured under other circumstances: it is reason enough to measure again, not to
// leave the swarm.
func (p *Plan) hope(now time.Duration) float64 {
	if rate, measured := p.origin.rate.rate(now); measured {
		return p.tune.OriginShare * rate / float64(1+p.askers())
	}
	best := p.bestPull(now)
	if p.serving() == Streams && best > 0 && now-p.stored < lasts(p.size, best) {
		return 0 // what comes now may all be here: who streams anew passes that first
	}
	if best > 0 {
		return best / 2
	}
	return max(p.tune.SlowSwarm, p.origin.hint/2)
}

// askers is how many members fetch from the origin, without those that are stuck.
func (p *Plan) askers() (n int) {
	for _, m := range p.order {
		if m.asks() && m.stuck == never {
			n++
		}
	}
	return n
}

// mayAskOrigin reports whether the origin can take a request now.
func (p *Plan) mayAskOrigin(now time.Duration) bool {
	o := &p.origin
	if !o.present || now < o.from || now < o.rest || o.requests >= p.originRequests() {
		return false
	}
	if !o.first && !p.owns() && p.audit.None() {
		return false
	}
	p.hush(now)
	if o.serving == Ranged {
		_, measured := o.rate.rate(now)
		return o.requests == 0 || !o.first || measured || p.spares()
	}
	return o.requests == 0 && (p.serving() == Ranged || p.turn(now))
}

// owns reports whether this node fetches from the origin without being forced
// to: as an owner, or because there is nobody else.
func (p *Plan) owns() bool { return p.own().me >= 0 || p.alone() }

// askOrigin begins a request to the origin if it is its turn.
func (p *Plan) askOrigin(now time.Duration) (Request, bool) {
	if !p.mayAskOrigin(now) {
		return Request{}, false
	}
	first, count, ok := p.chooseForOrigin(now)
	if !ok {
		return Request{}, false
	}
	if p.origin.serving == Streams {
		return p.begin(now, Origin, 0, p.pieces, true), true
	}
	return p.begin(now, Origin, first, count, false), true
}

// chooseForOrigin returns the run of open pieces that is asked from the origin
// next.
func (p *Plan) chooseForOrigin(now time.Duration) (first, count int, ok bool) {
	most := p.originRun(now)
	if p.audit.Any() {
		audited := func(i int) bool { return p.audit.Test(uint(i)) }
		if first, count, ok = p.nextRun(most, audited); ok {
			return first, count, true
		}
	}
	switch {
	case p.spares():
		return p.passSlow(now, most)
	case p.wholes() > 0 && !p.origin.first:
		return 0, 0, false
	}
	mine := p.mine(now)
	if p.serving() != Ranged {
		mine = p.unclaimed // it is this node's turn
	}
	if first, count, ok = p.nextRun(most, mine); ok {
		return first, count, true
	}
	if p.serving() == Unknown && !p.origin.first { // it is this node's turn to find out, owner or not
		return p.nextRun(1, p.unclaimed)
	}
	if p.origin.first {
		return p.chooseAnything(now, most)
	}
	if first, count, ok = p.relieve(now, false); ok {
		return first, min(count, most), true
	}
	if p.origin.requests > 0 { // what is on its way already would only come later
		return 0, 0, false
	}
	if first, count, ok = p.relieve(now, true); ok {
		return first, min(count, most), true
	}
	return p.bypass(now)
}

// unclaimed reports whether nobody offers piece i or fetches it from the
// origin.
func (p *Plan) unclaimed(i int) bool {
	return p.claimed.of[i] == 0 && p.near.of[i]+p.far.of[i] == 0
}

// mine returns the test whether a piece is for this node to bring.
func (p *Plan) mine(now time.Duration) func(i int) bool {
	o := p.own()
	switch {
	case p.alone():
		return p.unclaimed
	case o.me < 0:
		return func(int) bool { return false }
	}
	reach := p.reach(now)
	return func(i int) bool { return i < reach && o.mine.Test(uint(i)) && p.unclaimed(i) }
}

// chooseAnything returns what the origin is asked for when the swarm is
// slower: what helps others first, then what they will have, then anything.
func (p *Plan) chooseAnything(now time.Duration, most int) (first, count int, ok bool) {
	for _, test := range []func(i int) bool{
		p.unclaimed,
		func(i int) bool { return !p.near.has(i) && p.coming.of[i] == 0 },
		func(i int) bool { return p.near.of[i]+p.far.of[i] == 0 },
		func(int) bool { return true },
	} {
		if first, count, ok = p.nextRun(most, test); ok {
			return first, count, true
		}
	}
	first, ok = p.originOvertakes(now)
	return first, 1, ok
}

// nextRun returns the first run of open pieces that ok accepts.
func (p *Plan) nextRun(most int, ok func(i int) bool) (first, count int, found bool) {
	if first, found = p.nextOpen(0, p.pieces, ok); !found {
		return 0, 0, false
	}
	return first, p.run(first, most, ok), true
}

// originRun is how many pieces a request to the origin takes: in a crowd no
// more than arrive in Tuning.OriginAhead, because nobody else can help with
// what is in flight, and one to measure the rate.
func (p *Plan) originRun(now time.Duration) int {
	rate, measured := p.origin.rate.rate(now)
	switch {
	case !measured && (p.origin.first || !p.alone()):
		return 1
	case p.alone() || p.origin.first:
		return p.tune.RunPieces
	}
	n := int(rate * p.tune.OriginAhead.Seconds() / float64(p.piece))
	return min(max(1, n/p.originRequests()), p.owners.run)
}

// originRequests is how many requests this node may have in flight to the origin.
func (p *Plan) originRequests() int {
	begins := p.missing > p.pieces-p.pieces/p.tune.FirstPart
	if begins && !p.origin.first && len(p.own().list) >= p.tune.Abreast {
		return 1
	}
	return p.tune.OriginRequests
}

// originOvertakes finds a piece that a slow member holds up in the end, when
// the origin is known to be the faster.
func (p *Plan) originOvertakes(now time.Duration) (int, bool) {
	rate, measured := p.origin.rate.rate(now)
	if !measured || p.origin.serving == Streams {
		return 0, false
	}
	return p.overtake(now, Origin, lasts(p.piece, rate), p.tune.TakeOver, func(*request, int) bool { return true })
}

// bypass finds a piece in flight from a member that is slow and alone to have
// it, when this node is the next to bring it from the origin.
func (p *Plan) bypass(now time.Duration) (first, count int, ok bool) {
	o := p.own()
	rate, measured := p.origin.rate.rate(now)
	if o.me < 0 || !measured || p.origin.serving == Streams {
		return 0, 0, false
	}
	margin := p.tune.StuckBy + time.Duration(o.place(everything))*p.tune.Stagger
	first, ok = p.overtake(now, Origin, lasts(p.piece, rate), margin, func(r *request, i int) bool {
		return now-r.began >= p.tune.StuckBy && p.near.of[i]+p.far.of[i] <= 1 && p.claimed.of[i] == 0
	})
	return first, 1, ok
}

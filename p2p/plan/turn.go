package plan

import "time"

// serving is how the origin serves ranges, as far as this node or any member
// has seen. What it has seen itself counts more.
func (p *Plan) serving() Serving {
	if p.origin.serving != Unknown {
		return p.origin.serving
	}
	told := Unknown
	for _, m := range p.order {
		switch m.serving {
		case Ranged:
			return Ranged
		case Streams:
			told = Streams
		}
	}
	return told
}

// Serving returns how the origin serves this node, as far as it has seen
// itself: what it tells others.
func (p *Plan) Serving() Serving {
	if p.origin.left || p.originFails() {
		return Unreachable
	}
	return p.origin.serving
}

// KnowsOrigin tells how the origin served earlier fills.
func (p *Plan) KnowsOrigin(s Serving) {
	if p.origin.serving == Unknown && s != Unreachable {
		p.origin.serving = s
	}
}

// turn reports whether this node is the one to ask an origin that may ignore
// ranges, and so send to everybody who asks the whole blob: the owner of the
// first piece that nobody has, and the others after it by rank.
func (p *Plan) turn(now time.Duration) bool {
	if p.origin.first || p.alone() {
		return true
	}
	o := p.own()
	if o.me < 0 {
		return false
	}
	for _, m := range p.order {
		if m.asks() {
			p.origin.vacant = now
			return false
		}
	}
	return now >= p.myTurn()
}

// myTurn returns when it is this node's turn if nobody else begins.
func (p *Plan) myTurn() time.Duration {
	every := p.tune.TurnEvery
	if p.pieces == 1 {
		every = p.tune.TurnSmall
	}
	first, _ := p.unoffered(0)
	return p.origin.vacant + time.Duration(p.own().place(first/p.owners.run))*every
}

// asks reports whether m has requests to the origin in flight and gets
// something.
func (m *member) asks() bool { return !m.silent && m.claims != nil && m.claims.Any() }

// silentAfter is how long a member may get nothing from the origin: longer if
// this node itself waits long for the first bytes, or would need long for a run.
func (p *Plan) silentAfter(now time.Duration) time.Duration {
	trip := p.origin.trip
	for _, r := range p.requests {
		if r.Member == Origin && r.got == 0 {
			trip = max(trip, now-r.began)
		}
	}
	return max(p.patient(p.tune.SilentAfter)+trip, p.ownTime(now)/2)
}

// hush makes claims of members that get nothing from the origin count no more.
func (p *Plan) hush(now time.Duration) {
	after := p.silentAfter(now)
	for _, m := range p.order {
		if m.asks() && now-m.heard >= after {
			p.silence(m, true)
		}
	}
}

// yield breaks the own stream off if another member streams that is further,
// or as far and comes first.
func (p *Plan) yield(now time.Duration) []ID {
	if p.origin.serving != Streams || p.origin.requests == 0 || p.origin.first || p.alone() {
		return nil
	}
	margin := int64(p.tune.StreamAhead) * p.piece
	for _, m := range p.order {
		if !m.asks() || m.serving != Streams {
			continue
		}
		ahead := m.progress - p.origin.got
		if ahead > margin || ahead >= -margin && claim(p.owners.key, everything, m.node) > claim(p.owners.key, everything, p.owners.self) {
			var cancel []ID
			for _, r := range p.of(Origin) {
				p.finish(now, r)
				cancel = append(cancel, r.ID)
			}
			p.origin.vacant = now
			return cancel
		}
	}
	return nil
}

package plan

import "time"

// doubt is whether members that have the whole are as fast as the origin, while
// nothing else is in flight that could tell: nobody has filled the blob beside
// this node, so that asking the origin takes nothing from a crowd.
type doubt struct {
	crowd bool          // somebody has
	holds bool          // all live members have the whole, and the origin may be asked
	since time.Duration // since when, or since the first byte came from them
	began bool          // it has come, or was too late
	bytes int64         // that had come from members by then
	other int64         // and to other fills
	slow  bool          // this plan has measured that they are slower
}

// Slow reports whether this node has measured that members which have the whole
// are slower than the origin, or than they must be not to be suspected of it.
// It is so for all that is fetched from them at the moment.
func (p *Plan) Slow() bool { return p.doubt.slow && p.origin.first }

// Hurry tells that another plan of this node is Slow: the origin is asked first,
// as if this one had measured it.
func (p *Plan) Hurry() {
	if p.doubt.holds {
		p.origin.first = true
	}
}

// Accompanied tells that others fill the blob, too, whatever they have by now.
func (p *Plan) Accompanied() { p.doubt.crowd = true }

// hesitate looks at the first bytes of members that have the whole: a pull that
// waits for the rate over a window would be over by then, or late already.
func (p *Plan) hesitate(now time.Duration) {
	d, o := &p.doubt, &p.origin
	if holds := !d.crowd && p.wholes() > 0 && p.wholes() == p.live(); holds != d.holds {
		*d = doubt{crowd: d.crowd, holds: holds, since: now, bytes: p.fromMembers, other: p.besideAll}
	}
	if d.holds && !d.began && p.fromMembers > d.bytes {
		d.began, d.since, d.bytes, d.other = true, now, p.fromMembers, p.besideAll
	}
	if !d.holds || now < p.verdict() || p.all.settled(now) {
		return
	}
	seconds := (now - d.since).Seconds()
	rate, beside := float64(p.fromMembers-d.bytes)/seconds, float64(p.besideAll-d.other)/seconds
	own, measured := o.rate.rate(now)
	must := p.hope(now)
	if !measured {
		must = max(must, p.tune.SlowHolders)
	}
	switch {
	case o.first && measured && rate >= own:
		o.first, d.slow = false, false
	case !o.first && rate+beside < must:
		o.first, d.slow, d.began = true, true, true
	}
}

// verdict returns when holders must have shown that they are fast.
func (p *Plan) verdict() time.Duration {
	if p.doubt.began {
		return p.doubt.since + p.tune.SlowStart
	}
	return p.doubt.since + p.tune.NoStart
}

// spares reports whether members that have the whole are slower than the
// origin: each is asked for one piece at a time, from the end, and the origin
// for what is waited for.
func (p *Plan) spares() bool { return p.doubt.holds && p.origin.first && p.originHelps() }

// suspect returns the first piece of a request to a member of which nothing is
// known but that it has been waited for.
func (p *Plan) suspect(now time.Duration) (int, bool) {
	for _, r := range p.requests {
		if r.Member == Origin || r.stalled || now-r.began < p.tune.SlowStart {
			continue
		}
		if _, known := p.origin.rate.rate(now); known && r.from.rate.any {
			continue // when it will be here can be told
		}
		for i := r.next; i < r.end(); i++ {
			if p.owed[i] == 1 && !p.here.Test(uint(i)) {
				return i, true
			}
		}
	}
	return 0, false
}

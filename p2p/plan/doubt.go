package plan

import (
	"time"

	"github.com/bits-and-blooms/bitset"
)

// doubt is whether members that have the whole are as fast as the origin, while
// nothing else is in flight that could tell: nobody has filled the blob beside
// this node, so that asking the origin takes nothing from a crowd.
type doubt struct {
	crowd bool          // somebody has
	busy  bool          // somebody fills other blobs beside this node
	late  time.Duration // by how much this node itself was late
	holds bool          // all live members have the whole, and the origin may be asked
	since time.Duration // since when, without what this node was late
	bytes int64         // that had come from members by then
	other int64         // and to other fills, from members
	word  word
	said  time.Duration // when this plan found that out
}

// word is what was found out about members that have the whole.
type word int

const (
	unsaid   word = iota
	hearsay       // slow, as another plan found out
	unheeded      // the same, but the origin is slow as well
	slow
	fast
)

// Slow reports whether members which have the whole are slower than the origin,
// or than they must be not to be suspected of it.
func (p *Plan) Slow() bool { return p.doubt.holds && p.doubt.word == slow }

// Fast reports whether those members were suspected, and then measured to be as
// fast as the origin.
func (p *Plan) Fast() bool { return p.doubt.word == fast }

// Hurry tells that the members which have the whole were slow elsewhere: the
// origin is asked first, as if this plan had measured it.
func (p *Plan) Hurry() {
	if p.doubt.word == unsaid {
		p.doubt.word, p.origin.first = hearsay, p.origin.first || p.doubt.holds
	}
}

// Accompanied reports whether somebody has been seen to fill the blob, too.
func (p *Plan) Accompanied() bool { return p.doubt.crowd }

// Accompany tells that others fill the blob, too, whatever they have by now.
func (p *Plan) Accompany() { p.doubt.crowd = true }

// Busy tells that others fill other blobs beside this node: holders have them to
// serve, too.
func (p *Plan) Busy() { p.doubt.busy = true }

// Late tells by how much this node was late in all: no member is suspected for it.
func (p *Plan) Late(by time.Duration) { p.doubt.late = by }

// hesitate looks at the first bytes of members that have the whole: a pull that
// waits for the rate over a window would be over by then, or late already.
func (p *Plan) hesitate(now time.Duration) {
	d, o := &p.doubt, &p.origin
	if holds := !d.crowd && !d.busy && p.wholes() > 0 && p.wholes() == p.live(); holds != d.holds {
		d.holds, d.since, d.bytes, d.other = holds, now-d.late, p.fromMembers, p.besideMembers
		o.first = o.first || holds && (d.word == hearsay || d.word == slow)
	}
	passed := now - d.late - d.since
	if !d.holds || passed < p.tune.SlowStart || p.all.settled(now) {
		return
	}
	rate, beside := float64(p.fromMembers-d.bytes)/passed.Seconds(), float64(p.besideMembers-d.other)/passed.Seconds()
	own, measured := o.rate.rate(now)
	switch {
	case o.first && (measured && rate >= own || !measured && rate >= p.must(now)):
		d.word, o.first = fast, false
	case d.word == hearsay && measured && own < p.tune.SlowHolders:
		// They may have been slow because they had to be reached first.
		d.word, d.since, d.bytes, d.other, o.first = unheeded, now-d.late, p.fromMembers, p.besideMembers, false
	case !o.first && rate+beside < p.must(now):
		d.word, d.said, o.first = slow, now, true
	case d.word == unheeded:
		d.word = fast
	}
}

// must is the rate that members which have the whole must reach at once.
func (p *Plan) must(now time.Duration) float64 {
	if _, measured := p.origin.rate.rate(now); measured {
		return p.hope(now)
	}
	if hint := p.origin.hint; hint > 0 {
		return min(p.tune.SlowHolders, p.tune.OriginShare*hint)
	}
	return p.tune.SlowHolders
}

// verdict returns when holders must have shown that they are fast.
func (p *Plan) verdict() time.Duration { return p.doubt.since + p.doubt.late + p.tune.SlowStart }

// spares reports whether members that have the whole are slower than the
// origin: each is asked for one piece at a time, from the end, and the origin
// for what is waited for.
func (p *Plan) spares() bool { return p.doubt.holds && p.origin.first && p.originHelps() }

// passSlow returns the first run of pieces that are open, or that slow holders
// will bring much later than the origin would.
func (p *Plan) passSlow(now time.Duration, most int) (first, count int, ok bool) {
	rate, measured := p.origin.rate.rate(now)
	behind := func(r *request) bool {
		if eta := p.expected(now, r); measured && eta > 0 {
			return eta > 2*lasts(p.piece, rate)+p.tune.TakeOver
		}
		return r.began < p.doubt.said || now-r.began >= p.tune.SlowStart
	}
	// Several may have been asked for a piece, when they looked fast.
	copy(p.candidates.Words(), p.open.Words())
	inTime := bitset.New(uint(p.pieces))
	for _, r := range p.requests {
		if r.stalled || r.stream {
			continue
		}
		set := inTime
		if r.Member != Origin && behind(r) {
			set = p.candidates
		}
		for i := r.next; i < r.end(); i++ {
			set.Set(uint(i))
		}
	}
	p.candidates.InPlaceDifference(inTime)
	p.candidates.InPlaceDifference(p.here)
	i, ok := p.candidates.NextSet(0)
	if !ok {
		return 0, 0, false
	}
	return int(i), p.candidateRun(int(i), most), true
}

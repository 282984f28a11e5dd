package plan

import (
	"cmp"
	"slices"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// owners is who fetches which run from the origin. Every node computes it
// alone, from the same numbers; nodes that know the same volunteers agree.
type owners struct {
	self, key uint64
	volunteer bool

	stale bool
	list  []owner // heaviest first, at most Tuning.Owners
	me    int     // this node's place in list, -1 if it owns nothing
	run   int     // pieces of a run
	first []uint8 // by run, the owner in list
	mine  *bitset.BitSet

	surveyed time.Duration
	left     int           // pieces that nobody had, then
	capacity float64       // what the origin was seen to give to all at once
	idle     time.Duration // when the last request of this node ended
}

// surveyEvery is how often owners are looked at.
const surveyEvery = 20 * time.Millisecond

// owner is a volunteer that owns runs.
type owner struct {
	node    uint64
	member  *member // nil for this node
	backlog int     // pieces of its runs that nobody has, claims or is asked for
	claims  int     // pieces that it claims and nobody has
}

// mix spreads a number over all 64 bits (the finaliser of splitmix64, Steele,
// Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// claim is the weight of a node's claim to a run of a blob: the heaviest owns
// it (rendezvous hashing).
func claim(key uint64, run int, node uint64) uint64 {
	return mix(mix(key+uint64(run)) ^ node)
}

// everything is the run that stands for a whole blob: who volunteers with the
// heaviest claims to it owns runs.
const everything = -1

// runLength returns the number of pieces of a run: what a request takes, and
// less in a small blob, so that there is a run for everybody.
func (p *Plan) runLength() int { return min(max(p.pieces/32, 1), p.tune.RunPieces) }

// Volunteer says whether this node may own runs.
func (p *Plan) Volunteer(yes bool) {
	p.owners.volunteer, p.owners.stale = yes, true
}

// own computes the owners anew if something has changed.
func (p *Plan) own() *owners {
	o := &p.owners
	if !o.stale {
		return o
	}
	o.stale, o.surveyed = false, -never
	o.list = o.list[:0]
	if o.volunteer {
		o.list = append(o.list, owner{node: o.self})
	}
	for _, m := range p.order {
		if m.volunteer && !m.silent && !m.whole && m.serving != Unreachable {
			o.list = append(o.list, owner{node: m.node, member: m})
		}
	}
	slices.SortFunc(o.list, func(a, b owner) int {
		if claim(o.key, everything, a.node) > claim(o.key, everything, b.node) {
			return -1
		}
		return 1
	})
	o.list = o.list[:min(len(o.list), p.tune.Owners)]
	o.me = slices.IndexFunc(o.list, func(x owner) bool { return x.member == nil })
	p.share()
	return o
}

// share gives every run to an owner, if this node is one: the others need not
// know.
func (p *Plan) share() {
	o := &p.owners
	if o.run = p.runLength(); o.me < 0 || len(o.list) == 1 {
		return
	}
	if o.mine == nil {
		o.mine = bitset.New(uint(p.pieces))
		o.first = make([]uint8, (p.pieces+o.run-1)/o.run)
	}
	o.mine.ClearAll()
	for run := range o.first {
		best := 0
		for i := range o.list {
			if claim(o.key, run, o.list[i].node) > claim(o.key, run, o.list[best].node) {
				best = i
			}
		}
		if o.first[run] = uint8(best); best == o.me {
			o.mine.SetRange(uint(run*o.run), uint(min(p.pieces, (run+1)*o.run)))
		}
	}
}

// alone reports whether nobody else is known who would fetch from the origin.
func (p *Plan) alone() bool {
	o := p.own()
	return len(o.list) == 0 && p.live() == p.wholes() || len(o.list) == 1 && o.me == 0
}

// place returns how many owners come before this node for a run; all, if it is
// none.
func (o *owners) place(run int) int {
	if o.me < 0 {
		return len(o.list)
	}
	n, mine := 0, claim(o.key, run, o.self)
	for i := range o.list {
		if claim(o.key, run, o.list[i].node) > mine {
			n++
		}
	}
	return n
}

// survey takes stock of what owners still have to do, and who will be late. It
// looks at every piece, and so does not do it at every event.
func (p *Plan) survey(now time.Duration) {
	o := p.own()
	if now-o.surveyed < surveyEvery || o.me < 0 || len(o.list) < 2 {
		return
	}
	o.surveyed = now
	for i := range o.list {
		o.list[i].backlog, o.list[i].claims = 0, 0
	}
	o.left = 0
	reach := p.reach(now)
	for i, ok := p.unoffered(0); ok; i, ok = p.unoffered(i + 1) {
		o.left++
		if p.claimed.of[i] == 0 {
			if i < reach {
				o.list[o.first[i/o.run]].backlog++
			}
			continue
		}
		for k := range o.list {
			if m := o.list[k].member; m != nil && m.claims != nil && m.claims.Test(uint(i)) {
				o.list[k].claims++
			}
		}
	}
	own := p.ownTime(now)
	for k := range o.list {
		p.appraise(now, &o.list[k], own)
	}
}

// appraise decides whether an owner is silent or late. own is how long this
// node would need for a run.
func (p *Plan) appraise(now time.Duration, o *owner, own time.Duration) {
	m := o.member
	if m == nil {
		return
	}
	if o.backlog+o.claims == 0 || p.serving() == Unknown {
		m.heard = now // nothing is expected from it
	}
	if now-m.heard >= p.silentAfter(now) {
		p.silence(m, true)
		return
	}
	rate, known := m.pulls.rate(now)
	switch {
	case !known: // it has not had a byte: its time is what it has waited
		since(&m.late, now, now-m.heard > own*3/2+p.tune.StuckBy)
		m.stuck = never
	default:
		since(&m.late, now, lasts(int64(o.backlog+o.claims)*p.piece, rate) > own*3/2+p.tune.LateBy)
		since(&m.stuck, now, p.crawls(now, o, rate, own))
	}
}

// crawls reports whether an owner that has such a rate brings very late what it
// claims.
func (p *Plan) crawls(now time.Duration, o *owner, rate float64, own time.Duration) bool {
	brings := int64(o.claims) * p.piece
	by, takes := p.lastly(p.tune.StuckBy, p.owners.left), lasts(brings, rate)
	as := own * time.Duration(o.claims) / time.Duration(p.owners.run) // what this node would need for as much
	_, known := p.origin.rate.rate(now)
	switch {
	case p.last(p.owners.left): // a rate is of a while ago, and everybody waits for these
		takes, own = max(takes, now-o.member.turned), as
	case !known: // who began alone has more to bring than a run, and may be as fast as anybody
		own = max(own, min(as, lasts(brings, p.tune.SlowSwarm)))
	}
	// At first a rate says little: many requests that begin together take their
	// time to get going.
	return now-o.member.asking >= by && takes > own*2+by
}

// since keeps the time from which on something is so; never if it is not.
func since(t *time.Duration, now time.Duration, so bool) {
	switch {
	case !so:
		*t = never
	case *t == never:
		*t = now
	}
}

// ownTime is how long this node would need to bring a run from the origin now.
// What it measured when it was the only one to ask says nothing of an origin
// that many ask at once: it gets no more than an equal share of what the origin
// gives to all.
func (p *Plan) ownTime(now time.Duration) time.Duration {
	total, askers := 0.0, 1
	for _, m := range p.order {
		if rate, known := m.pulls.rate(now); known && m.pulls.running {
			total += rate
			askers++
		}
	}
	own, known := p.origin.rate.rate(now)
	if known && p.origin.requests > 0 {
		total += own
	}
	o := &p.owners
	if total >= o.capacity || !p.last(o.left) { // the last few who ask have more each
		o.capacity = total
	}
	share := o.capacity / float64(askers)
	if !known || share > 0 {
		own = min(share, cmp.Or(own, share))
	}
	if own <= 0 {
		return 0
	}
	return lasts(int64(p.owners.run)*p.piece, own)
}

// bestPull returns the rate at which the fastest of the others gets bytes from
// the origin, 0 if it is not known.
func (p *Plan) bestPull(now time.Duration) float64 {
	best := 0.0
	for _, m := range p.order {
		if rate, known := m.pulls.rate(now); known && m.pulls.running {
			best = max(best, rate)
		}
	}
	return best
}

// unoffered returns the next open piece from i on that no live member offers.
func (p *Plan) unoffered(i int) (int, bool) {
	if p.wholes() > 0 {
		return 0, false
	}
	return p.nextOpen(i, p.pieces, func(i int) bool { return p.near.of[i]+p.far.of[i] == 0 })
}

// reach returns the piece from which on nothing is begun yet. Of a small blob all
// pieces would be asked for at once, as of the layers beside it, and where the
// origin is slow all of them would be late. So it is the first that nobody has or
// brings, until Tuning.AtOnce are on their way, or what comes in OriginAhead. Each
// zone counts what its own owners bring: what others fetch does not come over its
// link.
func (p *Plan) reach(now time.Duration) int {
	if p.runLength() > 1 {
		return p.pieces
	}
	o := &p.owners
	most := max(p.tune.AtOnce, int(o.capacity*p.tune.OriginAhead.Seconds()/float64(p.piece)))
	n := p.origin.requests + p.slots(now)
	for i, ok := p.unoffered(0); ok; i, ok = p.unoffered(i + 1) {
		owner := o.list[o.first[i/o.run]].member
		if p.claimed.of[i] > 0 || owner != nil && owner.far {
			continue
		}
		if n++; n > most {
			return i
		}
	}
	return p.pieces
}

// slots returns how many members of the zone use what the origin gives. If all who
// fetch get less together than is usual for one, it is their own links that are
// full: then only those count of whom nothing is known.
func (p *Plan) slots(now time.Duration) (n int) {
	known, together := 0, 0.0
	if rate, ok := p.origin.rate.rate(now); ok && p.origin.requests > 0 {
		together = rate
	}
	for _, m := range p.order {
		if m.far || !m.asks() || m.stuck != never {
			continue
		}
		n++
		if rate, ok := m.pulls.rate(now); ok {
			known++
			together += rate
		}
	}
	if together < p.usual(now) {
		n -= known
	}
	return n
}

// usual returns the median of the rates at which owners fetch from the origin, or
// did when they were last seen to; 0 if nobody was.
func (p *Plan) usual(now time.Duration) float64 {
	rates := make([]float64, 0, 32)
	for _, o := range p.owners.list {
		of := &p.origin.rate
		if o.member != nil {
			of = &o.member.pulls
		}
		if rate, known := of.rate(now); known {
			rates = append(rates, rate)
		}
	}
	if len(rates) == 0 {
		return 0
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// relieve finds a run that its owner would bring late and that this node is
// the next for, from the far end: there the owner comes last. With stuck it
// looks at runs that owners have claimed, but not while others bring theirs in
// time: what has little of the origin's link has more when these are done.
func (p *Plan) relieve(now time.Duration, stuck bool) (first, count int, ok bool) {
	o := p.own()
	if o.me < 0 || len(o.list) < 2 {
		return 0, 0, false
	}
	if p.survey(now); stuck && p.askers() > 0 && !p.last(o.left) {
		return 0, 0, false
	}
	for i, found := p.open.PreviousSet(uint(p.pieces - 1)); found; i, found = p.open.PreviousSet(i - 1) {
		run := int(i) / o.run
		wait := time.Duration(o.helpers(run)) * p.tune.HelpEvery
		if now >= max(o.idle, p.lateSince(int(i), stuck))+wait {
			first = int(i)
			for first > run*o.run && p.open.Test(uint(first-1)) && p.lateSince(first-1, stuck) <= now {
				first--
			}
			return first, int(i) - first + 1, true
		}
		if i == 0 {
			break
		}
	}
	return 0, 0, false
}

// lateSince returns since when who is to bring piece i, which nobody has, is
// late with it; never if it is not. With stuck these are the members that have
// claimed it, without the owner of its run, which has not.
func (p *Plan) lateSince(i int, stuck bool) time.Duration {
	o := &p.owners
	if stuck == (p.claimed.of[i] == 0) || p.offered(i) {
		return never
	}
	if !stuck {
		if m := o.list[o.first[i/o.run]].member; m != nil {
			return m.late
		}
		return never
	}
	last := time.Duration(0)
	for _, m := range p.order {
		if m.asks() && m.claims.Test(uint(i)) {
			last = max(last, m.stuck)
		}
	}
	return last
}

// helpers returns how many owners that have begun all of their own runs, and are
// not stuck with these, come before this node for one of another.
func (o *owners) helpers(run int) int {
	n, mine := 0, claim(o.key, run, o.self)
	for i := range o.list {
		x := &o.list[i]
		if x.member != nil && x.backlog == 0 && x.member.stuck == never && claim(o.key, run, x.node) > mine {
			n++
		}
	}
	return n
}

package plan

import (
	"container/heap"
	"math"
	"slices"
	"time"
)

// askMembers hands out requests, one at a time to the member that runs dry
// first, until nobody takes more.
func (p *Plan) askMembers(now time.Duration, room int) []Request {
	p.look, p.looked = false, now
	p.impatient(now)
	shared := p.shared()
	left := p.budget(now, shared)
	abroad := &left
	if shared {
		room := p.abroadRoom(now)
		abroad = &room
	}
	if left <= 0 && *abroad <= 0 {
		return nil
	}
	dryIn := dryIn
	if left < math.MaxInt64 {
		dryIn = p.arrivesIn
	}
	var start []Request
	slowest, endgame := p.slowest(now), p.open.None()
	p.free = p.free[:0]
	for _, m := range p.order {
		if endgame && !m.rate.any { // cannot tell that it is faster
			continue
		}
		if p.takesMore(now, m) {
			p.free = append(p.free, candidate{m, dryIn(now, m)})
		}
	}
	heap.Init(&p.free)
	for len(p.free) > 0 && room > 0 {
		m := p.free[0].member
		left := &left
		if m.far {
			left = abroad
		}
		if *left <= 0 {
			heap.Pop(&p.free)
			continue
		}
		first, count, ok := p.assign(now, m, slowest)
		if ok {
			start = append(start, p.begin(now, m.id, first, count, false))
			*left -= p.bytes(first, count)
			room--
		}
		if !ok || !p.takesMore(now, m) {
			heap.Pop(&p.free)
			continue
		}
		p.free[0].dry = dryIn(now, m)
		heap.Fix(&p.free, 0)
	}
	p.look = room == 0
	return start
}

// budget returns how many bytes more may be in flight from members together.
// In a crowd requests wait at members that everybody asks, and a piece that
// waits there is one that cannot be passed on: what is in flight should be
// enough to keep the link busy during a round trip, and no more. It is the same
// for fast nodes and slow ones: if it grew with the rate, the fast would take
// from the slow. But who has many members has more that are busy, and waits for
// these; and who is behind may have more in flight than who is ahead. Among a
// few members it only keeps a slow link from being shared by more requests than
// can show signs of life. What is in flight from other zones has a budget of its
// own in a zone that is shared.
func (p *Plan) budget(now time.Duration, shared bool) int64 {
	rate, _ := p.swarm.rate(now)
	if p.swarm.settled(now) {
		p.peak = max(p.peak, rate)
	}
	most := int64(p.tune.CrowdPieces) * p.piece
	switch {
	case p.live()-p.wholes() >= p.tune.Crowd:
		most += int64(rate*p.trip.Seconds()) + int64(p.live()/p.tune.CrowdMembers)*p.piece + p.allowance()
	case p.swarm.settled(now):
		most = max(most, int64(2*rate*p.tune.Ahead.Seconds()))
	default:
		return math.MaxInt64
	}
	for _, m := range p.order {
		if !m.far || !shared {
			most -= m.owed
		}
	}
	return most
}

// allowance is how many bytes more than others this node may have in flight
// because it is behind them, or fewer because it is ahead. Links that many ask
// give each request the same: so who is behind catches up, and nobody is the
// last by much. The measure is the median, of which slow members say nothing.
func (p *Plan) allowance() int64 {
	has := p.scratch[:0]
	for _, m := range p.order {
		if m.counted && m.has != nil {
			has = append(has, m.held)
		}
	}
	p.scratch = has
	if len(has) == 0 {
		return 0
	}
	slices.Sort(has)
	behind := has[len(has)/2] - (p.pieces - p.missing)
	bytes := int64(behind) * p.piece / int64(p.tune.Behind)
	return min(int64(p.tune.BehindMost)*p.piece, max(-int64(p.tune.AheadMost)*p.piece, bytes))
}

// assign returns the run that m is to fetch next. slowest is how long the
// slowest request in flight will take.
func (p *Plan) assign(now time.Duration, m *member, slowest time.Duration) (first, count int, ok bool) {
	own, known := idleIn(now, m, p.piece)
	own = max(own, p.passes())
	// It may be much sooner than others, but not over the link of a zone, which
	// all that comes in shares.
	ahead := known && m.failures == 0 && 2*own < slowest && (!m.far || !p.shared())
	if ahead {
		if i, found := p.overtake(now, m.id, own, p.tune.StallAfter, p.holdsUp(m)); found {
			return i, 1, true
		}
	}
	if first, count, ok = p.choose(now, m); ok || !ahead {
		return first, count, ok
	}
	i, found := p.overtake(now, m.id, own, p.tune.TakeOver, func(_ *request, i int) bool { return m.offers(i) })
	return i, 1, found
}

// passes returns how long what is in flight and a piece more need to pass the
// own link, if its rate is known: nobody overtakes anybody there.
func (p *Plan) passes() time.Duration {
	if p.peak == 0 {
		return 0
	}
	bytes := p.piece
	for _, m := range p.order {
		bytes += m.owed
	}
	return lasts(bytes, p.peak)
}

// takesMore reports whether m can get another request. One that failed and has
// not delivered since is on trial: one request at a time, and its offers do
// not count.
func (p *Plan) takesMore(now time.Duration, m *member) bool {
	if m.failures > 0 {
		return now >= m.rest && m.requests == 0
	}
	if p.spares() { // what the origin takes at once is left to it
		return m.counted && m.requests == 0 && int(p.open.Count()) > p.tune.OriginRequests*p.tune.RunPieces
	}
	return m.counted && m.requests < p.tune.Requests && m.owed < p.ahead(now, m)
}

// idleIn predicts when m will have brought what it owes and bytes more.
func idleIn(now time.Duration, m *member, bytes int64) (time.Duration, bool) {
	rate, known := m.rate.rate(now)
	if !known || rate <= 0 {
		return never, known
	}
	return lasts(m.owed+bytes, rate), true
}

// ready is a heap of members that can take requests; the first is the one that
// runs dry first. A member of unknown rate counts as dry: these are asked
// evenly.
type ready []candidate

type candidate struct {
	*member
	dry time.Duration
}

func (r ready) Len() int           { return len(r) }
func (r ready) Less(i, j int) bool { return r[i].dry < r[j].dry }
func (r ready) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *ready) Push(x any)        { *r = append(*r, x.(candidate)) }
func (r *ready) Pop() any          { l := len(*r) - 1; x := (*r)[l]; *r = (*r)[:l]; return x }

func dryIn(now time.Duration, m *member) time.Duration {
	if t, known := idleIn(now, m, 0); known {
		return t
	}
	return time.Duration(m.requests)
}

// arrivesIn predicts when another piece from m would be here. What a member that
// was not asked for a while gave then says ever less.
func (p *Plan) arrivesIn(now time.Duration, m *member) time.Duration {
	rate, known := m.rate.rate(now)
	if !known {
		return time.Duration(m.requests) * tick
	}
	t := lasts(m.owed+p.piece, rate)
	if !m.rate.running {
		t = time.Duration(float64(t) / (1 + float64(now-m.rate.until)/float64(100*time.Millisecond)))
	}
	return t
}

// holdsUp returns the test whether a piece that m offers holds up the reader.
func (p *Plan) holdsUp(m *member) func(r *request, i int) bool {
	end := p.head() + p.tune.RunPieces
	return func(_ *request, i int) bool { return i < end && m.offers(i) }
}

// slowest returns how long the slowest request in flight will take.
func (p *Plan) slowest(now time.Duration) time.Duration {
	var most time.Duration
	for _, r := range p.requests {
		if !r.stalled && !r.stream {
			most = max(most, p.expected(now, r))
		}
	}
	return most
}

// overtake returns, of all pieces that one other live request owes, or several if
// it is for the origin, the one that will be last, if that is more than twice the
// time own, and margin.
func (p *Plan) overtake(now time.Duration, by Member, own, margin time.Duration, ok func(r *request, i int) bool) (int, bool) {
	best, latest := 0, 2*own+margin
	for _, r := range p.requests {
		if r.Member == by || r.stalled || r.stream {
			continue
		}
		eta := p.expected(now, r)
		if eta <= latest {
			continue
		}
		for i := r.end() - 1; i >= r.next; i-- {
			if p.here.Test(uint(i)) || p.owed[i] > 1 && by != Origin || !ok(r, i) {
				continue
			}
			t := eta
			if p.owed[i] > 1 {
				t = p.arrives(now, i)
			}
			if t > latest {
				best, latest = i, t
				break
			}
		}
	}
	return best, latest > 2*own+margin
}

// arrives predicts how long the first of the live requests for piece i will still
// take; zero if that of one is unknown or asks the origin.
func (p *Plan) arrives(now time.Duration, i int) time.Duration {
	first := never
	for _, r := range p.requests {
		if r.stalled || i < r.next || i >= r.end() {
			continue
		}
		if r.Member == Origin {
			return 0
		}
		first = min(first, p.expected(now, r))
	}
	return first
}

// expected predicts how long a request will still take; zero if unknown.
func (p *Plan) expected(now time.Duration, r *request) time.Duration {
	if r.from != nil {
		eta, known := idleIn(now, r.from, 0)
		if !known {
			return 0
		}
		return eta
	}
	rate, known := p.origin.rate.rate(now)
	if !known {
		return 0
	}
	return lasts(p.bytes(r.First, r.Count)-r.got, rate)
}

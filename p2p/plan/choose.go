package plan

import (
	"math"
	"time"
)

// nextOpen returns the first open piece in [from, to) that ok accepts.
func (p *Plan) nextOpen(from, to int, ok func(i int) bool) (int, bool) {
	for i, found := p.open.NextSet(uint(from)); found && int(i) < to; i, found = p.open.NextSet(i + 1) {
		if ok(int(i)) {
			return int(i), true
		}
	}
	return 0, false
}

// lastOpen returns the last open piece that ok accepts.
func (p *Plan) lastOpen(ok func(i int) bool) (int, bool) {
	for i, found := p.open.PreviousSet(uint(p.pieces)); found; i, found = p.open.PreviousSet(i - 1) {
		if ok(int(i)) {
			return int(i), true
		}
		if i == 0 {
			break
		}
	}
	return 0, false
}

// run returns how many open pieces from first on ok accepts, most at most.
func (p *Plan) run(first, most int, ok func(i int) bool) int {
	n := 1
	for n < most && first+n < p.pieces && p.open.Test(uint(first+n)) && ok(first+n) {
		n++
	}
	return n
}

// choose returns the run of open pieces that m is to fetch next.
func (p *Plan) choose(now time.Duration, m *member) (first, count int, ok bool) {
	audited := p.originHelps() && p.audit.Any()
	wants := func(i int) bool {
		if audited && p.audit.Test(uint(i)) {
			return false
		}
		return m.offers(i) && (!m.far || !p.near.has(i))
	}
	if m.failures > 0 { // on trial: a piece that nobody waits for
		first, ok = p.lastOpen(wants)
		return first, 1, ok
	}
	most := p.runOf(now, m)
	end := p.pieces
	if p.near.wholes+p.far.wholes < p.near.live+p.far.live {
		end = min(end, p.head()+p.tune.Head) // behind it, rarity counts
	}
	if first, ok = p.nextOpen(0, end, wants); !ok {
		if first, ok = p.rarest(wants); !ok {
			return 0, 0, false
		}
	}
	return first, p.run(first, most, wants), true
}

// rarest returns one of the open pieces that the fewest live members offer.
func (p *Plan) rarest(wants func(i int) bool) (int, bool) {
	best, ties, fewest := 0, 0, int32(math.MaxInt32)
	for i, found := p.open.NextSet(0); found; i, found = p.open.NextSet(i + 1) {
		switch n := p.near.of[i] + p.far.of[i]; {
		case n > fewest || !wants(int(i)):
		case n < fewest:
			best, ties, fewest = int(i), 1, n
		default:
			// The k-th of equals replaces the others with probability 1/k.
			if ties++; p.rng.IntN(ties) == 0 {
				best = int(i)
			}
		}
	}
	return best, ties > 0
}

// ahead returns how many bytes should be in flight from m: what it brings in
// Tuning.Ahead, at least two pieces (one would idle for a round trip after
// each) and at most all requests at full length. A member of unknown rate gets
// single pieces, all requests at once.
func (p *Plan) ahead(now time.Duration, m *member) int64 {
	rate, known := m.rate.rate(now)
	if !known {
		return int64(p.tune.Requests) * p.piece
	}
	most := int64(p.tune.Requests*p.tune.RunPieces) * p.piece
	return min(most, max(2*p.piece, int64(rate*p.tune.Ahead.Seconds())))
}

// runOf returns the longest run, in pieces, of a request to m. Towards the end
// runs get shorter, so that members become idle at about the same time.
func (p *Plan) runOf(now time.Duration, m *member) int {
	n := int(p.ahead(now, m) / int64(p.tune.Requests) / p.piece)
	if live := p.near.live + p.far.live; live > 1 {
		n = min(n, int(p.open.Count())/(live*p.tune.Requests))
	}
	return min(p.tune.RunPieces, max(1, n))
}

// takesMore reports whether m can get another request. One that failed and has
// not delivered since is on trial: one request at a time, and its offers do
// not count.
func (p *Plan) takesMore(now time.Duration, m *member) bool {
	if m.failures > 0 {
		return now >= m.rest && m.requests == 0
	}
	return m.counted && m.requests < p.tune.Requests && m.owed < p.ahead(now, m)
}

// idleIn predicts when m will have brought what it owes and bytes more.
func idleIn(now time.Duration, m *member, bytes int64) (time.Duration, bool) {
	rate, known := m.rate.rate(now)
	if !known || rate <= 0 {
		return never, known
	}
	return min(never, time.Duration(float64(m.owed+bytes)/rate*float64(time.Second))), true
}

// never is far behind every deadline, and leaves room to calculate with.
const never = 1000 * time.Hour

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

// holdsUp returns the test whether a piece that m offers holds up the reader.
func (p *Plan) holdsUp(m *member) func(i int) bool {
	end := p.head() + p.tune.RunPieces
	return func(i int) bool { return i < end && m.offers(i) }
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

// overtake returns, of all pieces that one other live request owes, the one
// that will be last, if that is more than twice the time own, and margin.
func (p *Plan) overtake(now time.Duration, by Member, own, margin time.Duration, ok func(i int) bool) (int, bool) {
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
			if p.owed[i] == 1 && !p.here.Test(uint(i)) && ok(i) {
				best, latest = i, eta
				break
			}
		}
	}
	return best, latest > 2*own+margin
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
	if rate <= 0 {
		return never
	}
	left := float64(p.bytes(r.First, r.Count) - r.got)
	return min(never, time.Duration(left/rate*float64(time.Second)))
}

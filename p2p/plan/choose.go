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
	if !p.findCandidates(m) {
		return 0, 0, false
	}
	brings := m.far && p.shared()
	if brings && !p.bring(now) {
		return 0, 0, false
	}
	if m.failures > 0 || p.spares() { // on trial: a piece that nobody waits for
		i, _ := p.candidates.PreviousSet(uint(p.pieces - 1))
		return int(i), 1, true
	}
	most := p.runOf(now, m)
	if m.has == nil && !brings {
		if first, count, ok = p.scarce(most); ok {
			return first, count, true
		}
	}
	if first, ok = p.inOrder(); !ok {
		first = p.rarest()
	}
	return first, p.candidateRun(first, most), true
}

// findCandidates sets candidates to the open pieces that m may be asked for,
// and reports whether there are any.
func (p *Plan) findCandidates(m *member) bool {
	if m.far && p.near.wholes > 0 {
		return false
	}
	c, any := p.candidates.Words(), uint64(0)
	copy(c, p.open.Words())
	if m.has != nil {
		for k, w := range m.has.Words() {
			c[k] &= w
		}
	}
	if m.far {
		coming := p.coming.some.Words()
		for k, w := range p.near.some.Words() {
			c[k] &^= w | coming[k]
		}
	}
	if p.originHelps() && p.audit.Any() {
		for k, w := range p.audit.Words() {
			c[k] &^= w
		}
	}
	for _, w := range c {
		any |= w
	}
	return any != 0
}

// candidateRun returns the number of candidates from first on, most at most.
func (p *Plan) candidateRun(first, most int) int {
	n := 1
	for n < most && first+n < p.pieces && p.candidates.Test(uint(first+n)) {
		n++
	}
	return n
}

// inOrder returns the first candidate that is taken in order, because rarity
// says nothing of it: every member has the whole blob, or the piece is near
// the head and most members have it.
func (p *Plan) inOrder() (int, bool) {
	live, wholes := p.live(), p.wholes()
	end := p.pieces
	if wholes < live {
		end = min(end, p.head()+p.tune.Head)
	}
	for i, found := p.candidates.NextSet(0); found && int(i) < end; i, found = p.candidates.NextSet(i + 1) {
		if n := int(p.near.of[i] + p.far.of[i]); 2*(n+wholes) >= live {
			return int(i), true
		}
	}
	return 0, false
}

// rarest returns one of the candidates that the fewest live members offer. Ties
// fall differently on every node.
func (p *Plan) rarest() int {
	best, least := 0, uint64(math.MaxUint64)
	for i, found := p.candidates.NextSet(0); found; i, found = p.candidates.NextSet(i + 1) {
		n := uint64(p.near.of[i] + p.far.of[i])
		if n > least>>32 {
			continue
		}
		if x := n<<32 | mix(p.ties+uint64(i))>>32; x < least {
			best, least = int(i), x
		}
	}
	return best
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
	if live := p.live(); live > 1 {
		n = min(n, int(p.open.Count())/(live*p.tune.Requests))
	}
	return min(p.tune.RunPieces, max(1, n))
}

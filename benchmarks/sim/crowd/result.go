package crowd

import (
	"slices"
	"time"
)

// Result is what a simulation gave.
type Result struct {
	// Makespan is the time that the last machine that counts needed from its
	// start to the whole blob, Bound what no protocol can beat, and Ratio the
	// one by the other.
	Makespan, Bound time.Duration
	Ratio           float64
	// Copies is what left the origin, divided by the size of the blob.
	Copies float64
	// Inbound is what entered the zone that most entered, by the size of the
	// blob; 0 without zones.
	Inbound float64
	// Median is the time that half of those machines needed.
	Median time.Duration
	// Slowest is the time that the last machine of all needed.
	Slowest time.Duration
	Spent   Breakdown
	Counters
}

// Breakdown says where the time over the bound goes.
type Breakdown struct {
	// First is when the origin began to send.
	First time.Duration
	// Out is when the last piece had left the origin for the first time.
	Out time.Duration
	// OriginIdle is the part of the time until Out in which it sent nothing,
	// OriginTwice the part in which it sent what it had sent before.
	OriginIdle, OriginTwice time.Duration
	// End is when the last machine that counts had the blob, Tail the time
	// from Out until then.
	End, Tail time.Duration
	// Lead is the median of the time from the start of a node to its first
	// byte.
	Lead time.Duration
	// Head, Middle and Last are the means of the time in which the downlink
	// of a node had nothing to do: before it had a twentieth of the pieces,
	// until it lacked a twentieth, and then.
	Head, Middle, Last time.Duration
	// Uplinks is the mean share of the time in which uplinks were busy.
	Uplinks float64
}

// Counters count what happened.
type Counters struct {
	Events, Nexts, Tells, Connections int64
	Requests, Cancelled               int64
	// Twice is how many pieces came that were there already, Wasted how many
	// bytes came for nobody.
	Twice, Wasted int64
	Died, Lies    int64
}

// times are the times of one node, in nanoseconds.
type times struct {
	start, first, end int64
	idle              [3]int64 // head, middle, last
}

// idle notes the time for which a downlink of the node had nothing to do before a chunk.
func (n *node) idle(w *world, link *downlink, done, bytes int64) {
	from := max(link.free, n.times.start)
	gap := done - int64(float64(bytes)/link.rate*1e9) - from
	if gap <= 0 {
		return
	}
	phase := 1
	switch edge := w.cfg.Pieces / 20; {
	case n.missing > w.cfg.Pieces-edge:
		phase = 0
	case n.missing <= edge:
		phase = 2
	}
	n.times.idle[phase] += gap
}

// seen is what the origin has sent.
type seen struct {
	pieces []bool // began to be sent
	whole  []bool // was sent to its end
	left   int
	first  int64 // when the first byte left
	out    int64 // when the last piece had left
	twice  int64 // bytes until then that had been sent before
	used   int64 // how long the uplink had been busy then
}

func (s *seen) init(pieces int) {
	s.pieces, s.whole, s.left = make([]bool, pieces), make([]bool, pieces), pieces
}

// chunk notes a chunk of a piece that has left the origin, and whether it ends
// the piece.
func (w *world) left(piece int, bytes int64, begins, ends bool) {
	s := &w.seen
	if s.left == 0 {
		return
	}
	if s.first == 0 {
		s.first = w.now
	}
	if s.whole[piece] || s.pieces[piece] && begins {
		s.twice += bytes
	}
	s.pieces[piece] = true
	if ends && !s.whole[piece] {
		s.whole[piece] = true
		if s.left--; s.left == 0 {
			s.out, s.used = w.now, w.source.used
		}
	}
}

func (w *world) result() *Result {
	c := &w.cfg
	r := &Result{Bound: c.Bound(), Counters: w.counters}
	r.Copies = float64(w.source.bytes) / float64(c.size())
	for i := range w.sites {
		r.Inbound = max(r.Inbound, float64(w.sites[i].down.bytes)/float64(c.size()))
	}
	var took, leads []time.Duration
	var up float64
	s := &r.Spent
	for i := range w.nodes {
		n := &w.nodes[i]
		up += float64(n.up.used)
		if n.dead || n.machine.Seeded {
			continue
		}
		r.Slowest = max(r.Slowest, time.Duration(n.times.end-n.times.start))
		if !n.machine.counts() {
			continue
		}
		took = append(took, time.Duration(n.times.end-n.times.start))
		leads = append(leads, time.Duration(n.times.first-n.times.start))
		s.Head += time.Duration(n.times.idle[0])
		s.Middle += time.Duration(n.times.idle[1])
		s.Last += time.Duration(n.times.idle[2])
		s.End = max(s.End, time.Duration(n.times.end))
	}
	slices.Sort(took)
	slices.Sort(leads)
	count := time.Duration(len(took))
	r.Makespan, r.Median = took[count-1], took[count/2]
	r.Ratio = float64(r.Makespan) / float64(r.Bound)
	s.Head, s.Middle, s.Last = s.Head/count, s.Middle/count, s.Last/count
	s.Lead = leads[count/2]
	s.Uplinks = up / float64(w.now) / float64(len(w.nodes))
	if w.seen.left == 0 {
		s.First, s.Out = time.Duration(w.seen.first), time.Duration(w.seen.out)
		s.OriginIdle = time.Duration(w.seen.out - w.seen.used)
		s.OriginTwice = time.Duration(float64(w.seen.twice) / c.Origin * 1e9)
		s.Tail = s.End - s.Out
	}
	return r
}

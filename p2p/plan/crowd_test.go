package plan

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// crowd is many plans in one virtual world: nodes with an uplink and a
// downlink, one origin whose link they share, and states that are told to
// neighbours a little later. Like world it calls Next only after events and
// when NextWake says so.
type crowd struct {
	t        *testing.T
	rng      *rand.Rand
	pieces   int
	delay    time.Duration // one way
	now      time.Duration
	events   events
	seq      int
	nodes    []*peer
	origin   link
	unranged bool
	hangs    time.Duration // before the origin begins an answer

	bytes    int64                  // that left the origin
	limit    time.Duration          // of the whole
	unwanted int                    // pieces delivered twice
	sent     func(p *peer, n int64) // if set, told of what nodes send
}

// peer is one node of a crowd.
type peer struct {
	c          *crowd
	id         int // also its Member, plus one
	plan       *Plan
	up, down   link
	start      time.Duration // of its fill
	ended      time.Duration
	fetched    int64 // from the origin
	open       map[ID]*transfer
	neighbours []*peer
	volunteer  bool
	lies       bool // whatever it gives is wrong
	mute       bool // begins no answer
	useless    bool // claims and volunteers, and does nothing
	seed       bool
	aside      bool // not waited for
	dead       bool
	told       time.Duration
	telling    bool
	wake       time.Duration
	begun      bool
}

const gbit = 125 * mb

// newCrowd returns n nodes with links of one Gbit/s, all neighbours of each
// other, and an origin of the given rate.
func newCrowd(t *testing.T, n, pieces int, origin float64, seed uint64) *crowd {
	t.Helper()
	c := &crowd{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), pieces: pieces, delay: time.Millisecond,
		origin: link{rate: origin}, limit: time.Hour,
	}
	for i := range n {
		c.add(i, seed)
	}
	return c
}

func (c *crowd) add(i int, seed uint64) *peer {
	p := &peer{c: c, id: i, open: map[ID]*transfer{}, volunteer: true, up: link{rate: gbit}, down: link{rate: gbit}}
	p.plan = New(Config{
		Size: int64(c.pieces)*testPiece - testPiece/3, PieceSize: testPiece,
		Self: mix(seed<<32 + uint64(i)), Key: mix(seed), Volunteer: true, Seed: uint64(i), Tuning: Defaults(),
	})
	c.nodes = append(c.nodes, p)
	return p
}

// full makes everybody a neighbour of everybody.
func (c *crowd) full() {
	for _, p := range c.nodes {
		for _, q := range c.nodes {
			if p != q {
				p.neighbours = append(p.neighbours, q)
			}
		}
	}
}

// graph gives every node degree random neighbours (and so about twice as many,
// as neighbours are mutual); volunteers, about 24, know each other and are
// known to everybody.
func (c *crowd) graph(degree int) {
	n := len(c.nodes)
	known := make([]map[*peer]bool, n)
	for i := range known {
		known[i] = map[*peer]bool{}
	}
	meet := func(p, q *peer) {
		if p == q || known[p.id][q] {
			return
		}
		known[p.id][q], known[q.id][p] = true, true
		p.neighbours = append(p.neighbours, q)
		q.neighbours = append(q.neighbours, p)
	}
	for i, p := range c.nodes {
		p.volunteer = i < 24
		p.plan.Volunteer(p.volunteer)
	}
	for i := range min(n, 24) {
		for k := range i {
			meet(c.nodes[i], c.nodes[k])
		}
	}
	for _, p := range c.nodes {
		for range degree {
			meet(p, c.nodes[c.rng.IntN(n)])
		}
	}
}

func (c *crowd) at(t time.Duration, do func()) {
	c.seq++
	heap.Push(&c.events, event{at: max(t, c.now), seq: c.seq, do: do})
}

// run drives all nodes until every fill of a node that lives has ended, and
// returns the time of the last.
func (c *crowd) run() time.Duration {
	c.t.Helper()
	for _, p := range c.nodes {
		c.at(p.start, func() { p.begin() })
	}
	var last time.Duration
	for !c.done(&last) {
		if len(c.events) == 0 {
			c.report()
			c.t.Fatalf("at %v: nothing will ever happen", c.now)
		}
		e := heap.Pop(&c.events).(event)
		if c.now = e.at; c.now > c.limit {
			c.report()
			c.t.Fatalf("not done after %v", c.now)
		}
		e.do()
	}
	return last
}

func (c *crowd) done(last *time.Duration) bool {
	if c.seq%16 != 0 && len(c.events) > 0 {
		return false
	}
	*last = 0
	for _, p := range c.nodes {
		if p.dead || p.useless || p.seed || p.aside {
			continue
		}
		if !p.plan.Done() {
			return false
		}
		*last = max(*last, p.ended-p.start)
	}
	return true
}

func (c *crowd) report() {
	for _, p := range c.nodes {
		if !p.dead && !p.useless && !p.plan.Done() && len(c.nodes) < 50 {
			w, ok := p.plan.NextWake(c.now)
			c.t.Logf("node %d: %d missing, %d in flight, first %v, serving %v wake %v %v", p.id, p.plan.Missing(), len(p.open), p.plan.origin.first, p.plan.serving(), w, ok)
		}
	}
}

// copies is how many times the blob left the origin.
func (c *crowd) copies() float64 { return float64(c.bytes) / float64(c.nodes[0].plan.size) }

// begin starts the fill: who runs already is met after a round trip.
func (p *peer) begin() {
	if p.begun = true; p.dead {
		return
	}
	c := p.c
	fresh := p.plan.owners.idle == 0
	for _, q := range p.neighbours {
		if !q.begun || q.dead {
			continue
		}
		c.at(c.now+2*c.delay, func() { p.meet(q); p.next() })
		c.at(c.now+c.delay, func() { q.meet(p); q.next() })
	}
	if !p.useless && !p.seed && fresh {
		p.plan.OriginFrom(c.now+20*time.Millisecond, 0)
		p.next()
	}
}

func (p *peer) meet(q *peer) {
	if p.dead || q.dead || p.seed || p.useless {
		return
	}
	p.plan.Join(Member(q.id+1), q.plan.owners.self, false)
	p.plan.Told(p.c.now, Member(q.id+1), q.state())
}

func (p *peer) state() State {
	if p.seed {
		return State{Whole: true}
	}
	s := State{
		Whole: p.plan.Done(), Has: p.plan.here.Clone(), Claims: p.plan.Claims().Clone(), Progress: p.fetched,
		Volunteer: p.volunteer, Origin: p.plan.Serving(),
	}
	if p.useless {
		s = State{Volunteer: true, Claims: bitset.New(uint(p.c.pieces)).SetRange(0, uint(p.c.pieces)/2)}
	}
	return s
}

// tell has the neighbours know what changed, at most every 10 ms.
func (p *peer) tell() {
	if p.telling || p.dead {
		return
	}
	c := p.c
	p.telling = true
	c.at(max(c.now, p.told+10*time.Millisecond), func() {
		p.telling, p.told = false, c.now
		if p.dead {
			return
		}
		s := p.state()
		c.at(c.now+c.delay, func() {
			for _, q := range p.neighbours {
				if q.begun && !q.dead && !q.useless && !q.seed && q.plan.members[Member(p.id+1)] != nil {
					q.plan.Told(c.now, Member(p.id+1), s)
					q.next()
				}
			}
		})
	})
}

// dies takes a node out at a time; its neighbours notice by and by, or if it
// hangs not at all.
func (p *peer) dies(at time.Duration, hangs bool) {
	p.c.at(at, func() {
		p.dead = true
		if hangs {
			return
		}
		for _, q := range p.neighbours {
			p.c.at(p.c.now+p.c.delay, func() { q.lose(p) })
		}
	})
}

func (p *peer) lose(q *peer) {
	if p.dead || p.plan.members[Member(q.id+1)] == nil {
		return
	}
	p.plan.Gone(p.c.now, Member(q.id+1))
	for id, tr := range p.open {
		if tr.Member == Member(q.id+1) {
			delete(p.open, id)
		}
	}
	p.next()
}

// next carries out what the plan wants.
func (p *peer) next() {
	c := p.c
	if p.dead || p.useless || p.seed || p.plan.Done() {
		return
	}
	o := p.plan.Next(c.now, Room{Members: 1000, Origin: 1000})
	changed := len(o.Cancel) > 0
	for _, id := range o.Cancel {
		delete(p.open, id)
	}
	for _, r := range o.Start {
		tr := &transfer{Request: r, piece: r.First}
		p.open[r.ID] = tr
		if h := (&haul{to: p, transfer: tr}); r.Member == Origin {
			changed = true
			c.at(c.now+c.delay+c.hangs, func() { c.serve(&c.origin, h) })
		} else {
			h.from = c.nodes[r.Member-1]
			h.lies = h.from.lies
			c.at(c.now+c.delay, func() {
				if !h.from.dead && !h.from.mute {
					c.serve(&h.from.up, h)
				}
			})
		}
	}
	if changed {
		p.tell()
	}
	if wake, ok := p.plan.NextWake(c.now); ok && (p.wake <= c.now || wake < p.wake) {
		p.wake = wake
		c.at(wake, func() {
			if p.wake == c.now {
				p.next()
			}
		})
	}
}

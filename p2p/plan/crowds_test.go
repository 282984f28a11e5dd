package plan

import (
	"math/rand/v2"
	"testing"
	"time"
)

// outcome of a crowd, as parts of what is possible.
type outcome struct{ makespan, copies float64 }

// end runs a crowd to its end, and fails if it took longer, or more from the
// origin, than most.
func (c *crowd) end(name string, most outcome) {
	c.t.Helper()
	got := outcome{c.run().Seconds() / spent(c.nodes[0].plan.size, c.origin.rate).Seconds(), c.copies()}
	if got.makespan > most.makespan || got.copies > most.copies {
		c.t.Errorf("%s: %.3f of the bound, %.3f copies; want at most %v", name, got.makespan, got.copies, most)
	}
}

func TestColdCrowd(t *testing.T) {
	for _, n := range []int{1, 2, 3, 6, 12} {
		for seed := range uint64(3) {
			c := newCrowd(t, n, 381, 25*mb, seed)
			c.full()
			c.end("cold crowd", outcome{1.03, 1.01})
			if c.unwanted > 0 {
				t.Errorf("%d pieces came twice to somebody", c.unwanted)
			}
		}
	}
}

func TestCrowdAtTheRateOfItsLinks(t *testing.T) {
	c := newCrowd(t, 6, 381, gbit, 1)
	c.full()
	c.end("as fast as a link", outcome{1.12, 1.02})
}

// Two nodes share the origin's link, and each has half of it: that must not
// look as if the swarm were slow.
func TestTwoNodesStayTogether(t *testing.T) {
	for seed := range uint64(5) {
		c := newCrowd(t, 2, 600, 25*mb, seed)
		c.full()
		watch(c, func() {
			for _, p := range c.nodes {
				if p.plan.origin.first {
					t.Fatalf("at %v node %d has left the swarm", c.now, p.id)
				}
			}
		})
		c.end("two nodes", outcome{1.02, 1.003})
	}
}

// watch looks at the crowd every 50 ms.
func watch(c *crowd, look func()) {
	c.at(c.now+50*time.Millisecond, func() {
		look()
		watch(c, look)
	})
}

func TestSmallBlobs(t *testing.T) {
	for pieces := 1; pieces <= 8; pieces++ {
		c := newCrowd(t, 12, pieces, 25*mb, uint64(pieces))
		c.full()
		took := c.run()
		if direct := spent(c.nodes[0].plan.size, 25*mb); took > direct+300*time.Millisecond {
			t.Errorf("%d pieces took %v, one node alone takes %v", pieces, took, direct)
		}
		if c.copies() > 1.001 {
			t.Errorf("%.3f copies of %d pieces", c.copies(), pieces)
		}
	}
}

func TestPartialViews(t *testing.T) {
	for seed := range uint64(2) {
		c := newCrowd(t, 60, 300, gbit, seed)
		c.graph(6)
		c.end("everybody knows a dozen", outcome{1.35, 1.03})
	}
}

// Owners that do not know each other fetch the same; what they have in common
// is told by others.
func TestOwnersThatDoNotKnowEachOther(t *testing.T) {
	c := newCrowd(t, 12, 200, 25*mb, 1)
	for i, p := range c.nodes {
		for d := range 3 { // a ring of which everybody sees six
			q := c.nodes[(i+d+1)%12]
			p.neighbours, q.neighbours = append(p.neighbours, q), append(q.neighbours, p)
		}
	}
	c.end("ring", outcome{1.8, 1.8})
}

func TestNodesDie(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		for seed := range uint64(3) {
			c := newCrowd(t, 6, 381, 25*mb, seed)
			c.full()
			for i, p := range c.nodes[:3] {
				p.dies(8*time.Second+time.Duration(i)*100*time.Millisecond, hangs)
			}
			c.end("half of them die", outcome{1.15, 1.15})
		}
	}
}

// The node whose turn it is to ask the origin first is dead, or never does.
func TestFirstOwnerNeverAsks(t *testing.T) {
	for seed := range uint64(4) {
		c := newCrowd(t, 6, 40, 25*mb, seed)
		c.full()
		for _, p := range c.nodes[:2] {
			p.useless = true
		}
		c.end("two do nothing", outcome{2.2, 1.2})
	}
}

func TestSlowOwners(t *testing.T) {
	for seed := range uint64(3) {
		c := newCrowd(t, 6, 381, 25*mb, seed)
		c.full()
		c.nodes[0].up.rate, c.nodes[0].down.rate = 1.5*mb, 1.5*mb
		c.nodes[0].aside = true
		c.end("one at a hundredth", outcome{1.15, 1.06})
	}
}

func TestLateJoiners(t *testing.T) {
	for seed := range uint64(3) {
		c := newCrowd(t, 6, 381, 25*mb, seed)
		c.full()
		for i, p := range c.nodes {
			p.start = time.Duration(i) * 2 * time.Second
		}
		c.end("spread over 10 s", outcome{1.02, 1.01})
	}
}

func TestLiars(t *testing.T) {
	for seed := range uint64(3) {
		c := newCrowd(t, 6, 381, 25*mb, seed)
		c.full()
		c.nodes[0].lies, c.nodes[1].mute = true, true
		c.end("one lies, one says nothing", outcome{1.6, 1.6})
	}
}

func TestSeededCrowd(t *testing.T) {
	c := newCrowd(t, 6, 381, gbit, 1)
	c.full()
	c.nodes[5].seed = true
	left := int64(0)
	c.sent = func(p *peer, n int64) {
		if p.seed {
			left += n
		}
	}
	took := c.run()
	bound := spent(c.nodes[0].plan.size, gbit)
	if took > bound*125/100 || c.bytes > 0 {
		t.Errorf("took %v of %v, %d bytes from the origin", took, bound, c.bytes)
	}
	if n := float64(left) / float64(c.nodes[0].plan.size); n > 1.18 {
		t.Errorf("each piece left the seed %.2f times", n)
	}
}

func TestOriginWithoutRangesInACrowd(t *testing.T) {
	for seed := range uint64(3) {
		c := newCrowd(t, 6, 381, 25*mb, seed)
		c.full()
		c.unranged = true
		c.end("one streams", outcome{1.03, 1.01})
	}
	// Who streams dies in the middle: another begins anew.
	c := newCrowd(t, 6, 381, 25*mb, 1)
	c.full()
	c.unranged = true
	c.at(8*time.Second, func() {
		for _, p := range c.nodes {
			if p.plan.origin.requests > 0 {
				p.dies(c.now, false)
			}
		}
	})
	c.end("the stream dies", outcome{1.6, 1.6})
}

// Nodes that begin before they know each other all get a stream; one goes on.
func TestStreamsThatBeganApart(t *testing.T) {
	c := newCrowd(t, 6, 381, 25*mb, 1)
	c.unranged = true
	c.at(time.Second, func() {
		c.full()
		for _, p := range c.nodes {
			p.begin()
		}
	})
	c.end("apart for a second", outcome{1.12, 1.12})
}

// An origin that takes its time to answer is not asked by everybody meanwhile.
func TestOriginThatBeginsLate(t *testing.T) {
	c := newCrowd(t, 12, 100, 25*mb, 1)
	c.full()
	c.hangs = 3 * time.Second
	c.run()
	if c.copies() > 1.2 {
		t.Errorf("%.3f copies", c.copies())
	}
}

// Whatever happens, everybody who lives ends.
func TestCrowdsEnd(t *testing.T) {
	for seed := range uint64(15) {
		rng := rand.New(rand.NewPCG(seed, 3))
		n := 2 + rng.IntN(30)
		c := newCrowd(t, n, 1+rng.IntN(150), (2+rng.Float64()*100)*mb, seed)
		c.limit = 10 * time.Minute
		c.unranged = rng.IntN(4) == 0
		c.graph(1 + rng.IntN(8))
		for _, p := range c.nodes[1:] {
			p.start = time.Duration(rng.IntN(2000)) * time.Millisecond
			when := p.start + time.Duration(rng.IntN(4000))*time.Millisecond
			switch rng.IntN(10) {
			case 0:
				p.dies(when, false)
			case 1:
				p.dies(when, true)
			case 2:
				p.lies = true
			case 3:
				p.useless = true
			case 4:
				p.mute = true
			case 5:
				p.up.rate, p.down.rate = mb, mb
			}
		}
		c.run()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

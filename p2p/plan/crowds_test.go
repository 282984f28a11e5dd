package plan

import (
	"testing"
	"time"
)

// outcome of a crowd, as parts of what is possible.
type outcome struct{ makespan, copies float64 }

func (c *crowd) outcome() outcome {
	took := c.run()
	return outcome{took.Seconds() / spent(c.nodes[0].plan.size, c.origin.rate).Seconds(), c.copies()}
}

func (o outcome) within(t *testing.T, name string, most outcome) {
	t.Helper()
	if o.makespan > most.makespan || o.copies > most.copies {
		t.Errorf("%s: makespan %.3f of the bound, %.3f copies; want at most %v and %v", name, o.makespan, o.copies, most.makespan, most.copies)
	}
}

func TestColdCrowd(t *testing.T) {
	for _, n := range []int{1, 2, 6, 12} {
		c := newCrowd(t, n, 381, 25*mb, 1)
		c.full()
		c.outcome().within(t, "cold crowd", outcome{1.03, 1.01})
	}
}

func TestHalfOfACrowdDies(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		c := newCrowd(t, 6, 381, 25*mb, 1)
		c.full()
		for _, p := range c.nodes[:3] {
			p.dies(5*time.Second, hangs)
		}
		c.outcome().within(t, "half dies", outcome{1.3, 1.3})
	}
}

func TestPartialViews(t *testing.T) {
	c := newCrowd(t, 40, 200, 125*mb, 1)
	c.graph(8)
	c.outcome().within(t, "graph", outcome{1.5, 1.1})
}

package crowd

import (
	"testing"
	"time"

	"shoal/p2p/plan"
)

// step handles events until done, or fails after a second of virtual time.
func step(t *testing.T, w *world, done func() bool) {
	t.Helper()
	for !done() {
		if len(w.queue.heap) == 0 || w.now > int64(time.Second) {
			t.Fatal("it does not happen")
		}
		e := w.queue.pop()
		w.now = e.at
		w.handle(&e)
	}
}

func TestWhoAskedTooEarlyIsAskedBack(t *testing.T) {
	c := small(2, 8)
	c.Machines[1].Start = 100 * time.Millisecond
	c.Costs.Ask = 0 // nobody asks of itself
	w := newWorld(c)
	a, b := &w.nodes[0], &w.nodes[1]
	step(t, w, func() bool { return a.plan != nil })
	w.ask(a, b.id)
	step(t, w, func() bool { return len(b.remembers) == 1 })
	step(t, w, func() bool { return b.plan != nil })
	if p := b.members[a.id]; p == nil || !p.asked {
		t.Error("the one that asked before is not asked when the fill starts")
	}
}

func TestFollowersAreBounded(t *testing.T) {
	c := small(30, 64)
	c.Costs.Followers = 3
	w := newWorld(c)
	most := 0
	step(t, w, func() bool {
		for i := range w.nodes {
			if n := &w.nodes[i]; !n.volunteer { // those follow each other besides
				most = max(most, len(n.followers))
			}
		}
		return w.now > int64(300*time.Millisecond)
	})
	if most != 3 {
		t.Errorf("%d followers at most, want 3", most)
	}
}

func TestDegreesAreBounded(t *testing.T) {
	c := small(60, 64)
	c.Costs.Degree, c.Costs.VolunteerDegree = 5, 9
	w := newWorld(c)
	step(t, w, func() bool { return w.now > int64(300*time.Millisecond) })
	volunteers := 0
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.others[0] > 5 || n.joined < 3 || n.joined > 5 && !n.volunteer || n.joined-n.others[0] > 9 {
			t.Errorf("node %d has %d members, %d of them volunteers besides; volunteer: %v", i, n.joined, n.joined-n.others[0], n.volunteer)
		}
		if n.volunteer {
			volunteers++
		}
	}
	if volunteers < 12 || volunteers > 40 {
		t.Errorf("%d volunteers, want about 24", volunteers)
	}
}

// A death is noticed after the latency, or, if nobody is told, when the state
// stays away.
func TestDeathsAreNoticed(t *testing.T) {
	for _, silent := range []bool{false, true} {
		c := small(3, 1000)
		died := 100 * time.Millisecond
		c.Machines[2].Dies, c.Machines[2].Silent = died, silent
		w := newWorld(c)
		knows := func(i int) bool {
			p := w.nodes[i].members[2]
			return p != nil && p.joined
		}
		step(t, w, func() bool { return w.nodes[2].dead })
		if !knows(0) || !knows(1) {
			t.Fatal("the others never had it in their plans")
		}
		want := died + c.Latency
		if silent {
			want = died + c.Tuning.DeadAfter
		}
		for w.now < int64(want)+1 {
			if w.now < int64(want) && (!knows(0) || !knows(1)) {
				t.Fatalf("noticed at %v, before %v", w.time(), want)
			}
			e := w.queue.pop()
			w.now = e.at
			w.handle(&e)
		}
		if knows(0) || knows(1) {
			t.Errorf("silent %v: not noticed at %v", silent, want)
		}
	}
}

// A connection costs three round trips and both processors, once.
func TestConnectionsCost(t *testing.T) {
	r := newRig(Gbit, Gbit)
	c := &r.cfg.Costs
	var arrived []time.Duration
	for range 2 {
		i := r.begin(&r.nodes[0], 1, plan.Request{Count: 1})
		r.hold(r.hold(i))
		r.dial(&r.nodes[0], 1, i)
	}
	for len(arrived) < 2 {
		e := r.queue.pop()
		r.now = e.at
		if e.kind == evArrive {
			arrived = append(arrived, r.time())
			continue
		}
		r.handle(&e)
	}
	want := 2*c.Handshake + 7*testLatency
	if arrived[0] != want || arrived[1] != want+c.Handshake {
		t.Errorf("requests arrive at %v, want %v and %v later", arrived, want, c.Handshake)
	}
}

// Who arrives late must be chosen by others, too: else it gives nothing.
func TestLateArrivalsGiveTheirShare(t *testing.T) {
	c := small(100, 200)
	for i := range c.Machines {
		c.Machines[i].Start = time.Duration(i) * 10 * time.Millisecond
	}
	w := newWorld(c)
	for w.pending > 0 {
		e := w.queue.pop()
		w.now = e.at
		w.handle(&e)
	}
	idle := 0
	for i := range w.nodes[:80] {
		if w.nodes[i].up.bytes < c.size()/10 {
			idle++
		}
	}
	if idle > 10 {
		t.Errorf("%d of the first 80 nodes gave less than a tenth of the blob", idle)
	}
}

// Nodes with enough members ask nobody's processor for a lookup.
func TestLookupsAreForThoseWhoNeedThem(t *testing.T) {
	w := newWorld(small(200, 64))
	step(t, w, func() bool { return w.now > int64(200*time.Millisecond) })
	visited := 0
	for i := range w.nodes {
		if w.nodes[i].visited {
			visited++
		}
	}
	if visited < 5 || visited > 60 {
		t.Errorf("%d of 200 nodes looked into the DHT; volunteers are about 14", visited)
	}
}

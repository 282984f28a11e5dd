package crowd

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"shoal/p2p/plan"
)

// rig is a world without planners: transfers are started by hand and what
// passes the downlinks is noted.
type rig struct {
	*world
	ended map[int32]time.Duration // by transfer
	came  map[int32]int64         // bytes by node
}

const testLatency = 5 * time.Millisecond

// newRig makes nodes of the given rates. Transfers cost no connections.
func newRig(rates ...float64) *rig {
	c := Default(len(rates))
	c.Latency = testLatency
	for i, r := range rates {
		c.Machines[i].Link = r
	}
	w := newWorld(c)
	w.queue = queue{} // nobody starts a fill
	return &rig{world: w, ended: map[int32]time.Duration{}, came: map[int32]int64{}}
}

// ask has a node ask another (or the origin) for pieces, in d from now.
func (r *rig) ask(asker, server int32, pieces int) int32 {
	i := r.begin(&r.nodes[asker], server, plan.Request{Count: pieces})
	r.hold(r.hold(i))
	r.push(event{at: r.now + int64(r.cfg.Latency), kind: evArrive, a: i})
	return i
}

// run handles all events, as world does, but for those of planners.
func (r *rig) run() {
	for len(r.queue.heap) > 0 {
		e := r.queue.pop()
		r.now = e.at
		if e.kind != evDrained {
			r.handle(&e)
			continue
		}
		t := &r.transfers[e.a]
		r.unpark(r.downlink(t.server, t.asker))
		t.got += int64(e.c)
		r.came[t.asker] += int64(e.c)
		if t.got == t.size {
			r.ended[e.a] = r.time()
			r.close(e.a)
		}
		r.unref(e.a)
	}
}

// near fails the test if got is not within two hundredths of want: turns have a length.
func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if diff := (got - want).Abs(); diff > want/50 {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// at returns how long bytes take at a rate.
func at(bytes int64, rate float64) time.Duration {
	return time.Duration(float64(bytes) / rate * float64(time.Second))
}

const mib = 1 << 20

func TestASingleTransferTakesSizeByRateAndLatency(t *testing.T) {
	for _, c := range []struct {
		name  string
		rates []float64
		slow  float64
	}{
		{"equal links", []float64{Gbit, Gbit}, Gbit},
		{"slow receiver", []float64{Gbit / 10, Gbit}, Gbit / 10},
		{"slow sender", []float64{Gbit, Gbit / 4}, Gbit / 4},
	} {
		r := newRig(c.rates...)
		i := r.ask(0, 1, 16)
		r.run()
		// The request and the bytes take the latency once each.
		near(t, c.name, r.ended[i], 2*testLatency+at(16*mib, c.slow))
	}
}

func TestTheOriginHasARateOfItsOwn(t *testing.T) {
	r := newRig(Gbit)
	r.source.rate = Gbit / 5
	i := r.ask(0, origin, 16)
	r.run()
	near(t, "from the origin", r.ended[i], 2*testLatency+at(16*mib, Gbit/5))
	if r.source.bytes != 16*mib {
		t.Errorf("%d bytes left the origin", r.source.bytes)
	}
}

func TestRequestsShareAnUplinkFairly(t *testing.T) {
	r := newRig(Gbit, Gbit, Gbit)
	first, second := r.ask(0, 2, 16), r.ask(1, 2, 16)
	r.run()
	near(t, "first", r.ended[first], 2*testLatency+at(32*mib, Gbit))
	near(t, "second", r.ended[second], 2*testLatency+at(32*mib, Gbit))

	// A short one between long ones waits for its share, not for their ends.
	r = newRig(Gbit, Gbit, Gbit)
	r.ask(0, 2, 64)
	short := r.ask(1, 2, 1)
	r.run()
	near(t, "short", r.ended[short], 2*testLatency+at(2*mib, Gbit))
}

func TestADownlinkIsSharedByItsSenders(t *testing.T) {
	r := newRig(Gbit, Gbit, Gbit)
	first, second := r.ask(0, 1, 16), r.ask(0, 2, 16)
	r.run()
	near(t, "first", r.ended[first], 2*testLatency+at(32*mib, Gbit))
	near(t, "second", r.ended[second], 2*testLatency+at(32*mib, Gbit))
}

// A sender whose receiver is slow has the rest of its uplink for others.
func TestACongestedReceiverDoesNotHoldUpOthers(t *testing.T) {
	r := newRig(Gbit/10, Gbit, Gbit)
	slow, fast := r.ask(0, 2, 16), r.ask(1, 2, 16)
	r.run()
	near(t, "slow", r.ended[slow], 2*testLatency+at(16*mib, Gbit/10))
	limit := 2*testLatency + at(16*mib+4*mib, Gbit)
	if r.ended[fast] > limit {
		t.Errorf("the fast one took %v, more than %v", r.ended[fast], limit)
	}
}

func TestBytesAreConserved(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	rates := make([]float64, 20)
	for i := range rates {
		rates[i] = Gbit / float64(1+rng.IntN(10))
	}
	r := newRig(rates...)
	want := map[int32]int64{}
	var all []int32
	for range 200 {
		asker, server := int32(rng.IntN(20)), int32(rng.IntN(20))
		if asker == server {
			server = origin
		}
		pieces := 1 + rng.IntN(4)
		all = append(all, r.ask(asker, server, pieces))
		want[asker] += int64(pieces) * mib
	}
	r.run()
	var left int64
	for i := range r.nodes {
		left += r.nodes[i].up.bytes
		if r.came[int32(i)] != want[int32(i)] {
			t.Errorf("node %d had %d bytes, want %d", i, r.came[int32(i)], want[int32(i)])
		}
		if took, least := r.nodes[i].down.free, at(want[int32(i)], rates[i]); time.Duration(took) < least {
			t.Errorf("node %d had its bytes after %v, faster than its link: %v", i, time.Duration(took), least)
		}
	}
	left += r.source.bytes
	for _, n := range want {
		left -= n
	}
	if left != 0 || len(r.ended) != len(all) {
		t.Errorf("%d bytes left that did not arrive; %d transfers of %d ended", left, len(r.ended), len(all))
	}
	if len(r.freed) != len(r.transfers) {
		t.Errorf("%d of %d transfers are still referred to", len(r.transfers)-len(r.freed), len(r.transfers))
	}
}

// A transfer that is given up takes no more of the uplink than the chunk
// that is being sent, and its place is used again.
func TestAClosedTransferStops(t *testing.T) {
	r := newRig(Gbit, Gbit)
	i := r.ask(0, 1, 64)
	r.push(event{at: int64(50 * time.Millisecond), kind: evAim, a: 0}) // something to stop at
	for r.now < int64(50*time.Millisecond) {
		e := r.queue.pop()
		r.now = e.at
		if e.kind == evDrained {
			r.unref(e.a)
		} else {
			r.handle(&e)
		}
	}
	r.close(i)
	before := r.nodes[1].up.bytes
	r.run()
	if sent := r.nodes[1].up.bytes - before; sent > 0 {
		t.Errorf("%d more bytes were sent after the end", sent)
	}
	if !slices.Contains(r.freed, i) {
		t.Error("the transfer is still referred to")
	}
}

func TestEventsComeInTheirOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var q queue
	for i := range 1000 {
		q.push(event{at: int64(rng.IntN(50)), a: int32(i)})
		if i%3 == 0 {
			q.pop()
		}
	}
	last := event{}
	for len(q.heap) > 0 {
		e := q.pop()
		if e.at < last.at || e.at == last.at && e.seq < last.seq {
			t.Fatalf("%v (%d) after %v (%d)", e.at, e.seq, last.at, last.seq)
		}
		last = e
	}
}

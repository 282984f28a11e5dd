package crowd

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// origin is the number of the origin among the servers; nodes count from 0.
const origin int32 = -1

// world is the state of a simulation.
type world struct {
	cfg   Config
	rng   *rand.Rand
	now   int64 // nanoseconds of virtual time
	queue queue

	nodes  []node
	source uplink // the origin's
	sites  []site

	transfers []transfer
	freed     []int32 // transfers that can be used again
	snaps     []snapshot
	freeSnaps []int32

	records  []record // in the DHT
	holders  int64    // when the holders of the record have time again
	pending  int      // nodes whose fill has not ended
	seen     seen     // what the origin has sent
	counters Counters
}

// record says that a node fills the blob.
type record struct {
	at   int64
	node int32
}

// Run simulates the crowd until every node that lives has the blob.
func Run(c Config) (*Result, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	w := newWorld(c)
	limit := int64(200*c.Bound() + time.Minute)
	for w.pending > 0 {
		if len(w.queue.heap) == 0 || w.now > limit {
			return nil, fmt.Errorf("at %v %d of %d fills have not ended", time.Duration(w.now), w.pending, len(c.Machines))
		}
		e := w.queue.pop()
		w.now = e.at
		w.counters.Events++
		w.handle(&e)
	}
	return w.result(), nil
}

func newWorld(c Config) *world {
	w := &world{
		cfg: c, rng: rand.New(rand.NewPCG(c.Seed, 0)),
		nodes: make([]node, len(c.Machines)), source: uplink{rate: c.Origin}, sites: make([]site, c.Zones),
	}
	for i := range w.sites {
		w.sites[i] = site{up: uplink{rate: c.Uplink}, down: downlink{rate: c.Uplink}}
	}
	w.seen.init(c.Pieces)
	w.connect()
	for i, m := range c.Machines {
		n := &w.nodes[i]
		n.init(w, int32(i))
		if m.Dies > 0 {
			w.push(event{at: int64(m.Dies), kind: evDie, a: int32(i)})
		}
		if m.Seeded {
			n.whole, n.missing = true, 0
			w.records = append(w.records, record{0, n.id})
			continue
		}
		w.pending++
		w.push(event{at: int64(m.Start), kind: evStart, a: int32(i)})
	}
	return w
}

// connect draws who is connected to whom: everybody within a small zone, and
// Costs.Connected others.
func (w *world) connect() {
	n, c := len(w.nodes), w.cfg.Costs.Connected
	link := func(i, j int) {
		if w.cfg.Apart && w.far(int32(i), int32(j)) {
			return
		}
		w.nodes[i].connected = append(w.nodes[i].connected, int32(j))
	}
	for i := range w.nodes {
		known := &w.nodes[i].connected
		if n-1 <= c {
			for _, j := range w.rng.Perm(n) {
				if j != i {
					link(i, j)
				}
			}
			w.sort(int32(i), *known)
			continue
		}
		for range c / 2 {
			if j := w.rng.IntN(n); j != i && !w.mate(int32(i), int32(j)) {
				link(i, j)
				link(j, i)
			}
		}
	}
	for i := 0; n-1 > c && i < n; i++ {
		known := w.nodes[i].connected
		w.rng.Shuffle(len(known), func(a, b int) { known[a], known[b] = known[b], known[a] })
		for j := range w.nodes {
			if j != i && w.mate(int32(i), int32(j)) {
				w.nodes[i].connected = append(w.nodes[i].connected, int32(j))
			}
		}
		w.sort(int32(i), w.nodes[i].connected)
	}
}

func (w *world) push(e event) { w.queue.push(e) }

// after pushes an event that happens in d.
func (w *world) after(d time.Duration, e event) {
	e.at = w.now + int64(d)
	w.queue.push(e)
}

func (w *world) time() time.Duration { return time.Duration(w.now) }

// rank is the identity of a node in the hashes of the planner.
func (w *world) rank(i int32) uint64 { return mix(w.cfg.Seed<<32 + uint64(i) + 1) }

// mix is the finaliser of SplitMix64: every bit of x moves half of the bits.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (w *world) handle(e *event) {
	switch e.kind {
	case evArrive, evSent, evDrained:
		w.handleTransfer(e)
		return
	case evKnock:
		w.knock(e.a, e.b, e.c)
		return
	}
	n := &w.nodes[e.a]
	if n.dead {
		return
	}
	switch e.kind {
	case evStart:
		n.start(w)
	case evNext:
		n.nextAt = 0
		n.next(w)
	case evWake:
		if n.wakeAt == e.at {
			n.wakeAt = 0
			n.next(w)
		}
	case evTell:
		n.tell(w)
	case evTold:
		w.told(n, e.b)
	case evMeet:
		if n.plan != nil {
			w.ask(n, e.b)
		}
	case evBroken:
		w.leave(n, e.b)
	case evAim:
		w.aim(n)
	case evFollow:
		w.follow(n, e.b)
	case evAnswer:
		w.answered(n, e.b, e.c)
	case evProvided:
		w.records = append(w.records, record{w.now, e.a})
		w.look(n, 1) // who has written reads, to see who wrote before
	case evLook:
		w.look(n, e.b)
	case evServed:
		w.after(w.cfg.Latency, event{kind: evFound, a: e.a, b: e.b, c: int32(len(w.records))})
	case evFound:
		w.found(n, e.b, int(e.c))
	case evDie:
		w.die(n)
	}
}

// aim lets the planner ask the origin.
func (w *world) aim(n *node) {
	if n.aimed || w.cfg.Origin == 0 || n.plan == nil {
		return
	}
	n.aimed = true
	n.plan.OriginFrom(w.time(), 0)
	n.next(w)
}

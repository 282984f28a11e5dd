package crowd

import (
	"math/rand/v2"

	"github.com/bits-and-blooms/bitset"

	"shoal/p2p/plan"
)

// node is one member of the crowd.
type node struct {
	id        int32
	rng       *rand.Rand
	connected []int32

	machine   Machine
	dead      bool
	volunteer bool
	whole     bool
	aimed     bool // the planner may ask the origin
	plan      *plan.Plan
	has       *bitset.BitSet
	missing   int

	// links
	up        uplink
	down      downlink
	transfers []int32
	toMembers int
	toOrigin  int
	cpu       int64 // when the processor has time for the next connection

	// members
	members   map[int32]*peer
	byID      map[plan.Member]*peer
	lastID    plan.Member
	joined    int
	others    [2]int // of those, of the own zone and of others, without the volunteers that a volunteer knows
	asking    int    // members that have not answered yet
	looks     int    // lookups that have been answered
	visited   bool   // is connected to the holders of the record
	found     int    // volunteers that a lookup named
	spare     []int32
	followers []follower
	remembers []int32 // fillers that asked before this node began

	// what is told
	tellAt   int64 // a message is scheduled; 0: none
	told     int64 // when the last one went
	progress int64 // bytes from the origin
	nextAt   int64 // a look at the plan is scheduled; 0: none
	wakeAt   int64
	looked   int64 // when it last looked at its plan

	times times
}

// peer is what a node knows of another.
type peer struct {
	node    int32
	id      plan.Member // 0: not in the plan
	idle    int         // connections that wait for a request
	asked   bool        // is being asked, or was and answered
	joined  bool
	refused bool // lied, or went
}

// follower is a member that is told this node's state.
type follower struct {
	node int32
	peer *peer // what it knows of this node
}

func (n *node) init(w *world, id int32) {
	n.id = id
	n.rng = rand.New(rand.NewPCG(w.cfg.Seed, uint64(id)+1))
	n.machine = w.cfg.Machines[id]
	n.up.rate, n.down.rate = n.machine.Link, n.machine.Link
	n.members = make(map[int32]*peer)
	n.byID = make(map[plan.Member]*peer)
	n.missing = w.cfg.Pieces
}

// start begins the fill.
func (n *node) start(w *world) {
	n.times.start = w.now
	n.has = bitset.New(uint(w.cfg.Pieces))
	size := len(w.nodes)
	many := w.cfg.Costs.Volunteers
	n.volunteer = size <= many || n.rng.Float64() < float64(many)/float64(size)
	n.plan = plan.New(plan.Config{
		Size: w.cfg.size(), PieceSize: w.cfg.PieceSize, Seed: n.rng.Uint64(), Tuning: w.cfg.Tuning,
		Self: w.rank(n.id), Key: mix(w.cfg.Seed), Volunteer: n.volunteer,
	})
	w.discover(n)
	n.next(w)
}

// next carries out what the planner wants.
func (n *node) next(w *world) {
	if n.plan == nil || n.whole {
		return
	}
	w.makeWay(n)
	c := &w.cfg.Costs
	w.counters.Nexts++
	n.looked = w.now
	o := n.plan.Next(w.time(), plan.Room{Members: c.Requests - n.toMembers, Origin: c.OriginRequests - n.toOrigin})
	changed := false
	for _, id := range o.Cancel {
		for _, i := range n.transfers {
			if w.transfers[i].id == id {
				changed = changed || w.transfers[i].server == origin
				w.counters.Cancelled++
				w.close(i)
				break
			}
		}
	}
	for _, r := range o.Start {
		changed = changed || r.Member == plan.Origin || w.far(n.id, n.byID[r.Member].node)
		n.request(w, r)
	}
	if changed {
		n.dirty(w)
	}
	n.wake(w)
}

// wake schedules the next look at the plan without an event.
func (n *node) wake(w *world) {
	at, ok := n.plan.NextWake(w.time())
	if !ok || n.wakeAt != 0 && n.wakeAt <= int64(at) {
		return
	}
	n.wakeAt = max(int64(at), w.now+1)
	w.push(event{at: n.wakeAt, kind: evWake, a: n.id})
}

// request sends a request, over a new connection if none is idle.
func (n *node) request(w *world, r plan.Request) {
	server := origin
	if r.Member != plan.Origin {
		p := n.byID[r.Member]
		server = p.node
	}
	i := w.begin(n, server, r)
	w.hold(w.hold(i)) // for the asker and for the server
	w.counters.Requests++
	p := n.peer(server)
	if server == origin {
		n.toOrigin++
	} else {
		n.toMembers++
	}
	if p.idle > 0 {
		p.idle--
		w.push(event{at: w.now + int64(w.cfg.Latency), kind: evArrive, a: i})
		return
	}
	w.dial(n, server, i)
}

// received takes in a chunk.
func (n *node) received(w *world, i int32, bytes int64) {
	t := &w.transfers[i]
	fromOrigin := t.server == origin
	if t.got == 0 {
		if n.times.first == 0 {
			n.times.first = w.now
		}
		if fromOrigin {
			n.plan.Answered(w.time(), t.id, !w.cfg.NoRange)
		}
	}
	if !fromOrigin && w.nodes[t.server].machine.Liar {
		w.lied(n, t.server)
		return
	}
	t.got += bytes
	n.plan.Progress(w.time(), t.id, bytes)
	if fromOrigin {
		n.progress += bytes
		if w.now-n.told >= int64(w.cfg.Costs.Heartbeat) {
			n.dirty(w)
		}
	}
	if t.got%w.cfg.PieceSize == 0 || t.got == t.size {
		n.delivered(w, i)
	}
}

// delivered takes in the piece that a transfer has just completed.
func (n *node) delivered(w *world, i int32) {
	t := &w.transfers[i]
	piece := uint(t.piece)
	t.piece++
	n.plan.Delivered(w.time(), t.id)
	if n.has.Test(piece) {
		w.counters.Twice++
	} else {
		n.has.Set(piece)
		n.missing--
	}
	if t.got == t.size {
		n.peer(t.server).idle++
		w.close(i)
	}
	n.dirty(w)
	if n.missing == 0 {
		n.end(w)
		return
	}
	n.next(w)
}

// end is the end of the fill.
func (n *node) end(w *world) {
	n.whole = true
	n.times.end = w.now
	w.pending--
	w.hangUp(n)
	n.plan = nil // it serves from now on
	n.members, n.byID = nil, nil
}

// dirty schedules a message to the followers.
func (n *node) dirty(w *world) {
	if n.tellAt != 0 || len(n.followers) == 0 {
		return
	}
	n.tellAt = max(w.now, n.told+int64(w.cfg.Costs.Tell))
	w.push(event{at: n.tellAt, kind: evTell, a: n.id})
}

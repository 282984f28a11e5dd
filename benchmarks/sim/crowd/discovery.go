package crowd

import (
	"slices"
	"time"

	"github.com/bits-and-blooms/bitset"

	"shoal/p2p/plan"
)

// snapshot is a state on its way.
type snapshot struct {
	whole     bool
	has       *bitset.BitSet
	claims    *bitset.BitSet
	inbound   *bitset.BitSet
	progress  int64
	volunteer bool
	serving   plan.Serving
}

// lookups returns when a fill looks into the DHT, after its start.
func lookups() []time.Duration {
	return []time.Duration{
		0, 50 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond,
		2 * time.Second, 12 * time.Second, 22 * time.Second, 32 * time.Second,
	}
}

const (
	// volunteersFrom is the lookup after which a node that found too few
	// volunteers becomes one.
	volunteersFrom = 3
	// lookupAsk is how many members that a lookup names are asked by a node
	// that is no volunteer.
	lookupAsk = 4
	// maxRemembered bounds the fillers that a member remembers.
	maxRemembered = 1024
	// gone is the answer of a member that has died.
	gone = -2
	// exchanged is how many members an answer names.
	exchanged = 4
	// A process that has just started is in the swarm after coldJoin, and
	// meets another member every coldMeet.
	coldJoin = 60 * time.Millisecond
	coldMeet = 5 * time.Millisecond
)

// discover begins to look for members.
func (w *world) discover(n *node) {
	c := &w.cfg.Costs
	late := time.Duration(0)
	if w.cfg.Cold {
		late = coldJoin
	}
	for _, j := range n.remembers {
		w.ask(n, j)
	}
	n.remembers = nil
	for k, j := range n.connected {
		if k >= c.Ask {
			n.spare = append(n.spare, j)
			continue
		}
		if !w.cfg.Cold {
			n.peer(j).idle++ // kept open for pieces
			w.ask(n, j)
			continue
		}
		w.after(late+time.Duration(k)*coldMeet, event{kind: evMeet, a: n.id, b: j})
	}
	if n.volunteer {
		w.provide(n, late)
	}
	for k, at := range lookups() {
		w.after(late+at, event{kind: evLook, a: n.id, b: int32(k)})
	}
	w.after(late+c.Hold, event{kind: evAim, a: n.id})
}

// visit returns the time at which the holders of the record, which have to
// answer everybody, have served another visitor.
func (w *world) visit(arrives int64, visited int) int64 {
	c := &w.cfg.Costs
	w.holders = max(w.holders, arrives) + int64(c.HolderWork)*int64(visited)/int64(c.Holders)
	return w.holders
}

// provide writes a record.
func (w *world) provide(n *node, late time.Duration) {
	c := &w.cfg.Costs
	rtt := 2 * int64(w.cfg.Latency)
	trips := int64(c.ProvideTrips + 3*c.HandshakeTrips)
	at := w.visit(w.now+int64(late+c.Provide)+trips*rtt, min(c.Holders, len(w.nodes)-1))
	w.push(event{at: at, kind: evProvided, a: n.id})
}

// look makes lookup k.
func (w *world) look(n *node, k int32) {
	if n.plan == nil {
		return
	}
	c := &w.cfg.Costs
	if !n.volunteer && (k == 0 && len(n.connected) > 0 || n.enough(w)) {
		return
	}
	rtt := 2 * int64(w.cfg.Latency)
	trips, visited := int64(c.LookupTrips), 0
	if !n.visited { // connections stay open
		n.visited = true
		trips, visited = trips+int64(c.HandshakeTrips), min(3, len(w.nodes)-1)
	}
	reached := w.visit(w.now+int64(c.Lookup)+trips*rtt-int64(w.cfg.Latency), visited)
	w.push(event{at: reached, kind: evServed, a: n.id, b: k})
}

// found takes in what a lookup has seen.
func (w *world) found(n *node, k int32, seen int) {
	n.looks++
	if n.plan == nil {
		return
	}
	live, ask := 0, lookupAsk
	if n.volunteer {
		ask = len(w.nodes)
	}
	for _, i := range n.rng.Perm(seen) {
		j := w.records[i].node
		if j == n.id || w.nodes[j].dead || w.cfg.Apart && w.far(n.id, j) {
			continue
		}
		live++
		if live <= ask && n.room(w, j) {
			w.ask(n, j)
		}
	}
	if k >= volunteersFrom && live < w.cfg.Costs.Fewest && !n.volunteer && n.found < w.cfg.Costs.Fewest {
		n.volunteer = true
		n.plan.Volunteer(true)
		w.provide(n, 0)
	}
	n.found = live
	w.settled(n)
}

// settled lets the origin be asked when everybody has answered.
func (w *world) settled(n *node) {
	if n.asking == 0 && n.looks > 0 {
		w.aim(n)
	}
}

// room reports whether a node takes another member into its plan. Volunteers
// must know each other to agree on who owns what: they have room for that.
func (n *node) room(w *world, other int32) bool {
	if w.mate(n.id, other) {
		return true
	}
	others := n.others[w.side(n.id, other)]
	return w.cfg.Costs.Room(n.volunteer && w.nodes[other].volunteer, n.joined-n.others[0]-n.others[1], others)
}

// enough reports whether a node knows enough members to ask nobody else.
func (n *node) enough(w *world) bool {
	degree := w.cfg.Costs.Degree - n.asking
	near := w.smallZone() || n.others[0] >= degree
	return near && (w.cfg.Zones < 2 || n.others[1] >= degree)
}

// keep remembers a member for the time when others are needed; the newest are
// asked first.
func (n *node) keep(w *world, j int32) {
	if len(n.spare) >= w.cfg.Costs.Spare {
		n.spare = slices.Delete(n.spare, 0, 1)
	}
	n.spare = append(n.spare, j)
}

// crowded reports whether a node has enough followers to take another.
func (n *node) crowded(w *world, other int32) bool {
	if n.volunteer && w.nodes[other].volunteer || w.mate(n.id, other) {
		return false // there are not many, and they must know each other
	}
	count := 0
	for _, f := range n.followers {
		if (!n.volunteer || !w.nodes[f.node].volunteer) && w.far(n.id, f.node) == w.far(n.id, other) {
			count++
		}
	}
	return count >= w.cfg.Costs.Followers
}

// more asks further members until there are enough.
func (w *world) more(n *node) {
	for i := len(n.spare) - 1; i >= 0 && !n.enough(w); i-- {
		if last := n.spare[i]; n.room(w, last) {
			n.spare = slices.Delete(n.spare, i, i+1)
			w.ask(n, last)
		}
	}
}

// makeWay lets a member that has too little to offer go, if another can have its
// place.
func (w *world) makeWay(n *node) {
	if len(n.spare) == 0 || !n.enough(w) {
		return
	}
	m, ok := n.plan.Weak(w.time(), w.smallZone())
	if !ok && !w.smallZone() && w.cfg.Zones > 1 {
		m, ok = n.plan.Weak(w.time(), true)
	}
	if ok {
		j := n.byID[m].node
		w.unfollow(n, j)
		w.leave(n, j)
	}
}

// peer returns what a node knows of another.
func (n *node) peer(id int32) *peer {
	p := n.members[id]
	if p == nil {
		p = &peer{node: id}
		n.members[id] = p
	}
	return p
}

// dial begins a connection for transfer t, or to follow if t is negative: it
// takes this node's processor, and then that of the other.
func (w *world) dial(n *node, server, t int32) {
	c := &w.cfg.Costs
	w.counters.Connections++
	n.cpu = max(n.cpu, w.now) + int64(c.Handshake)
	w.push(event{at: n.cpu + 3*int64(w.cfg.Latency), kind: evKnock, a: server, b: n.id, c: t})
}

// knock is a connection that reaches the processor of node s.
func (w *world) knock(s, asker, t int32) {
	at := w.now
	if s != origin {
		n := &w.nodes[s]
		if n.dead && t < 0 {
			notice := w.cfg.Latency
			if n.machine.Silent {
				notice = w.cfg.Tuning.DeadAfter
			}
			w.after(notice, event{kind: evAnswer, a: asker, b: s, c: gone})
			return
		}
		n.cpu = max(n.cpu, w.now) + int64(w.cfg.Costs.Handshake)
		at = n.cpu
	}
	at += int64(w.cfg.Costs.HandshakeTrips-1) * 2 * int64(w.cfg.Latency)
	if t < 0 {
		w.push(event{at: at, kind: evFollow, a: s, b: asker})
		return
	}
	w.push(event{at: at, kind: evArrive, a: t})
}

// ask asks a member to be followed, unless it was asked already.
func (w *world) ask(n *node, j int32) {
	p := n.peer(j)
	if p.asked || p.refused || j == n.id {
		return
	}
	p.asked = true
	n.asking++
	w.dial(n, j, -1)
}

// follow handles the question of asker to follow s.
func (w *world) follow(s *node, asker int32) {
	snap := int32(-1)
	switch {
	case !s.whole && s.plan == nil:
		if len(s.remembers) < maxRemembered {
			s.remembers = append(s.remembers, asker)
		}
	case !s.whole && s.crowded(w, asker):
	default:
		s.followers = append(s.followers, follower{asker, w.nodes[asker].members[s.id]})
		snap = w.snapshot(s)
	}
	if s.plan != nil && snap >= 0 {
		if s.room(w, asker) {
			w.ask(s, asker)
		} else {
			s.keep(w, asker)
		}
	}
	w.after(w.cfg.Latency, event{kind: evAnswer, a: asker, b: s.id, c: snap})
}

// answered takes in the answer of member j.
func (w *world) answered(n *node, j, snap int32) {
	if n.plan == nil {
		w.release(snap)
		return
	}
	n.asking--
	p := n.peer(j)
	switch {
	case snap == gone:
		p.refused = true
	case snap < 0:
		p.asked = false
		p.idle++
	case p.refused:
		w.release(snap)
	case !n.room(w, j):
		w.unfollow(n, j) // known, for the case that others go
		n.keep(w, j)
		p.asked = false
		p.idle++
		w.release(snap)
	default:
		p.joined = true
		n.joined++
		if !n.volunteer || !w.nodes[j].volunteer {
			n.others[w.side(n.id, j)]++
		}
		n.lastID++
		p.id = n.lastID
		n.byID[p.id] = p
		n.plan.Join(p.id, w.rank(j), w.far(n.id, j))
		n.plan.Told(w.time(), p.id, w.state(snap))
		w.release(snap)
	}
	w.exchange(n, &w.nodes[j])
	w.more(n)
	w.settled(n)
	n.next(w)
}

// exchange adds some members that s knows to those that n may ask.
func (w *world) exchange(n, s *node) {
	if n.enough(w) {
		return
	}
	for range min(exchanged, len(s.followers)) {
		j := s.followers[n.rng.IntN(len(s.followers))].node
		if !n.enough(w) && n.room(w, j) {
			w.ask(n, j)
		} else {
			n.keep(w, j)
		}
	}
}

// unfollow ends a stream of states.
func (w *world) unfollow(n *node, j int32) {
	s := &w.nodes[j]
	s.followers = slices.DeleteFunc(s.followers, func(f follower) bool { return f.node == n.id })
}

// snapshot returns the number of a copy of a node's state.
func (w *world) snapshot(n *node) int32 {
	var i int32
	if l := len(w.freeSnaps); l > 0 {
		i = w.freeSnaps[l-1]
		w.freeSnaps = w.freeSnaps[:l-1]
	} else {
		i = int32(len(w.snaps))
		pieces := uint(w.cfg.Pieces)
		w.snaps = append(w.snaps, snapshot{has: bitset.New(pieces), claims: bitset.New(pieces), inbound: bitset.New(pieces)})
	}
	s := &w.snaps[i]
	s.whole, s.progress, s.volunteer = n.whole, n.progress, n.volunteer
	if n.whole {
		s.serving = plan.Unknown
		return i
	}
	n.has.CopyFull(s.has)
	s.serving = n.plan.Serving()
	if c := n.plan.Claims(); c != nil {
		c.CopyFull(s.claims)
	} else {
		s.claims.ClearAll()
	}
	n.plan.Inbound().CopyFull(s.inbound)
	return i
}

func (w *world) release(snap int32) {
	if snap >= 0 {
		w.freeSnaps = append(w.freeSnaps, snap)
	}
}

func (w *world) state(snap int32) plan.State {
	s := &w.snaps[snap]
	if s.whole {
		return plan.State{Whole: true, Progress: s.progress, Volunteer: s.volunteer}
	}
	return plan.State{
		Has: s.has, Claims: s.claims, Inbound: s.inbound, Progress: s.progress, Volunteer: s.volunteer, Origin: s.serving,
	}
}

// tell sends a node's state to its followers.
func (n *node) tell(w *world) {
	n.tellAt, n.told = 0, w.now
	if len(n.followers) == 0 || n.plan == nil && !n.whole {
		return
	}
	w.counters.Tells += int64(len(n.followers))
	w.after(w.cfg.Latency, event{kind: evTold, a: n.id, b: w.snapshot(n)})
}

// told hands a state to the followers of its node.
func (w *world) told(n *node, snap int32) {
	state := w.state(snap)
	kept := n.followers[:0]
	for _, f := range n.followers {
		to := &w.nodes[f.node]
		if to.dead || to.plan == nil {
			continue // nobody is there to be told
		}
		kept = append(kept, f)
		if !f.peer.joined {
			continue // its answer has not come yet, and says as much
		}
		to.plan.Told(w.time(), f.peer.id, state)
		to.soon(w)
	}
	n.followers = kept
	w.release(snap)
}

// soon schedules a look at the plan.
func (n *node) soon(w *world) {
	if n.nextAt != 0 {
		return
	}
	n.nextAt = max(w.now, n.looked+int64(w.cfg.Costs.Coalesce))
	w.push(event{at: n.nextAt, kind: evNext, a: n.id})
}

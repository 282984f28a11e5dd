package exchange

import (
	"sync"
	"time"
)

// oneZone is the longest round trip between two members that count as being in
// one place though nobody has said so: more than on a LAN, wireless ones
// included, and less than to another town.
const oneZone = 5 * time.Millisecond

// The two sides of a node: members of its own zone, and of others. sides holds a
// number for each.
const (
	within = iota
	outside
)

type sides [2]int

func sum(n sides) int { return n[within] + n[outside] }

// far reports whether a member is in another zone than this node, or behind a
// relay, which others need, too. Where neither names its zone, the shortest round
// trip that was seen says so.
func (x *Exchange) far(h Holder) bool {
	if x.client.way(h.Peer) == Relayed {
		return true
	}
	if x.zone != "" || h.Zone != "" {
		return x.zone != h.Zone
	}
	return x.met.trip(h.Peer) > oneZone
}

func (x *Exchange) side(h Holder) int {
	if x.far(h) {
		return outside
	}
	return within
}

func (s *source) side() int {
	if s.far {
		return outside
	}
	return within
}

// lookAround is how often the connected members are counted by zone.
const lookAround = time.Second

// surroundings is how many of the connected members there are of each side.
type surroundings struct {
	mu     sync.Mutex
	looked time.Time
	n      sides
}

func (s *surroundings) look(x *Exchange) sides {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.looked) >= lookAround {
		s.looked, s.n = now, sides{}
		members, _ := x.swarm.Near(maxCandidates)
		for _, h := range members {
			s.n[x.side(h)]++
		}
	}
	return s.n
}

// smallZone reports whether there are other zones, and this one is so small that
// all of it know each other.
func (x *Exchange) smallZone() bool {
	n := x.around.look(x)
	return n[outside] > 0 && x.limits.degrees.Small(n[within]+1)
}

// abroad reports whether members of other zones may be asked: not before those
// of the own, if there are any, have said what they have or are about to bring.
func (d *driver) abroad() bool {
	if d.x.around.look(d.x)[within] == 0 || d.search.state(1).idle {
		return true
	}
	return d.held-d.learnt >= d.swarmFirst()
}

package exchange

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"
)

// volunteer notes that this node volunteers to ask the origin for others.
func (s *search) volunteer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keen = true
}

// crowds reports whether a member that follows the fill takes one of the places
// that there are: not if both volunteer, or may do so. Volunteers must know each
// other, and there are not many.
func (s *search) crowds(id peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asked[id]
	return !s.keen || a != nil && a.known && !a.keen
}

// spare ends the follow of a member, of which there are enough.
func (s *search) spare(id peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asked[id]
	if a == nil || a.spare {
		return
	}
	delete(s.news, id) // nothing follows
	if a.spare, a.waiting = true, false; a.poll {
		return // what it says is not heard
	}
	if a.leave != nil {
		a.leave()
	}
	a.leave = nil
}

// recall has spare members asked again until room of each side are, those that
// had to make way last.
func (s *search) recall(room sides) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if a.back {
			room[s.x.side(a.holder)]--
		}
	}
	for _, weak := range []bool{false, true} {
		for id, a := range s.asked {
			if room[within] <= 0 && room[outside] <= 0 {
				return
			}
			if !s.available(id, a) || a.weak != weak {
				continue
			}
			if side := s.x.side(a.holder); room[side] > 0 {
				a.spare, a.back = false, true
				s.met = append(s.met, a.holder)
				wake(s.woken)
				room[side]--
			}
		}
	}
}

// available reports whether a member is spare and can be asked again. mu is
// held.
func (s *search) available(id peer.ID, a *asked) bool {
	return a.spare && !s.x.bans.Holds(id, time.Now())
}

// better reports whether there is a spare member of a side that never had to
// make way.
func (s *search) better(side int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, a := range s.asked {
		if !a.weak && s.available(id, a) && s.x.side(a.holder) == side {
			return true
		}
	}
	return false
}

// makeWay lets a member that has too little to offer go, if another can have its
// place.
func (d *driver) makeWay() {
	if d.small {
		return
	}
	_, others, _ := d.joined()
	for side, n := range others {
		if n < d.x.limits.degrees.Degree || side == within && d.smallZone || !d.search.better(side) {
			continue
		}
		if m, ok := d.plan.Weak(d.now(), side == outside); ok {
			src := d.byID[m]
			d.bench(src)
			d.spare(src)
			d.search.weaken(src.holder.Peer)
		}
	}
}

// weaken notes that a member had to make way.
func (s *search) weaken(id peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.asked[id]; a != nil {
		a.weak = true
	}
}

// crowding returns the test whether a follower of a blob takes one of the
// places that there are for its side; nil if places are not counted: in a small
// swarm, or while the blob is not being filled, when there is little to say.
func (x *Exchange) crowding(d digest.Digest) func(Holder) (side int, crowds bool) {
	drivers := x.driving(d)
	if _, others := x.swarm.Near(0); len(drivers) == 0 || x.limits.degrees.Small(others+1) {
		return nil
	}
	small := x.smallZone()
	return func(h Holder) (side int, crowds bool) {
		side = x.side(h)
		return side, (side == outside || !small) && drivers[0].search.crowds(h.Peer)
	}
}

// full reports whether as many members follow a blob as may, so that w finds no
// room. mu is held.
func (fs *followers) full(w *watch, crowds func(Holder) (int, bool)) bool {
	of := fs.blobs[w.blob]
	if len(of) >= maxWatchers || crowds == nil {
		return len(of) >= maxWatchers
	}
	side, counts := crowds(w.by.holder)
	if !counts {
		return false
	}
	var n sides
	for o := range of {
		if other, counts := crowds(o.by.holder); counts {
			n[other]++
		}
	}
	return n[side] >= fs.x.limits.degrees.Followers
}

// trim lets followers go that found room before it was known that they take it:
// a fill has begun, or one said that it does not volunteer.
func (fs *followers) trim(d digest.Digest) {
	crowds := fs.x.crowding(d)
	if crowds == nil {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var n sides
	for w := range fs.blobs[d] {
		side, counts := crowds(w.by.holder)
		if !counts {
			continue
		}
		if n[side]++; n[side] > fs.x.limits.degrees.Followers {
			w.by.forget(w)
			w.by.refuse(w)
		}
	}
}

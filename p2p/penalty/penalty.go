// Package penalty remembers members that are to be left alone for a while: who
// could not be reached, who did not answer, who lied. It is memory and no
// policy: what earns a penalty, and what is kept from a member that has one,
// is the caller's. It reads no clock and starts no goroutines.
//
// What always holds: every penalty ends; the next one of the same member lasts
// twice as long, up to a bound, until it is pardoned; and however many members
// misbehave, the memory is bounded.
package penalty

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Terms are the law of a Box.
type Terms struct {
	// First is how long the first penalty of a member lasts. Each further one
	// doubles, up to Most.
	First, Most time.Duration
	// Members is how many members are remembered. Beyond it those whose
	// penalty is over are forgotten, with their history, and if there are
	// none the one whose penalty ends soonest.
	Members int
}

// Box holds the members that are left alone. Its methods may be called from
// any goroutine; the caller says what time it is.
type Box struct {
	terms Terms

	mu      sync.Mutex
	members map[peer.ID]sentence
}

type sentence struct {
	until time.Time
	term  time.Duration
	why   string
}

// Penalty is one that is running, for people to look at.
type Penalty struct {
	Member peer.ID
	Why    string
	Until  time.Time
}

// NewBox returns an empty box.
func NewBox(t Terms) *Box { return &Box{terms: t, members: make(map[peer.ID]sentence)} }

// Holds reports whether id is to be left alone.
func (b *Box) Holds(id peer.ID, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Before(b.members[id].until)
}

// Running lists the penalties that are running, in no order.
func (b *Box) Running(now time.Time) []Penalty {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Penalty
	for id, s := range b.members {
		if now.Before(s.until) {
			all = append(all, Penalty{Member: id, Why: s.why, Until: s.until})
		}
	}
	return all
}

// Add begins a penalty and returns how long it lasts: zero if one of id's is
// running, which then stays as it is. Failures at the same moment count as one.
func (b *Box) Add(id peer.ID, now time.Time) time.Duration { return b.AddFor(id, now, "") }

// AddFor is Add for a reason that people may read later (Running).
func (b *Box) AddFor(id peer.ID, now time.Time, why string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, known := b.members[id]
	if now.Before(s.until) {
		return 0
	}
	if !known && len(b.members) >= b.terms.Members {
		b.makeRoom(now)
	}
	s.term = min(b.terms.Most, max(b.terms.First, 2*s.term))
	s.until, s.why = now.Add(s.term), why
	b.members[id] = s
	return s.term
}

// Pardon forgets what id did.
func (b *Box) Pardon(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.members, id)
}

func (b *Box) makeRoom(now time.Time) {
	var soonest peer.ID
	for id, s := range b.members {
		if !now.Before(s.until) {
			delete(b.members, id)
		} else if soonest == "" || s.until.Before(b.members[soonest].until) {
			soonest = id
		}
	}
	if len(b.members) >= b.terms.Members {
		delete(b.members, soonest)
	}
}

package exchange

import (
	"context"
	"sync"
	"time"
)

const (
	// headStart is how long only those are asked to whom a connection for pieces
	// is open: if enough of them fill the blob the others find no room. A round
	// trip within a datacentre.
	headStart = 10 * time.Millisecond
	// searchEvery is the time between lookups while a fill runs.
	searchEvery = 10 * time.Second
	// enoughMembers is how many members that have something make a lookup
	// superfluous. In a crowd of twelve nodes and ten layers, lookups and
	// announcements took a fifth of the processor time.
	enoughMembers = 8
	// answerTime is what connected members have to answer before a lookup
	// begins, answerAll the same where they are all who may have something:
	// the origin is left alone as long anyway. answerLook is how often it is
	// looked whether they have.
	answerTime = 20 * time.Millisecond
	answerAll  = 150 * time.Millisecond
	answerLook = 2 * time.Millisecond
	// earlyRounds is how many lookups are spared when everybody who is connected
	// has answered, in a swarm of more than enoughMembers that are all asked. One
	// that knows of a member which is not connected finds it by the next.
	earlyRounds = 3
)

// rounds returns when the lookups of a fill are made, after its start: whoever
// began at the same moment is found by the next.
func rounds() []time.Duration {
	return []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}
}

// round begins one lookup, and asks whom it finds.
func (s *search) round(ctx context.Context, wg *sync.WaitGroup) {
	near, connected := s.x.near()
	if s.x.hidden(s.want.Digest) { // members are not asked either
		near, connected = nil, 0
	}
	s.mu.Lock()
	s.alone = connected == 0
	s.begun = true
	if s.lookups++; connected == 0 {
		s.rounds++
	} else {
		s.looking++
	}
	early := s.lookups <= earlyRounds
	s.mu.Unlock()
	if connected == 0 {
		return
	}
	first := near[:min(s.x.limits.degrees.Ask, len(near))]
	for _, h := range first {
		s.ask(h, false)
	}
	wg.Go(func() {
		if rest := near[len(first):]; len(rest) > 0 && wait(ctx, headStart) == nil {
			for _, h := range rest {
				s.ask(h, false)
			}
		}
		if !s.enough(ctx, connected, early) {
			// It may take seconds: somebody named is not there any more.
			for h := range s.x.swarm.Find(ctx, s.want.Digest) {
				s.ask(h, true)
			}
		}
		s.mu.Lock()
		s.looking--
		s.rounds++
		s.mu.Unlock()
	})
}

// enough reports whether a lookup can be spared: because enough of the connected
// members have something already, who name more, or because all have answered
// that may have something, and the fill is young. It gives them a moment to
// answer.
func (s *search) enough(ctx context.Context, connected int, early bool) bool {
	early = early && connected >= enoughMembers && connected <= MaxNear
	most := answerTime
	if early {
		most = answerAll
	}
	for waited := time.Duration(0); ; waited += answerLook {
		has, waiting := s.answers()
		switch {
		case has >= min(connected, enoughMembers), early && !waiting:
			return true
		case !waiting || waited >= most || wait(ctx, answerLook) != nil:
			return false
		}
	}
}

// answers returns how many members have something, and whether some have yet to
// answer.
func (s *search) answers() (has int, waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		waiting = waiting || a.waiting
		if a.fills {
			has++
		}
	}
	return has, waiting
}

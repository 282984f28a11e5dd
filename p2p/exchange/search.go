package exchange

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/blob"
	"shoal/p2p/wire"
)

const (
	// maxNear is how many connected members are asked without waiting for the
	// lookup: in a small swarm that finds every holder in one round trip.
	maxNear = 8
	// searchEvery is the time between lookups while a fill runs.
	searchEvery = 10 * time.Second
	// maxAsking bounds the members that are asked at the same time.
	maxAsking = 16
	// pollFirst and pollMost: a member that has only a part is asked again,
	// ever less often while nothing changes.
	pollFirst = 500 * time.Millisecond
	pollMost  = 5 * time.Second
)

// rounds returns when the lookups of a fill are made, after its start: whoever
// began at the same moment is found by the next.
func rounds() []time.Duration {
	return []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}
}

// found is what a member said about the blob.
type found struct {
	holder Holder
	info   wire.Info
	err    error
}

// search finds members that have a blob and asks what they have. It belongs to
// one driver; its goroutines end with ctx.
type search struct {
	x    *Exchange
	want blob.Descriptor
	out  chan found

	mu      sync.Mutex
	asking  map[peer.ID]bool // being asked; true if a lookup named it: worth waiting for
	has     map[peer.ID]bool // said that it has something
	rounds  int              // lookups that have ended
	looking int              // lookups that have not
	begun   bool             // alone is known
	alone   bool             // no member is connected
}

func newSearch(x *Exchange, want blob.Descriptor) *search {
	return &search{
		x: x, want: want, out: make(chan found, maxAsking),
		asking: make(map[peer.ID]bool), has: make(map[peer.ID]bool),
	}
}

// run searches until ctx is done. It returns when its goroutines have ended.
func (s *search) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	start := time.Now()
	times := rounds()
	for i := 0; ; i++ {
		s.round(ctx, &wg)
		next := start.Add(searchEvery * time.Duration(i-len(times)+2))
		if i+1 < len(times) {
			next = start.Add(times[i+1])
		}
		wait := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// round begins one lookup, and asks whom it finds.
func (s *search) round(ctx context.Context, wg *sync.WaitGroup) {
	near, connected := s.x.swarm.Near(maxNear)
	s.mu.Lock()
	s.alone = connected == 0
	s.begun = true
	if connected == 0 {
		s.rounds++
	} else {
		s.looking++
	}
	s.mu.Unlock()
	if connected == 0 {
		return
	}
	for _, h := range near {
		s.ask(ctx, wg, h, false)
	}
	wg.Go(func() { // may take seconds: somebody named is not there any more
		for h := range s.x.swarm.Find(ctx, s.want.Digest) {
			s.ask(ctx, wg, h, true)
		}
		s.mu.Lock()
		s.looking--
		s.rounds++
		s.mu.Unlock()
	})
}

// ask asks a member in the background, if it is not known to have something,
// or being asked, or banned. told means that a lookup named it.
func (s *search) ask(ctx context.Context, wg *sync.WaitGroup, h Holder, told bool) {
	now := time.Now()
	if s.x.bans.Holds(h.Peer, now) {
		return
	}
	told = told && !s.x.silent.Holds(h.Peer, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, already := s.asking[h.Peer]; already {
		s.asking[h.Peer] = told || s.asking[h.Peer]
		return
	}
	if s.has[h.Peer] || len(s.asking) >= maxAsking {
		return
	}
	s.asking[h.Peer] = told
	wg.Go(func() {
		info, err := s.x.client.info(ctx, h, s.want)
		if err != nil && !errors.Is(err, errGone) && !errors.Is(err, errBusy) && ctx.Err() == nil {
			s.x.silent.Add(h.Peer, time.Now())
		} else if ctx.Err() == nil {
			s.x.silent.Pardon(h.Peer)
		}
		s.mu.Lock()
		delete(s.asking, h.Peer)
		s.has[h.Peer] = err == nil
		s.mu.Unlock()
		select {
		case s.out <- found{h, info, err}:
		case <-ctx.Done():
		}
	})
}

// again lets a member be asked again that said it has something.
func (s *search) again(id peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.has, id)
}

// state is how far a search has come.
type state struct {
	alone bool // no member is connected
	// idle: at least so many lookups have ended, and all questions.
	idle bool
	// told: somebody was named who has not answered yet.
	told bool
}

func (s *search) state(rounds int) state {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := false
	for _, t := range s.asking {
		told = told || t
	}
	return state{
		alone: s.begun && s.alone,
		idle:  s.rounds >= rounds && s.looking == 0 && len(s.asking) == 0 && len(s.out) == 0,
		told:  told,
	}
}

// poll asks a member that has a part of the blob again and again, until it has
// the whole, or nothing, or ctx is done.
func (s *search) poll(ctx context.Context, h Holder, last wire.Info) {
	wait := pollFirst
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if s.x.bans.Holds(h.Peer, time.Now()) {
			return
		}
		info, err := s.x.client.info(ctx, h, s.want)
		if err == nil && !info.Whole && info.Proven.Equal(last.Proven) {
			wait = min(pollMost, 2*wait)
			timer.Reset(wait)
			continue
		}
		select {
		case s.out <- found{h, info, err}:
		case <-ctx.Done():
			return
		}
		if err != nil || info.Whole {
			return
		}
		last, wait = info, pollFirst
		timer.Reset(wait)
	}
}

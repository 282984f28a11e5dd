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
	// MaxNear is how many connected members a fill follows without waiting for
	// a lookup: in a small swarm that is everybody, in one round trip.
	MaxNear = 64
	// maxAsked bounds the members that one fill follows, however it heard of
	// them.
	maxAsked = 128
	// againFirst and againMost bound the pause before a member is followed
	// again after the connection broke; it doubles. Who was killed may be back
	// in a moment.
	againFirst = 250 * time.Millisecond
	againMost  = 10 * time.Second
	// pollFirst and pollMost: a member that cannot be followed is asked again
	// while it has only a part, ever less often while nothing changes.
	pollFirst = 500 * time.Millisecond
	pollMost  = 5 * time.Second
)

// found is what a member said about the blob.
type found struct {
	holder Holder
	said
}

// search finds members that have a blob, or fill it, and follows what they
// have. It belongs to one driver; its goroutines end with ctx.
type search struct {
	x     *Exchange
	want  blob.Descriptor
	fresh chan struct{} // holds a value after news
	woken chan struct{} // holds a value when run has something to do

	mu      sync.Mutex
	asked   map[peer.ID]*asked
	sized   bool             // the size is known
	news    map[peer.ID]said // what was said last and not taken yet
	met     []Holder         // to be asked
	lookups int              // that were begun, or spared
	rounds  int              // of those, that have ended
	looking int              // that have not
	begun   bool             // alone is known
	alone   bool             // no member is connected
	keen    bool             // this node volunteers
	held    time.Duration    // the time of the fill, as giveUp was told last
}

// asked is a member that was asked.
type asked struct {
	holder  Holder
	told    bool          // it was named for this blob: worth waiting for
	waiting bool          // it has not answered yet
	deaf    bool          // nobody waits for it: it lags, or has not answered for so long
	lags    bool          // it is known to be later than a registry
	lives   bool          // it asked this node, or a member named it
	warm    bool          // a connection was open when it was asked
	since   time.Duration // the time of the fill when it was asked
	filling bool          // it fills it, and that was all it said
	fills   bool          // it said that it has something, or fills it
	heard   bool          // it has answered once
	earlier bool          // it had asked here when this fill began
	later   bool          // it did not fill it then
	known   bool          // it said whether it volunteers
	keen    bool          // it does
	spare   bool          // is not followed, because there are enough others
	back    bool          // was spare, and has not answered since
	weak    bool          // had to make way for others: is asked again after them
	leave   func()        // ends the follow; nil if there is none
	poll    bool          // it is too old to be followed
	tries   int           // that failed, in a row
	again   time.Time
}

func newSearch(x *Exchange, want blob.Descriptor) *search {
	return &search{
		x: x, want: want, fresh: make(chan struct{}, 1), woken: make(chan struct{}, 1),
		asked: make(map[peer.ID]*asked), news: make(map[peer.ID]said), sized: want.Size >= 0,
	}
}

// learnt notes that a member told the size: others that fill the blob will say
// in a moment what they have, and are waited for once more.
func (s *search) learnt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sized = true
	for _, a := range s.asked {
		a.waiting = a.waiting || a.filling
	}
}

// run searches until ctx is done. It returns when its goroutines have ended.
func (s *search) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.leaveAll()
	times, i := rounds(), 0
	start := time.Now()
	next, timer := start, time.NewTimer(0)
	defer timer.Stop()
	for {
		if now := time.Now(); !now.Before(next) {
			s.round(ctx, &wg)
			if i++; i < len(times) {
				next = start.Add(times[i])
			} else {
				next = now.Add(searchEvery)
			}
		}
		s.greet()
		again := s.retry(ctx, &wg)
		timer.Reset(min(time.Until(next), again))
		select {
		case <-ctx.Done():
			return
		case <-s.woken:
		case <-timer.C:
		}
	}
}

// ask follows a member if that is not done already, and it is not banned. told
// means that it was named for this blob.
func (s *search) ask(h Holder, told bool) {
	now := time.Now()
	if h.Peer == s.x.self || s.x.bans.Holds(h.Peer, now) || s.x.hidden(s.want.Digest) {
		return
	}
	warm := s.x.follows.connected(h.Peer)
	silent, lags := s.x.silent.Holds(h.Peer, now), s.x.lags(h.Peer, now)
	told = told && !silent && !lags
	s.mu.Lock()
	a := s.asked[h.Peer]
	switch {
	case a != nil:
		a.told = a.told || told
		if len(h.Pieces) > 0 {
			a.holder = h
		}
	case len(s.asked) < maxAsked && s.x.client.reachable(h):
		a = &asked{holder: h, told: told, waiting: true, warm: warm, deaf: silent && warm || lags, lags: lags, since: s.held}
		s.asked[h.Peer] = a
	default:
		a = nil
	}
	if a == nil || a.spare || a.leave != nil || a.poll || now.Before(a.again) {
		s.mu.Unlock()
		return
	}
	a.leave = func() {} // nobody else begins it
	s.mu.Unlock()
	leave := s.x.follows.begin(h, s.want, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.leave != nil { // it has not ended already
		a.leave = leave
	}
}

// hear takes in what a member says; it is the search's audience.
func (s *search) hear(id peer.ID, w said) {
	now := time.Now()
	if w.err == nil || errors.Is(w.err, errGone) {
		s.x.silent.Pardon(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asked[id]
	if a == nil || a.spare {
		return
	}
	a.back, a.deaf = false, a.lags
	if w.err == nil && !w.filling {
		a.known, a.keen = true, w.info.Volunteer
	}
	if !a.heard {
		a.heard, a.later = true, !a.earlier && errors.Is(w.err, errGone)
	}
	a.fills, a.filling = w.err == nil, w.filling
	switch {
	case w.err == nil || errors.Is(w.err, errGone):
		// Who fills it will say in a moment what it has, and whether it asks
		// the origin; not so soon if it knows no size, but then neither do we.
		a.waiting = a.waiting && w.filling && s.sized
		a.tries = 0
	case errors.Is(w.err, errNoFollow):
		a.leave, a.poll = nil, true
		wake(s.woken)
		return
	default:
		a.waiting, a.leave = false, nil
		a.again = now.Add(min(againMost, againFirst<<min(a.tries, 10)))
		a.tries++
		wake(s.woken)
	}
	s.tell(id, w)
}

// tell leaves news for the driver. mu is held.
func (s *search) tell(id peer.ID, w said) {
	s.news[id] = w
	wake(s.fresh)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take returns what was said since the last time: of each member the last.
func (s *search) take() []found {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.news) == 0 {
		return nil
	}
	all := make([]found, 0, len(s.news))
	for id, w := range s.news {
		all = append(all, found{s.asked[id].holder, w})
	}
	clear(s.news)
	return all
}

// meet lets members be asked that somebody named, or that asked themselves.
func (s *search) meet(others ...Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.met) < maxAsked {
		s.met = append(s.met, others...)
	}
	wake(s.woken)
}

// greet asks whom the search has met.
func (s *search) greet() {
	s.mu.Lock()
	met := s.met
	s.met = nil
	s.mu.Unlock()
	for _, h := range met {
		s.ask(h, true)
	}
	s.lives(met)
}

// lives notes members that asked this node, or that a member named: they are
// there, and waited for in whatever time they need to answer.
func (s *search) lives(members []Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range members {
		if a := s.asked[h.Peer]; a != nil {
			a.lives, a.deaf = true, false
		}
	}
}

// retry follows members again whose connection broke, polls those that are too
// old, and returns when to come back.
func (s *search) retry(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	now, next := time.Now(), searchEvery
	var again []Holder
	s.mu.Lock()
	for _, a := range s.asked {
		switch {
		case a.spare:
		case a.poll:
			if a.leave == nil {
				a.leave = func() {}
				h := a.holder
				wg.Go(func() { s.poll(ctx, h) })
			}
		case a.leave != nil:
		case now.Before(a.again):
			next = min(next, a.again.Sub(now))
		default:
			again = append(again, a.holder)
		}
	}
	s.mu.Unlock()
	for _, h := range again {
		s.ask(h, false)
	}
	return next
}

// leaveAll ends all follows.
func (s *search) leaveAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if a.leave != nil {
			a.leave()
		}
		a.leave = func() {}
	}
}

// begin lets those be asked who fill the blob when this fill begins.
func (s *search) begin(earlier []Holder) {
	for _, h := range earlier {
		s.ask(h, true)
	}
	s.lives(earlier)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range earlier {
		if a := s.asked[h.Peer]; a != nil {
			a.earlier = true
		}
	}
}

// rivals returns of the members that have something, or fill the blob, how many
// began before this one, and those of whom nobody can tell: who began at the
// same moment. Of two members at most one thinks that it was the first.
func (s *search) rivals() (earlier int, same []peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, a := range s.asked {
		switch {
		case !a.fills || a.later:
		case a.earlier:
			earlier++
		default:
			same = append(same, id)
		}
	}
	return earlier, same
}

// holders returns the members that have something, or fill the blob.
func (s *search) holders() []Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Holder
	for _, a := range s.asked {
		if a.fills {
			all = append(all, a.holder)
		}
	}
	return all
}

// state is how far a search has come.
type state struct {
	alone bool // no member is connected
	// idle: at least so many lookups have ended, and all questions.
	idle bool
	// told: somebody was named who has not answered yet.
	told bool
	// vain: everybody has answered who is worth waiting for, and most are not.
	vain bool
}

// giveUp stops waiting for members that have not answered for most, in the time
// of the fill, which is held now: here and in the fills that follow. It takes a
// connection that was open: to open one takes round trips, and time of
// processors that a crowd has not got.
func (s *search) giveUp(held, most time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
	for id, a := range s.asked {
		if a.warm && a.waiting && !a.heard && !a.lives && !a.deaf && held-a.since >= most {
			a.deaf = true
			s.x.silent.Add(id, time.Now())
		}
	}
}

func (s *search) state(rounds int) state {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting, told := len(s.met) > 0, false
	worth, deaf := waiting, 0
	for _, a := range s.asked {
		waiting = waiting || a.waiting
		told = told || a.waiting && a.told && !a.deaf
		if worth = worth || a.waiting && !a.deaf; a.deaf {
			deaf++
		}
	}
	return state{
		vain:  !worth && deaf > 0 && 2*deaf >= len(s.asked) && len(s.news) == 0,
		alone: s.begun && s.alone,
		idle:  s.rounds >= rounds && s.looking == 0 && !waiting && len(s.news) == 0,
		told:  told,
	}
}

// poll asks a member that cannot be followed again and again, until ctx is
// done.
func (s *search) poll(ctx context.Context, h Holder) {
	var last wire.Info
	pause := pollFirst
	for {
		info, err := s.x.client.info(ctx, h, s.want)
		switch {
		case ctx.Err() != nil || s.x.bans.Holds(h.Peer, time.Now()):
			return
		case err == nil && !info.Whole && last.Proven != nil && info.Proven.Equal(last.Proven):
			pause = min(pollMost, 2*pause)
		default:
			s.polled(h.Peer, said{info: info, err: err})
			if last, pause = info, pollFirst; err != nil {
				pause = pollMost
			}
		}
		if info.Whole || wait(ctx, pause) != nil {
			return
		}
	}
}

// polled takes in an answer.
func (s *search) polled(id peer.ID, w said) {
	if unanswered(w.err) {
		s.x.silent.Add(id, time.Now())
	} else {
		s.x.silent.Pardon(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.asked[id]; a != nil && !a.spare {
		a.waiting, a.deaf, a.fills, a.back = false, a.lags, w.err == nil, false
		s.tell(id, w)
	}
}

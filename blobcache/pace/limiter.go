package pace

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// burst is how long nothing may pass before the right to it is lost: as late
	// as a timer is on a busy machine.
	burst = 100 * time.Millisecond
	// round is in what time everybody who waits should have had a turn. Members
	// take a request for stalled after 400 ms without a byte in the worst case.
	round = 25 * time.Millisecond
	// signOfLife is how long who is not next waits for some bytes all the same.
	signOfLife = 200 * time.Millisecond
	// leastPart is worth a system call, and leastBurst some of these, in bytes.
	leastPart, leastBurst = 1 << 10, 4 << 10
	// maxIdle is how many flows are remembered while nobody waits.
	maxIdle = 64
	// background is how many times less a flow gets in the background.
	background = 4
)

// Flow is in whose name bytes pass.
type Flow struct {
	Name       string
	Background bool // nobody waits for it: what is so shares one flow's part
	// Order puts those that pass in one name one after the other, the lowest
	// first: what is whole is worth more than two halves. The others get as much
	// as shows that they live. Those with the same Order are served alike.
	Order uint64
}

// key is the name under which a flow has its share.
type key struct {
	name       string
	background bool
}

func (f Flow) key() key {
	if f.Background {
		return key{background: true}
	}
	return key{name: f.Name}
}

// waiter waits for bytes of its own.
type waiter struct {
	want  int
	order uint64
	since time.Time
	ready chan int // holds how many may pass
	late  bool     // they may not at once
}

// share is what a flow has had, and who waits for more.
type share struct {
	tag   float64 // virtual time at which its next bytes begin
	queue []*waiter
}

// Limiter lets bytes pass at the rate of its rules, which may change at any
// time. Its methods may be called from any goroutine. A nil Limiter lets
// everything pass.
type Limiter struct {
	mu      sync.Mutex
	rules   Rules
	minute  int64 // of which the rate is (Unix time)
	rate    Rate
	bucket  *rate.Limiter
	shares  map[key]*share
	hungry  int     // flows in whose name somebody waits
	virtual float64 // tag of what passed last
	timer   *time.Timer
	waited  int64
}

// New returns a Limiter.
func New(rules Rules) *Limiter {
	l := &Limiter{shares: make(map[key]*share)}
	l.timer = time.AfterFunc(time.Hour, l.wake)
	l.timer.Stop()
	l.Set(rules)
	return l
}

// Set replaces the rules, also for those who wait.
func (l *Limiter) Set(rules Rules) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = rules
	l.minute = math.MinInt64
	l.serve(time.Now())
}

// Rules returns what the rules are.
func (l *Limiter) Rules() Rules {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rules
}

// Rate returns the rate that counts now.
func (l *Limiter) Rate() Rate {
	if l == nil {
		return Unlimited
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look(time.Now())
	return l.rate
}

// Waited returns how many bytes have had to wait.
func (l *Limiter) Waited() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waited
}

// Take returns how many bytes of a flow may pass now, at most want, once there are
// any; or the cause when ctx is done.
func (l *Limiter) Take(ctx context.Context, f Flow, want int) (int, error) {
	if l == nil {
		return want, nil
	}
	w := l.enter(f, want)
	if w == nil {
		return want, nil
	}
	select {
	case n := <-w.ready:
		return n, nil
	case <-ctx.Done():
		l.leave(f, w)
		return 0, context.Cause(ctx)
	}
}

// enter queues who wants bytes; nil means that there is no limit.
func (l *Limiter) enter(f Flow, want int) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.look(now)
	if l.rate == Unlimited {
		return nil
	}
	s := l.shares[f.key()]
	if s == nil {
		l.forget()
		s = &share{tag: l.virtual}
		l.shares[f.key()] = s
	}
	if len(s.queue) == 0 {
		s.tag = max(s.tag, l.virtual-l.perRound())
		l.hungry++
	}
	w := &waiter{want: want, order: f.Order, since: now, ready: make(chan int, 1)}
	s.queue = append(s.queue, w)
	l.serve(now)
	w.late = len(w.ready) == 0
	return w
}

// leave takes out a waiter that has given up.
func (l *Limiter) leave(f Flow, w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shares[f.key()]
	if s == nil {
		return
	}
	for i, other := range s.queue {
		if other == w {
			l.remove(s, i)
			return
		}
	}
}

func (l *Limiter) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve(time.Now())
}

// look finds out what the rate is now. A rule counts from the minute that it
// names; the clock may be set back. The caller holds mu.
func (l *Limiter) look(now time.Time) {
	minute := now.Unix() / 60
	if minute == l.minute {
		return
	}
	l.minute = minute
	before := l.rate
	if l.rate = l.rules.At(now); l.rate == before || l.rate == Unlimited {
		return
	}
	size := max(leastBurst, int(float64(l.rate)*burst.Seconds()))
	if before == Unlimited {
		l.bucket = rate.NewLimiter(rate.Limit(l.rate), size)
		return
	}
	l.bucket.SetLimitAt(now, rate.Limit(l.rate)) // what has passed counts on
	l.bucket.SetBurstAt(now, size)
}

// serve lets pass what may pass, and sets the timer for what follows. The caller
// holds mu.
func (l *Limiter) serve(now time.Time) {
	l.look(now)
	for l.hungry > 0 {
		k, s := l.next()
		i, part := s.turn(now, int(l.perRound())/l.hungry)
		w := s.queue[i]
		n := w.want
		if l.rate != Unlimited {
			n = min(n, part)
			if !l.bucket.AllowN(now, n) {
				missing := float64(n) - l.bucket.TokensAt(now)
				l.timer.Reset(time.Duration(math.Ceil(missing / float64(l.rate) * float64(time.Second))))
				return
			}
		}
		l.virtual = max(l.virtual, s.tag)
		cost := float64(n)
		if k.background {
			cost *= background
		}
		s.tag += cost
		l.remove(s, i)
		if w.late {
			l.waited += int64(n)
		}
		w.ready <- n
	}
	l.timer.Stop()
}

// turn returns who is next in a queue, and how many bytes it gets of those that a
// flow has in a round: the first of them that are in order, unless somebody has
// waited for too long for a sign of life.
func (s *share) turn(now time.Time, bytes int) (i, part int) {
	if now.Sub(s.queue[0].since) >= signOfLife {
		return 0, leastPart
	}
	alike := 0
	for j, w := range s.queue {
		switch o := s.queue[i].order; {
		case w.order < o:
			i, alike = j, 1
		case w.order == o:
			alike++
		}
	}
	return i, max(leastPart, bytes/alike)
}

// perRound returns how many bytes pass while everybody has a turn: each flow that
// waits gets an equal part of them. A flow that was away for so long has lost
// nothing: a busy machine may keep it from asking in time.
func (l *Limiter) perRound() float64 { return float64(l.rate) * round.Seconds() }

// remove takes who is at index i out of the queue of a flow.
func (l *Limiter) remove(s *share, i int) {
	if s.queue = slices.Delete(s.queue, i, i+1); len(s.queue) == 0 {
		l.hungry--
	}
}

// next returns the flow that has had least and waits for more.
func (l *Limiter) next() (k key, s *share) {
	for name, other := range l.shares {
		if len(other.queue) > 0 && (s == nil || other.tag < s.tag) {
			k, s = name, other
		}
	}
	return k, s
}

// forget drops flows that have no more claim than new ones, and all when nobody
// waits and they are many.
func (l *Limiter) forget() {
	all := l.hungry == 0 && len(l.shares) > maxIdle
	for k, s := range l.shares {
		if len(s.queue) == 0 && (all || s.tag <= l.virtual-l.perRound()) {
			delete(l.shares, k)
		}
	}
}

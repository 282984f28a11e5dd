package exchange

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"shoal/blobcache/blob"
)

// The fills of a node that ask the same repository take turns, so that the
// layers of an image become whole one after the other and a client unpacks one
// while the next comes: two halves at the same moment are worth less than one
// whole. Fills are ordered by their start. The earliest that has something to
// ask for is served first, up to Tuning.OriginRequests requests; the others
// get what is left of those and extraRequests more.
//
// Nobody waits for a fill that has nothing to ask for, because members fetch
// it, or whose requests bring nothing: its turn passes to the next. Images of
// different repositories do not wait for each other at all, nor does a blob of
// one piece, which would end before it had waited.
const (
	// extraRequests keeps the link busy while the fill whose turn it is starts
	// and ends, and gives the origin as many connections as a runtime without
	// Shoal, three. An origin that does not serve ranges sends three layers
	// at once, then.
	extraRequests = 1
	// bringsNothing: after so long without a byte a fill holds no place.
	bringsNothing = 500 * time.Millisecond
	// firstTurn is how long a fill waits for its turn when nobody has said yet
	// that the blob can be had at all: a client waits for the headers. nextTurn
	// is the same for one that has not got a piece for so long, from anybody.
	firstTurn = 500 * time.Millisecond
	nextTurn  = 10 * time.Second
)

// place is the state of a fill in the queue for its repository.
type place struct {
	flying int  // requests in flight
	hungry bool // it would take more
	quiet  bool // it brings nothing
}

// share returns how many more requests the fill at position i of a queue may
// begin, if one alone may have most in flight.
func share(queue []place, i, most int) int {
	free := most + extraRequests
	for j, p := range queue {
		if p.quiet {
			continue
		}
		free -= p.flying
		if j < i && p.hungry {
			free -= max(0, most-p.flying)
		}
	}
	return max(0, min(free, most-queue[i].flying))
}

// turns are the queues of an Exchange, by repository.
type turns struct {
	mu      sync.Mutex
	started uint64
	queues  map[string][]*turn
}

// turn is the place of one fill.
type turn struct {
	turns  *turns
	number uint64 // in order of start
	// awake holds a value when there may be something to ask the origin for.
	awake chan struct{}
	alive atomic.Int64 // when the fill last did something (Unix, in ns)

	// Guarded by turns.mu.
	repository string
	queued     bool
	most       int // as room was told
	flying     int
	hungry     bool
	declined   bool // when it might have begun more; it looks again by itself
}

func newTurns() *turns { return &turns{queues: make(map[string][]*turn)} }

// next returns the turn of a fill that starts now.
func (ts *turns) next() *turn {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.started++
	return &turn{turns: ts, number: ts.started, awake: make(chan struct{}, 1)}
}

// repository names what src is in the queue for. Sources without a name share
// one queue.
func repository(src blob.Source) string {
	if named, ok := src.(fmt.Stringer); ok {
		return named.String()
	}
	return ""
}

// expect puts a fill that is about to ask src into the queue, so that those
// which start after it do not ask before it.
func (t *turn) expect(now time.Time, src blob.Source) {
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	t.enter(repository(src))
	t.hungry = true
	t.alive.Store(now.UnixNano())
}

// room reserves requests for the fill, which asks src and may alone have most
// in flight, and returns how many; begun must follow. urgent means that it
// cannot wait any longer.
func (t *turn) room(now time.Time, src blob.Source, most int, urgent bool) int {
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	t.most = most
	t.enter(repository(src))
	if t.flying == 0 {
		t.alive.Store(now.UnixNano())
	}
	queue := t.turns.queues[t.repository]
	n := share(places(queue, now), slices.Index(queue, t), most)
	if urgent && t.flying == 0 {
		n = max(n, 1)
	}
	t.flying += n
	return n
}

// begun tells that n of the reserved requests were begun, each of which ends
// with ended, and whether the fill would begin more if it might.
func (t *turn) begun(now time.Time, n, reserved int, hungry bool) {
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	t.flying -= reserved - n
	t.hungry, t.declined = hungry, n < reserved
	if n > 0 {
		t.alive.Store(now.UnixNano())
	}
	t.turns.wake(now, t.repository, t)
}

// ended tells that a request has ended.
func (t *turn) ended(now time.Time) {
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	t.flying--
	t.turns.wake(now, t.repository, nil)
}

// leave takes the fill out of the queue: it has no origin to ask, or no need.
func (t *turn) leave(now time.Time) {
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	if t.queued {
		t.remove()
		t.turns.wake(now, t.repository, t)
	}
}

// watch notes every byte that comes from body.
func (t *turn) watch(body io.Reader) io.Reader { return watched{body, t} }

type watched struct {
	io.Reader
	turn *turn
}

// Read is of io.Reader.
func (w watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.turn.alive.Store(time.Now().UnixNano())
	}
	return n, err
}

// enter puts the fill into the queue of a repository. turns.mu is held.
func (t *turn) enter(repository string) {
	if t.queued && t.repository == repository {
		return
	}
	if t.queued { // what is in flight counts here from now on
		t.remove()
	}
	t.repository, t.queued, t.hungry = repository, true, false
	queue := t.turns.queues[repository]
	at, _ := slices.BinarySearchFunc(queue, t.number, func(o *turn, n uint64) int {
		if o.number < n {
			return -1
		}
		return 1
	})
	t.turns.queues[repository] = slices.Insert(queue, at, t)
}

func (t *turn) remove() {
	queue := t.turns.queues[t.repository]
	if i := slices.Index(queue, t); i >= 0 {
		queue = slices.Delete(queue, i, i+1)
	}
	if t.turns.queues[t.repository] = queue; len(queue) == 0 {
		delete(t.turns.queues, t.repository)
	}
	t.queued = false
}

func places(queue []*turn, now time.Time) []place {
	ps := make([]place, len(queue))
	for i, t := range queue {
		quiet := now.UnixNano()-t.alive.Load() >= int64(bringsNothing)
		ps[i] = place{flying: t.flying, hungry: t.hungry, quiet: quiet}
	}
	return ps
}

// wake wakes the first fill of a queue but one that would ask and may; when that
// has taken what it wants, it wakes the next. Those that hold a place and are not
// ready to ask would wake each other all the time. ts.mu is held.
func (ts *turns) wake(now time.Time, repository string, but *turn) {
	queue := ts.queues[repository]
	ps := places(queue, now)
	for i, t := range queue {
		if t != but && t.hungry && !t.declined && share(ps, i, t.most) > 0 {
			select {
			case t.awake <- struct{}{}:
			default:
			}
			return
		}
	}
}

// grant is what a fill may ask the origin for: so many requests by its turn, if
// it takes turns, and so many of these by the memory that is left.
type grant struct {
	turn            *turn
	reserved, slots int
}

// reserve reserves requests to the origin; use must follow.
func (d *driver) reserve() grant {
	most := d.x.limits.plan.OriginRequests
	if !d.takesTurns() {
		return grant{nil, most, d.x.origin.take(most)}
	}
	now, src := time.Now(), d.origins.current()
	if src == nil {
		d.turn.leave(now)
		return grant{}
	}
	patience := firstTurn
	if d.settled {
		patience = nextTurn
	}
	n := d.turn.room(now, src, most, d.first != nil || now.Sub(d.stored) >= patience)
	return grant{d.turn, n, d.x.origin.take(n)}
}

// use gives back what of a grant was not used, and reports whether it was
// memory that was missing.
func (d *driver) use(g grant, begun int) (full bool) {
	d.x.origin.give(g.slots - begun)
	if g.turn != nil {
		// A fill that waits for what members say is about to ask, and those
		// that started after it do not ask before it.
		soon := !d.aimed && d.held < d.x.limits.swarmFirst
		g.turn.begun(time.Now(), begun, g.reserved, soon || begun == g.reserved)
	}
	return begun == g.slots && g.slots < g.reserved
}

// takesTurns reports whether the fill waits for others.
func (d *driver) takesTurns() bool { return d.want.Size > blob.PieceSize }

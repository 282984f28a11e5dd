package plan

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"
)

const (
	testPiece = 1 << 20
	chunk     = testPiece / 4
	mb        = 1e6
)

// world drives a Plan on virtual time: sources with rates, delays, deaths and
// lies, and a log of all that was asked. It calls Next only after events and
// when NextWake says so, so a wake-up that the plan forgets shows as a fill
// that never ends.
type world struct {
	t       *testing.T
	plan    *Plan
	pieces  int
	now     time.Duration
	events  events
	seq     int
	sources map[Member]*source
	open    map[ID]*transfer
	asked   []Request
	got     map[Member]int // pieces delivered by
	arrived []int          // pieces in order of delivery
	most    map[Member]int // requests in flight at most
	limit   time.Duration
	enough  int // pieces after which run returns; 0 is all
}

// source is one member as it really is.
type source struct {
	rate     float64 // bytes a second over all requests
	delay    time.Duration
	dies     time.Duration // fails everything from then on; 0 never
	freezes  time.Duration // says nothing from then on; 0 never
	thaws    time.Duration // goes on from here
	lies     map[int]bool  // pieces that it gives wrongly
	unranged bool          // origin: ignores ranges
	queue    []*transfer
	serving  bool
	ends     []time.Duration // when requests ended
}

type transfer struct {
	Request
	left  int64
	piece int   // position
	at    int64 // bytes of it that came
	ready bool
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any     { l := len(*e) - 1; x := (*e)[l]; *e = (*e)[:l]; return x }

func newWorld(t *testing.T, pieces int, seed uint64) *world {
	t.Helper()
	return &world{
		t: t, pieces: pieces, limit: time.Hour,
		plan: New(Config{
			// The last piece is a short one.
			Size: int64(pieces)*testPiece - testPiece/3, PieceSize: testPiece, Seed: seed, Tuning: Defaults(),
		}),
		sources: map[Member]*source{}, open: map[ID]*transfer{},
		got: map[Member]int{}, most: map[Member]int{},
	}
}

// origin adds an origin that may be asked from the start.
func (w *world) origin(rate float64) *source {
	w.plan.OriginFrom(0, 0)
	w.sources[Origin] = &source{rate: rate, delay: 20 * time.Millisecond}
	return w.sources[Origin]
}

// member adds a member with the given pieces; nil means all.
func (w *world) member(m Member, rate float64, has *bitset.BitSet) *source {
	w.plan.Join(m, uint64(m), false)
	w.plan.Told(w.now, m, State{Whole: has == nil, Has: has})
	w.sources[m] = &source{rate: rate, delay: time.Millisecond}
	return w.sources[m]
}

func (w *world) at(t time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{at: max(t, w.now), seq: w.seq, do: do})
}

// run drives the plan until every piece is here, and returns how long it took.
func (w *world) run() time.Duration {
	w.t.Helper()
	for {
		w.carry(w.plan.Next(w.now, Room{Members: 1000, Origin: 1000}))
		if w.plan.Done() || w.enough > 0 && len(w.arrived) >= w.enough {
			return w.now
		}
		wake, ok := w.plan.NextWake(w.now)
		if ok {
			w.at(wake, func() {})
		}
		if len(w.events) == 0 {
			w.t.Fatalf("at %v: nothing will ever happen, %d of %d pieces missing", w.now, w.plan.Missing(), w.pieces)
		}
		e := heap.Pop(&w.events).(event)
		if w.now = e.at; w.now > w.limit {
			w.t.Fatalf("after %v %d of %d pieces are missing", w.now, w.plan.Missing(), w.pieces)
		}
		e.do()
	}
}

func (w *world) carry(o Orders) {
	for _, id := range o.Cancel {
		w.end(id)
	}
	for _, r := range o.Start {
		w.asked = append(w.asked, r)
		tr := &transfer{Request: r, piece: r.First, left: w.plan.bytes(r.First, r.Count)}
		w.open[r.ID] = tr
		inFlight := 0
		for _, o := range w.open {
			if o.Member == r.Member {
				inFlight++
			}
		}
		w.most[r.Member] = max(w.most[r.Member], inFlight)
		s := w.sources[r.Member]
		w.at(w.now+s.delay, func() { w.begin(s, tr) })
	}
}

func (w *world) end(id ID) {
	tr := w.open[id]
	if tr == nil {
		w.t.Fatalf("an order to cancel request %d, which is not open", id)
	}
	delete(w.open, id)
	s := w.sources[tr.Member]
	s.ends = append(s.ends, w.now)
}

func (w *world) begin(s *source, tr *transfer) {
	if w.open[tr.ID] == nil {
		return
	}
	if s.dead(w.now) {
		w.end(tr.ID)
		w.plan.Failed(w.now, tr.ID, true)
		return
	}
	if tr.Member == Origin {
		w.plan.Answered(w.now, tr.ID, !s.unranged)
		if s.unranged {
			tr.First, tr.Count, tr.piece = 0, w.pieces, 0
		}
	}
	tr.ready = true
	s.queue = append(s.queue, tr)
	w.serve(s)
}

func (s *source) dead(now time.Duration) bool { return s.dies > 0 && now >= s.dies }

// serve sends the next chunk, turn by turn over the open requests.
func (w *world) serve(s *source) {
	if s.serving || len(s.queue) == 0 {
		return
	}
	tr := s.queue[0]
	s.queue = s.queue[1:]
	if w.open[tr.ID] == nil {
		w.serve(s)
		return
	}
	s.serving = true
	n := min(chunk, w.plan.bytes(tr.piece, 1)-tr.at)
	done := w.now + time.Duration(float64(n)/s.rate*float64(time.Second))
	if s.freezes > 0 && done >= s.freezes && done < s.thaws {
		done = s.thaws
	}
	if s.freezes > 0 && done >= s.freezes && s.thaws == 0 {
		return // never again
	}
	w.at(done, func() {
		s.serving = false
		w.chunk(s, tr, n)
		w.serve(s)
	})
}

func (w *world) chunk(s *source, tr *transfer, n int64) {
	if w.open[tr.ID] == nil {
		return
	}
	if s.dead(w.now) {
		w.end(tr.ID)
		w.plan.Failed(w.now, tr.ID, true)
		return
	}
	w.plan.Progress(w.now, tr.ID, n)
	if tr.at += n; tr.at == w.plan.bytes(tr.piece, 1) {
		i := tr.piece
		w.plan.Delivered(w.now, tr.ID)
		w.got[tr.Member]++
		w.arrived = append(w.arrived, i)
		if s.lies[i] {
			w.plan.Lost(i, tr.Member, true)
		}
		tr.piece, tr.at = i+1, 0
	}
	if tr.piece == tr.First+tr.Count {
		w.end(tr.ID)
		return
	}
	s.queue = append(s.queue, tr)
}

// twice returns how many more pieces were delivered than there are.
func (w *world) twice() int { return len(w.arrived) - w.pieces }

func some(rng *rand.Rand, pieces int, share float64) *bitset.BitSet {
	set := bitset.New(uint(pieces))
	for i := range pieces {
		if rng.Float64() < share {
			set.Set(uint(i))
		}
	}
	return set
}

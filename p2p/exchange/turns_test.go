package exchange

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/channel"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

func TestShare(t *testing.T) {
	const most = 2 // and three in all
	p := func(flying int, hungry bool) place { return place{flying: flying, hungry: hungry} }
	for name, c := range map[string]struct {
		queue []place
		i     int
		want  int
	}{
		"alone":                              {[]place{p(0, false)}, 0, most},
		"alone, at its most":                 {[]place{p(most, true)}, 0, 0},
		"behind one that has all it may":     {[]place{p(2, true), p(0, true)}, 1, 1},
		"behind one that would take more":    {[]place{p(1, true), p(0, true)}, 1, 1},
		"behind two of them":                 {[]place{p(1, true), p(1, true), p(0, true)}, 2, 0},
		"behind one that is waited for":      {[]place{p(0, true), p(1, true)}, 1, 0},
		"behind one that has enough":         {[]place{p(1, false), p(0, true)}, 1, 2},
		"behind one with nothing to ask for": {[]place{p(0, false), p(0, true)}, 1, 2},
		"the first, when others have begun":  {[]place{p(0, true), p(2, true), p(0, true)}, 0, 1},
		"the first, when others have all":    {[]place{p(0, true), p(2, true), p(1, true)}, 0, 0},
		"behind one that brings nothing":     {[]place{{flying: 2, hungry: true, quiet: true}, p(0, true)}, 1, 2},
		"behind many that bring nothing": {[]place{
			{flying: 2, hungry: true, quiet: true}, {flying: 2, quiet: true}, {hungry: true, quiet: true}, p(1, true),
		}, 3, 1},
		"one that brings nothing": {[]place{{flying: 2, hungry: true, quiet: true}}, 0, 0},
	} {
		if got := share(c.queue, c.i, most); got != c.want {
			t.Errorf("%s: %d more requests, want %d", name, got, c.want)
		}
	}
}

// named is a source with a name and no bytes.
type named string

func (n named) String() string { return string(n) }

func (named) Open(context.Context, blob.Descriptor, blob.Range) (*blob.Stream, error) {
	return nil, blob.ErrNotFound
}

// worker plays a fill for a simulated queue.
type worker struct {
	*turn
	src   blob.Source
	wants int         // requests that it still has to begin
	ends  []time.Time // of those in flight
	ready time.Time   // has nothing to ask for before
	stuck bool        // its requests never end and bring nothing
	done  time.Time
	last  time.Time // begun a request
}

const simulated = 20 * time.Millisecond // a request

// step is one look of the driver.
func (w *worker) step(now time.Time, rng *mrand.Rand) {
	n := w.room(now, w.src, 2, now.Sub(w.last) >= nextTurn)
	use := min(n, w.wants)
	if now.Before(w.ready) {
		use = 0
	}
	w.begun(now, use, n, use == n)
	w.wants -= use
	for range use {
		w.last = now
		w.ends = append(w.ends, now.Add(simulated/2+time.Duration(rng.Int64N(int64(simulated)))))
	}
}

// pass lets requests end, and reports whether the driver heard of something.
func (w *worker) pass(now time.Time) (event bool) {
	select {
	case <-w.awake:
		event = true
	default:
	}
	for i := 0; i < len(w.ends) && !w.stuck; i++ {
		if w.alive.Store(now.UnixNano()); !now.Before(w.ends[i]) {
			w.ends = append(w.ends[:i], w.ends[i+1:]...)
			w.ended(now)
			event = true
			i--
		}
	}
	if w.wants == 0 && len(w.ends) == 0 && w.done.IsZero() {
		w.done = now
		w.leave(now)
	}
	return event
}

// simulate runs until every worker that can has its requests, and returns the
// most requests of the honest ones in flight at once. It fails if something
// could have been asked for and was not.
func simulate(t *testing.T, workers []*worker, rng *mrand.Rand) (most int) {
	t.Helper()
	now := time.Unix(1e9, 0)
	for _, w := range workers {
		w.last = now
	}
	ticks := make([]time.Time, len(workers))
	idle := time.Duration(0)
	for end := now.Add(time.Hour); ; now = now.Add(time.Millisecond) {
		if now.After(end) {
			t.Fatal("they do not end")
		}
		left, flying, eager, patience := 0, 0, 0, 2*tick
		for settled := false; !settled; { // what follows at once
			settled = true
			for i, w := range workers {
				if event := w.pass(now); w.done.IsZero() && (event || !now.Before(ticks[i])) {
					w.step(now, rng)
					ticks[i] = now.Add(tick)
					settled = settled && !event
				}
			}
		}
		for _, w := range workers {
			if w.stuck {
				patience += bringsNothing + 2*tick
				continue
			}
			flying += len(w.ends)
			if w.done.IsZero() {
				left++
			}
			if w.wants > 0 && len(w.ends) < 2 && !now.Before(w.ready.Add(tick)) {
				eager++
			}
		}
		if left == 0 {
			return most
		}
		most = max(most, flying)
		if idle += time.Millisecond; flying >= 3 || eager == 0 {
			idle = 0
		}
		if idle > patience {
			t.Fatalf("%d fills wait, and only %d requests are in flight", eager, flying)
		}
	}
}

// TestTurnsEnd for any fills: some have nothing to ask for at first, some hang.
func TestTurnsEnd(t *testing.T) {
	for seed := range uint64(300) {
		rng := mrand.New(mrand.NewPCG(seed, 1))
		ts := newTurns()
		start := time.Unix(1e9, 0)
		var workers []*worker
		for range 1 + rng.IntN(8) {
			w := &worker{turn: ts.next(), src: named("a"), wants: rng.IntN(40), stuck: rng.IntN(6) == 0}
			if rng.IntN(3) == 0 {
				w.ready = start.Add(time.Duration(rng.Int64N(int64(time.Second))))
			}
			workers = append(workers, w)
		}
		most := simulate(t, workers, rng)
		if limit := 3; most > limit {
			t.Errorf("seed %d: %d requests at once", seed, most)
		}
		for _, w := range workers {
			w.leave(start)
		}
		if len(ts.queues) != 0 {
			t.Fatalf("%d queues are left", len(ts.queues))
		}
	}
}

// TestTurnsKeepOrder of fills that have enough to ask for.
func TestTurnsKeepOrder(t *testing.T) {
	for seed := range uint64(50) {
		rng := mrand.New(mrand.NewPCG(seed, 2))
		ts := newTurns()
		workers := make([]*worker, 6)
		for i := range workers {
			workers[i] = &worker{turn: ts.next(), src: named("a"), wants: 100}
		}
		rng.Shuffle(len(workers), func(i, j int) { workers[i], workers[j] = workers[j], workers[i] }) // who looks first
		simulate(t, workers, rng)
		for _, w := range workers {
			// Two of three requests are those of the first that needs them.
			first, last := time.Duration(w.number-1)*2*simulated*100/6, time.Duration(w.number+1)*simulated*100/2
			if took := w.done.Sub(time.Unix(1e9, 0)); took < first || took > last {
				t.Errorf("seed %d: number %d was done after %v", seed, w.number, took)
			}
		}
	}
}

func TestTurnsOfOthers(t *testing.T) {
	ts := newTurns()
	now := time.Unix(1e9, 0)
	a, b, c := ts.next(), ts.next(), ts.next()
	take := func(tn *turn, repo string, urgent bool) int {
		n := tn.room(now, named(repo), 2, urgent)
		tn.begun(now, n, n, true)
		return n
	}
	if na, nb, nc := take(a, "a", false), take(b, "a", false), take(c, "other", false); na != 2 || nb != 1 || nc != 2 {
		t.Errorf("%d, %d and, of another repository, %d requests", na, nb, nc)
	}
	d := ts.next()
	if n := take(d, "a", false); n != 0 {
		t.Errorf("%d requests of the third", n)
	}
	if n := take(d, "a", true); n != 1 {
		t.Errorf("%d requests of one that cannot wait", n)
	}
	if n := take(d, "a", true); n != 0 {
		t.Errorf("%d more requests of one that has one", n)
	}
	if n := take(b, "other", false); n != 0 || len(ts.queues["a"]) != 2 {
		t.Errorf("%d requests in the queue of another source, %d left in the own", n, len(ts.queues["a"]))
	}
}

// TestTurnsWake the first that waits, and the next when that one declines.
func TestTurnsWake(t *testing.T) {
	ts := newTurns()
	now := time.Unix(1e9, 0)
	var q [4]*turn
	for i := range q {
		q[i] = ts.next()
		n := q[i].room(now, named("a"), 2, false)
		q[i].begun(now, n, n, true)
	}
	woken := func(want ...int) {
		t.Helper()
		var got []int
		for i := range q {
			select {
			case <-q[i].awake:
				got = append(got, i)
			default:
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v were woken, want %v", got, want)
		}
	}
	woken()
	q[1].ended(now)
	woken(1) // the first has all that it may
	n := q[1].room(now, named("a"), 2, false)
	q[1].begun(now, 0, n, false)
	woken(2)
	n = q[2].room(now, named("a"), 2, false)
	q[2].begun(now, n, n, true)
	woken()
	q[0].leave(now)
	woken(2)
}

// TestTurnsLeaveAloneWhoIsNotReady: fills that hold their places for later do
// not wake each other.
func TestTurnsLeaveAloneWhoIsNotReady(t *testing.T) {
	ts := newTurns()
	now := time.Unix(1e9, 0)
	first, second, third := ts.next(), ts.next(), ts.next()
	take := func(q *turn, begin int, hungry bool) {
		n := q.room(now, named("a"), 2, false)
		q.begun(now, min(begin, n), n, hungry)
	}
	take(first, 0, true)
	take(second, 0, true)
	take(third, 0, true)
	if len(first.awake)+len(second.awake) > 0 {
		t.Error("one that has declined was woken")
	}
	take(first, 2, true) // it is ready now
	first.ended(now)
	if len(first.awake) != 1 {
		t.Error("one that would ask was not woken")
	}
}

// TestTurnsExpectWhoStartedFirst although others look sooner.
func TestTurnsExpectWhoStartedFirst(t *testing.T) {
	bubble(t, origintest.Options{Latency: time.Second}, func(m *member, r *origintest.Registry, src func(string) blob.Source) {
		want := make(map[string]bool)
		all := make([]blob.Descriptor, 16)
		for i := range all {
			all[i] = r.AddBlob("test/image", content(byte(i), 4*mib))
			want[all[i].Digest.String()] = i < 3
		}
		for i, d := range all {
			if _, _, err := m.drive(d, src("test/image")); err != nil {
				t.Error(err)
			}
			m.turns.mu.Lock()
			if n := len(m.turns.queues["test.example/test/image"]); n != i+1 {
				t.Errorf("%d of %d are expected", n, i+1)
			}
			m.turns.mu.Unlock()
		}
		time.Sleep(firstTurn / 2) //nolint:forbidigo // within a bubble nobody waits
		asked := r.Requests()
		for _, q := range asked {
			if !want[q.Ref] {
				t.Errorf("somebody else was first: %v", q)
			}
		}
		if len(asked) != 3 {
			t.Errorf("%d have asked", len(asked))
		}
	})
}

// TestFreeSlotsAreUsed at once: where a round trip is long, a slot that stays
// free for a while is time lost.
func TestFreeSlotsAreUsed(t *testing.T) {
	bubble(t, origintest.Options{Latency: 100 * time.Millisecond}, func(m *member, r *origintest.Registry, src func(string) blob.Source) {
		m.limits.plan.RunPieces = 1
		var all []blob.Descriptor
		for i := range 12 {
			all = append(all, r.AddBlob("test/image", content(byte(i), 4*mib)))
		}
		start := time.Now()
		m.fillAll(all, func(int) blob.Source { return src("test/image") }, func(int) {})
		if took := time.Since(start); took > 3300*time.Millisecond { // 2 s of bytes, and a round trip for each of three requests
			t.Errorf("it took %v", took)
		}
	})
}

// bubble runs test with a member that is alone, and a registry at the end of a
// link of 25 MB/s, in the time of a synctest bubble.
func bubble(t *testing.T, o origintest.Options, test func(m *member, r *origintest.Registry, src func(repo string) blob.Source)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.UplinkBitsPerSecond = 200e6
		reg, pipe := origintest.New(o), origintest.NewPipe()
		srv := origintest.Serve(pipe, reg)
		c, err := origin.New(origin.Options{Registries: origin.Registries{"test.example": {Upstreams: []string{"http://origin.test"}}}, Dial: pipe.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		m := &member{mesh: newMesh(t), dir: t.TempDir(), log: &journal{}, alone: true}
		id, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		m.key = id
		if m.chann, err = channel.New(id, m.mesh.key); err != nil {
			t.Fatal(err)
		}
		m.open(blobcache.Options{})
		test(m, reg, func(name string) blob.Source {
			repo, err := c.Repository("test.example", name)
			if err != nil {
				t.Fatal(err)
			}
			return repo.Blobs()
		})
		m.close()
		if len(m.turns.queues) != 0 {
			t.Error("fills that have ended are still in the queue")
		}
		c.Close()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) //nolint:forbidigo // within a bubble nobody waits: net/http lingers on connections
	})
}

// fillAll fetches all blobs, which are started in their order, and calls done
// for each that has ended.
func (m *member) fillAll(all []blob.Descriptor, src func(i int) blob.Source, done func(i int)) {
	m.mesh.t.Helper()
	ended := make(chan error)
	for i, d := range all {
		go func() {
			f, err := m.Fetch(m.mesh.t.Context(), d, src(i))
			if err == nil {
				<-f.Done()
				err = f.Err()
			}
			done(i)
			ended <- err
		}()
		synctest.Wait()
	}
	for range all {
		if err := <-ended; err != nil {
			m.mesh.t.Error(err)
		}
	}
}

// TestLayersComeInOrder: the first of four is whole when the origin has given
// little of the others, and so on.
func TestLayersComeInOrder(t *testing.T) {
	const size = 32 * mib
	bubble(t, origintest.Options{}, func(m *member, r *origintest.Registry, src func(string) blob.Source) {
		var all []blob.Descriptor
		for i := range 4 {
			all = append(all, r.AddBlob("test/image", content(byte(i), size)))
		}
		m.limits.plan.RunPieces = 1 // or a request is an eighth of a layer
		var order []string
		m.fillAll(all, func(int) blob.Source { return src("test/image") }, func(i int) {
			order = append(order, fmt.Sprint(i))
			left := float64(r.Stats().ContentBytes()) / size
			if most := []float64{1.65, 2.5, 3.5, 4}[i]; left > most {
				t.Errorf("layer %d is whole when %.2f layers have left the origin, want at most %.2f", i, left, most)
			}
		})
		if got := strings.Join(order, ""); got != "0123" {
			t.Errorf("the layers came in the order %s", got)
		}
	})
}

// TestRepositoriesDoNotWait for each other, nor small blobs for large ones.
func TestRepositoriesDoNotWait(t *testing.T) {
	const size = 16 * mib
	bubble(t, origintest.Options{}, func(m *member, r *origintest.Registry, src func(string) blob.Source) {
		var all []blob.Descriptor
		for i := range 4 {
			all = append(all, r.AddBlob("test/image", content(byte(i), size)))
		}
		all = append(all, r.AddBlob("other/image", content(4, size)), r.AddBlob("test/image", content(5, mib)))
		m.fillAll(all, func(i int) blob.Source {
			if i == 4 {
				return src("other/image")
			}
			return src("test/image")
		}, func(i int) {
			left := float64(r.Stats().ContentBytes()) / size
			if most := []float64{6, 6, 6, 6, 3.5, 1}[i]; left > most {
				t.Errorf("blob %d is whole when %.2f layers have left the origin, want at most %.2f", i, left, most)
			}
		})
	})
}

// TestSilentLayerHoldsNobodyUp, and the clients of a layer that has to wait get
// their headers.
func TestSilentLayerHoldsNobodyUp(t *testing.T) {
	const size = 16 * mib
	bubble(t, origintest.Options{}, func(m *member, r *origintest.Registry, src func(string) blob.Source) {
		var all []blob.Descriptor
		for i := range 3 {
			all = append(all, r.AddBlob("test/image", content(byte(i), size)))
		}
		r.Fault(origintest.Fault{Kind: origintest.Blob, Ref: all[0].Digest.String(), Effect: origintest.SilenceAfter(mib)})
		start := time.Now()
		go func() { _, _ = m.Fetch(m.mesh.t.Context(), all[0], src("test/image")) }()
		synctest.Wait()
		m.fillAll(all[1:], func(int) blob.Source { return src("test/image") }, func(i int) {
			if took := time.Since(start); took > 3*time.Second { // they take 1.3 s alone
				t.Errorf("layer %d came after %v", i+1, took)
			}
		})
	})
}

func TestEveryFillCommitsItself(t *testing.T) {
	bubble(t, origintest.Options{Latency: 20 * time.Millisecond}, func(m *member, r *origintest.Registry, src func(string) blob.Source) {
		var all []blob.Descriptor
		for i := range 8 {
			all = append(all, r.AddBlob("test/image", content(byte(i), 64*mib)))
		}
		for i, d := range all {
			go func() {
				start := time.Now()
				_, err := m.Fetch(m.mesh.t.Context(), d, src("test/image"))
				if took := time.Since(start); err != nil || took > 2*firstTurn {
					t.Errorf("layer %d: %v after %v", i, err, took)
				}
			}()
			synctest.Wait()
		}
		time.Sleep(5 * time.Second) //nolint:forbidigo // within a bubble nobody waits
	})
}

func TestWatchedBodyIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTurns().next()
		time.Sleep(time.Minute) //nolint:forbidigo // within a bubble nobody waits
		if _, err := io.ReadAll(tn.watch(strings.NewReader("x"))); err != nil || tn.alive.Load() != time.Now().UnixNano() {
			t.Errorf("a byte is not noted: %v", err)
		}
	})
}

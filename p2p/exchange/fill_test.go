package exchange

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/plan"
	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

const mib = 1 << 20

// impatient shortens the deadlines of a member that nobody can help.
func (m *member) impatient() *member {
	m.limits.commit, m.limits.retry = 2*time.Second, 200*time.Millisecond
	m.limits.alone, m.limits.stalled = 300*time.Millisecond, time.Second
	m.limits.plan.StallAfter, m.limits.plan.DeadAfter = 300*time.Millisecond, 900*time.Millisecond
	return m
}

func TestOriginAlone(t *testing.T) {
	data := content(1, 10*mib+77)
	reg := newRegistry(t, origintest.Options{}, data)
	m := newMesh(t).member(nil)
	m.mustPull(data, reg.src)
	name := "GET blob " + reg.d.Digest.String()
	want := []string{
		name + " bytes=0-4194303 -> 206",
		name + " bytes=4194304-8388607 -> 206",
		name + " bytes=8388608-10485836 -> 206",
	}
	got := reg.Registry.Lines()
	slices.Sort(got[1:]) // the others run side by side
	slices.Sort(want[1:])
	if !slices.Equal(got, want) {
		t.Errorf("the origin saw\n%s", strings.Join(got, "\n"))
	}
	if reg.gave() != reg.d.Size || m.metric("shoal_p2p_fetched_bytes_total", "origin") != reg.d.Size {
		t.Errorf("the origin gave %d bytes of %d", reg.gave(), reg.d.Size)
	}
	eventually(t, "no fill counts as ok", func() bool { return m.metric("shoal_p2p_fills_total", "ok") == 1 })
}

func TestSizes(t *testing.T) {
	mesh := newMesh(t)
	holder, puller := mesh.member(nil), mesh.member(nil)
	for i, size := range []int{0, 1, mib - 1, mib, mib + 1, 5*mib - 1, 5 * mib} {
		data := content(byte(i), size)
		holder.seed(data)
		puller.mustPull(data, nil)
	}
	if n := puller.metric("shoal_p2p_piece_errors_total", ""); n != 0 {
		t.Errorf("%d piece errors", n)
	}
}

func TestHoldersSpareTheOrigin(t *testing.T) {
	data := content(1, 24*mib+5)
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	a, b, m := mesh.member(nil), mesh.member(nil), mesh.member(nil)
	a.seed(data)
	b.seed(data)
	m.mustPull(data, reg.src)
	if n := len(reg.Registry.Requests()); n != 0 {
		t.Errorf("the origin saw %v", reg.Registry.Lines())
	}
	fromA, fromB := a.served(), b.served()
	if fromA == 0 || fromB == 0 || fromA+fromB < int64(len(data)) {
		t.Errorf("one gave %d bytes, the other %d", fromA, fromB)
	}
	if n := m.metric("shoal_p2p_fetched_bytes_total", "peers"); n < int64(len(data)) {
		t.Errorf("%d bytes from peers", n)
	}
}

func TestRunningFillIsJoined(t *testing.T) {
	data := content(1, 8*mib)
	reg := newRegistry(t, origintest.Options{Latency: 50 * time.Millisecond}, data)
	m := newMesh(t).member(nil)
	var fills [4]*blobcache.Fill
	for i := range fills {
		var err error
		if fills[i], err = m.Fetch(t.Context(), reg.d, reg.src); err != nil {
			t.Fatal(err)
		}
	}
	<-fills[0].Done()
	if fills[3] != fills[0] && !ended(fills[3]) {
		t.Error("a second fill of the same blob")
	}
	m.mustPull(data, reg.src) // from the cache
	if reg.gave() != reg.d.Size {
		t.Errorf("the origin gave %d bytes of %d", reg.gave(), reg.d.Size)
	}
}

func TestFillGoesOnWithoutReaders(t *testing.T) {
	data := content(1, 8*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	m := newMesh(t).member(nil)
	ctx, cancel := context.WithCancel(t.Context())
	f, err := m.Fetch(ctx, reg.d, reg.src)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-f.Done()
	if f.Err() != nil {
		t.Error(f.Err())
	}
}

func TestCallerMayLeaveBeforeAnybodyCommits(t *testing.T) {
	data := content(1, mib)
	reg := newRegistry(t, origintest.Options{}, data)
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Times: 1, Effect: origintest.Delay(300 * time.Millisecond)})
	m := newMesh(t).member(nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("left")
	cancel(left)
	if _, err := m.Fetch(ctx, reg.d, reg.src); !errors.Is(err, left) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the fill did not go on", func() bool { _, ok := m.cache.Stat(reg.d.Digest); return ok })
}

func TestUnknownSize(t *testing.T) {
	data := content(1, 6*mib+1)
	unknown := blob.Descriptor{Digest: describe(data).Digest, Size: blob.UnknownSize}
	t.Run("origin tells", func(t *testing.T) {
		reg := newRegistry(t, origintest.Options{}, data)
		m := newMesh(t).member(nil)
		if got, err := m.pull(unknown, reg.src); err != nil || describe(got) != describe(data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		// The answer that told the size is the first of the fill.
		if reg.gave() != reg.d.Size || len(reg.Registry.Requests()) != 2 {
			t.Errorf("the origin gave %d bytes in %v", reg.gave(), reg.Registry.Lines())
		}
	})
	t.Run("holder tells", func(t *testing.T) {
		reg := newRegistry(t, origintest.Options{}, data)
		mesh := newMesh(t)
		mesh.member(nil).seed(data)
		m := mesh.member(nil)
		if got, err := m.pull(unknown, reg.src); err != nil || describe(got) != describe(data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if n := len(reg.Registry.Requests()); n != 0 {
			t.Errorf("the origin saw %v", reg.Registry.Lines())
		}
	})
	t.Run("nobody tells", func(t *testing.T) {
		reg := newRegistry(t, origintest.Options{}, data)
		reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Chunked()})
		reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.IgnoreRange()})
		m := newMesh(t).member(nil).impatient()
		if _, err := m.pull(unknown, reg.src); !errors.Is(err, blob.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("joins the fill of the size", func(t *testing.T) {
		reg := newRegistry(t, origintest.Options{UplinkBitsPerSecond: 100e6}, data)
		m := newMesh(t).member(nil)
		f, err := m.Fetch(t.Context(), reg.d, reg.src)
		if err != nil {
			t.Fatal(err)
		}
		g, err := m.Fetch(t.Context(), unknown, reg.src)
		if err != nil {
			t.Fatal(err)
		}
		if f != g && !ended(g) {
			t.Error("another fill")
		}
		<-g.Done()
	})
}

func TestNobodyHasIt(t *testing.T) {
	t.Parallel()
	data := content(1, 3*mib)
	status := func(code int) func(*registry) {
		return func(r *registry) {
			r.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Status(code)})
		}
	}
	for _, c := range []struct {
		name  string
		fault func(*registry) // nil: no origin
		want  error
	}{
		{"no origin", nil, blob.ErrNotFound},
		{"404", status(404), blob.ErrNotFound},
		{"403", status(403), blob.ErrDenied},
		{"500", status(500), blob.ErrUnavailable},
		{"silent", func(r *registry) {
			r.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Silence()})
		}, blob.ErrUnavailable},
		{"web page", func(r *registry) {
			r.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.HTML()})
		}, blob.ErrUnavailable},
		{"other size", func(r *registry) {
			r.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Body(data[:100])})
		}, blob.ErrCorrupt},
	} {
		for _, size := range []int64{int64(len(data)), blob.UnknownSize} {
			if c.name == "other size" && size < 0 {
				continue // then it is believed
			}
			for _, alone := range []bool{true, false} {
				t.Run(fmt.Sprint(c.name, size, alone), func(t *testing.T) {
					t.Parallel()
					m := newMesh(t).member(nil).impatient()
					m.alone = alone
					var src blob.Source
					if c.fault != nil {
						reg := newRegistry(t, origintest.Options{}, data)
						c.fault(reg)
						src = reg.src
					}
					d := describe(data)
					d.Size = size
					if _, err := m.pull(d, src); !errors.Is(err, c.want) {
						t.Errorf("got %v, want %v", err, c.want)
					}
					if len(m.Fills()) != 0 || len(m.cache.Blobs()) != 0 {
						t.Error("something is left")
					}
				})
			}
		}
	}
}

func TestOriginIsAskedAtOnceWithoutMembers(t *testing.T) {
	data := content(1, mib)
	reg := newRegistry(t, origintest.Options{}, data)
	m := newMesh(t).member(nil) // its patience with members is a minute
	m.alone = true
	m.mustPull(data, reg.src)
}

func TestOriginIsAskedWhenMembersSaidNo(t *testing.T) {
	data := content(1, mib)
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	mesh.member(nil).announce(reg.d) // and has nothing
	mesh.member(nil).mustPull(data, reg.src)
	if reg.gave() != reg.d.Size {
		t.Errorf("the origin gave %d bytes of %d", reg.gave(), reg.d.Size)
	}
}

func TestOriginFaults(t *testing.T) {
	t.Parallel()
	data := content(1, 9*mib+1)
	wrong := content(1, 9*mib+1)
	wrong[5*mib] ^= 1
	for _, c := range []struct {
		name   string
		effect origintest.Effect
		times  int // 0: always
		want   error
	}{
		{"no range", origintest.IgnoreRange(), 0, nil},
		{"length too long", origintest.LieLength(10), 1, nil},
		{"length too short", origintest.LieLength(-10), 1, nil},
		{"other digest", origintest.LieDigest(describe(wrong).Digest), 1, nil},
		{"early close", origintest.CloseEarly(1500000), 3, nil},
		{"silence", origintest.Silence(), 1, blob.ErrStalled}, // nothing went out: the client asks elsewhere
		{"silence midway", origintest.SilenceAfter(1500000), 1, nil},
		{"web page", origintest.HTML(), 1, nil},
		{"500", origintest.Status(500), 1, nil},
		{"429", origintest.TooMany(0), 2, nil},
		{"other range", origintest.LieRange("bytes 5-9/100"), 1, nil},
		{"dropped", origintest.Drop(), 2, nil},
		{"corrupt", origintest.Corrupt(5 * mib), 0, blob.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, origintest.Options{}, data)
			reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Times: c.times, Effect: c.effect})
			m := newMesh(t).member(nil)
			got, err := m.pull(reg.d, reg.src)
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Fatalf("got %v, want %v\n%s", err, c.want, m.log)
			}
			if err == nil && describe(got) != describe(data) {
				t.Error("other bytes")
			}
			m.checkBlobs()
			if _, ok := m.cache.Stat(reg.d.Digest); ok != (c.want == nil) {
				t.Errorf("in the cache: %v", ok)
			}
		})
	}
}

func TestOriginWithoutRangeIsReadOnce(t *testing.T) {
	data := content(1, 9*mib+1)
	reg := newRegistry(t, origintest.Options{NoRange: true}, data)
	newMesh(t).member(nil).mustPull(data, reg.src)
	if reg.gave() != reg.d.Size || len(reg.Registry.Requests()) != 1 {
		t.Errorf("the origin gave %d bytes of %d in %v", reg.gave(), reg.d.Size, reg.Registry.Lines())
	}
}

func TestOriginDiesMidwayHoldersGoOn(t *testing.T) {
	data := content(1, 16*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	m := mesh.member(nil)
	// The origin gives a part and then nothing; then a holder appears.
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Skip: 2, Effect: origintest.Drop()})
	holder := mesh.member(nil)
	f, err := m.Fetch(t.Context(), reg.d, reg.src)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing from the origin", func() bool { return f.Have().Count() >= 8 })
	holder.seed(data)
	m.mustPull(data, nil)
	if n := holder.served(); n != 8*mib {
		t.Errorf("the holder gave %d bytes, want what the origin did not", n)
	}
}

func TestOriginGoesAwayWithNobodyElse(t *testing.T) {
	data := content(1, 16*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Skip: 2, Effect: origintest.Drop()})
	m := newMesh(t).member(nil).impatient()
	if _, err := m.pull(reg.d, reg.src); !errors.Is(err, blob.ErrStalled) {
		t.Errorf("got %v, want the fill to be given up", err)
	}
	eventually(t, "no fill counts as failed", func() bool { return m.metric("shoal_p2p_fills_total", "failed") == 1 })
}

func TestResumedFillFetchesOnlyWhatIsMissing(t *testing.T) {
	data := content(1, 16*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Skip: 2, Effect: origintest.SilenceAfter(0)})
	m := newMesh(t).member(nil)
	f, err := m.Fetch(t.Context(), reg.d, reg.src)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "two requests were not answered", func() bool { return f.Have().Count() == 8 })
	m.close() // as the node stops
	<-f.Done()
	if !errors.Is(f.Err(), ErrClosed) && !errors.Is(f.Err(), blobcache.ErrClosed) {
		t.Errorf("the fill ended with %v", f.Err())
	}
	if _, err := m.Fetch(t.Context(), reg.d, reg.src); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed exchange says %v", err)
	}
	reg.Registry.ClearFaults()
	reg.Registry.ResetStats()
	m.open(blobcache.Options{})
	m.mustPull(data, reg.src)
	if reg.gave() != 8*mib {
		t.Errorf("after the restart the origin gave %d bytes, want the missing 8 MiB: %v", reg.gave(), reg.Registry.Lines())
	}
}

// An answer that does not tell its total could be of another version: nothing
// of it goes out before closure.
func TestUnknownTotalDoesNotFlow(t *testing.T) {
	data := content(1, 5*mib)
	reg := newRegistry(t, origintest.Options{NoRange: true}, data)
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Chunked()})
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Corrupt(5*mib - 1)})
	m := newMesh(t).member(nil).impatient()
	got, err := m.pull(reg.d, reg.src)
	if err == nil || len(got) > 0 {
		t.Errorf("the reader got %d bytes and %v", len(got), err)
	}
	reg.Registry.ClearFaults()
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Chunked()})
	m.mustPull(data, reg.src)
}

func TestOriginOfALaterCallerHelps(t *testing.T) {
	data := content(1, 12*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	mesh.member(after(4*mib, freeze)).seed(data)
	m := mesh.member(nil)
	m.limits.plan.StallAfter = 300 * time.Millisecond
	f, err := m.Fetch(t.Context(), reg.d, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing came", func() bool { return f.Have().Any() })
	m.mustPull(data, reg.src)
	if gave := reg.gave(); gave == 0 || gave == reg.d.Size {
		t.Errorf("the origin gave %d bytes of %d", gave, reg.d.Size)
	}
}

func TestSecondOriginIsAskedWhenTheFirstRefuses(t *testing.T) {
	data := content(1, mib)
	without := newRegistry(t, origintest.Options{Latency: 200 * time.Millisecond}, nil)
	with := newRegistry(t, origintest.Options{}, data)
	m := newMesh(t).member(nil)
	first := make(chan error, 1)
	go func() { _, err := m.Fetch(t.Context(), with.d, without.src); first <- err }()
	eventually(t, "the first origin was not asked", func() bool { return len(without.Registry.Requests()) > 0 })
	m.mustPull(data, with.src)
	if err := <-first; err != nil {
		t.Errorf("the first caller got %v", err)
	}
}

func TestClockStandsStillWithTheProcess(t *testing.T) {
	d := &driver{begun: time.Now()}
	d.woke(10*time.Millisecond, 40*time.Millisecond) // noise
	if d.asleep != 0 {
		t.Errorf("%v", d.asleep)
	}
	d.woke(10*time.Millisecond, time.Hour)
	if d.asleep != time.Hour-10*time.Millisecond || d.now() > 0 {
		t.Errorf("%v asleep, the time is %v", d.asleep, d.now())
	}
}

// What a starved process is late does not shorten the time in which members may
// answer: they may be as starved, or have answered and wait to be heard.
func TestMembersHaveTheirTimeOnABusyMachine(t *testing.T) {
	m := newMesh(t).member(nil)
	d := newDriver(m.Exchange, key{blob.Descriptor{}.Digest, 2 * mib}, blob.Descriptor{Size: 2 * mib})
	d.search.asked["silent"] = &asked{waiting: true}
	first := m.limits.swarmFirst
	wait := first / 10
	for n := 1; n < 10; n++ {
		d.woke(wait, 3*wait)
	}
	if d.originsTurn() {
		t.Error("the origin was asked when the process had not run for as long as members have")
	}
	if d.woke(first, first); !d.originsTurn() {
		t.Error("the origin was not asked in time")
	}
}

// What members have said is taken in before anything is asked for: among it may be
// that they fetch the very same.
func TestNewsComesBeforeOrders(t *testing.T) {
	m := newMesh(t).member(nil)
	reg := newRegistry(t, origintest.Options{}, content(1, 2*mib))
	d := newDriver(m.Exchange, key{reg.d.Digest, reg.d.Size}, reg.d)
	d.begun = time.Now()
	d.addOrigin(reg.src)
	var err error
	if d.fill, _, err = m.cache.Fill(reg.d); err != nil {
		t.Fatal(err)
	}
	d.plan = plan.New(plan.Config{Size: reg.d.Size, PieceSize: blob.PieceSize, Tuning: plan.Defaults()})
	d.search.asked["holder"] = &asked{holder: Holder{Peer: "holder"}, fills: true, heard: true}
	d.search.tell("holder", said{info: wire.Info{Size: reg.d.Size, Whole: true}})
	d.search.begun, d.search.rounds = true, lookTwice // nobody else is waited for
	d.step(t.Context())
	for _, f := range d.flights {
		if f.Member == plan.Origin {
			t.Error("the origin is asked for what a member has")
		}
		f.cancel()
	}
	if len(d.flights) == 0 {
		t.Error("nobody is asked")
	}
	d.await()
	d.fill.Fail(errors.New("enough"))
	<-d.fill.Done()
}

func TestFailedFillIsNotJoined(t *testing.T) {
	data := content(1, 4*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	m := newMesh(t).member(nil)
	// It commits itself, and gives nothing.
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.SilenceAfter(0)})
	for range 20 {
		f, err := m.Fetch(t.Context(), reg.d, reg.src)
		if err != nil {
			t.Fatal(err)
		}
		f.Fail(errors.New("enough")) // its driver has yet to hear of it
		g, err := m.Fetch(t.Context(), reg.d, reg.src)
		if err != nil {
			t.Fatal(err)
		}
		if g.Err() != nil || g == f {
			t.Fatalf("joined a fill that had failed: %v", g.Err())
		}
		g.Fail(errors.New("enough"))
		<-g.Done()
	}
}

// A member that a lookup named is waited for longer than the lookup itself.
func TestNamedHolderIsWaitedFor(t *testing.T) {
	data := content(1, 3*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	mesh.member(on(wire.KindInfo, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		close(asked)
		<-answer
		honest.ServeHTTP(w, r)
	})).seed(data)
	m := mesh.member(nil)
	m.limits.swarmFirst = time.Millisecond
	done := make(chan error, 1)
	go func() { _, err := m.pull(reg.d, nil); done <- err }()
	<-asked // it is named, and the time of the lookup is over
	time.AfterFunc(200*time.Millisecond, func() { close(answer) })
	m.mustPull(data, reg.src)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := len(reg.Registry.Requests()); n != 0 {
		t.Errorf("the origin saw %v", reg.Registry.Lines())
	}
}

// TestSilentMemberIsNotWaitedForAgain although lookups name it; once it answers
// it is as good as any other.
func TestSilentMemberIsNotWaitedForAgain(t *testing.T) {
	data := content(1, 3*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	var broken atomic.Bool
	broken.Store(true)
	holder := mesh.member(on(wire.KindInfo, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		honest.ServeHTTP(w, r)
	}))
	holder.announce(reg.d)
	m := mesh.member(nil)
	m.mustPull(data, reg.src)
	if !m.silent.Holds(holder.id, time.Now()) {
		t.Fatal("nothing is held against a member that gave no answer")
	}
	// What a search says of a member that is asked decides how long it is
	// waited for.
	h := Holder{Peer: holder.id, Pieces: []string{holder.addr}}
	s := newSearch(m.Exchange, reg.d)
	s.ask(h, true)
	if s.state(0).told {
		t.Error("it is waited for")
	}
	broken.Store(false)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { defer cancel(); s.poll(ctx, h) }()
	eventually(t, "it answers, and is still not waited for", func() bool { return !m.silent.Holds(holder.id, time.Now()) })
}

package trace

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

const ms = time.Millisecond

func TestSeries(t *testing.T) {
	var s Series
	s.Add(0, 1)
	s.Add(9*ms, 2)
	s.Add(10*ms, 4)
	if got := s.Sums(); !slices.Equal(got, []int64{3, 4}) || s.Width() != 10*ms {
		t.Errorf("%v in %v", got, s.Width())
	}
	s.Add(25*time.Second, 8) // 64 buckets of 640 ms are 41 s, of 320 ms 20 s
	if got := s.Sums(); s.Width() != 640*ms || got[0] != 7 || got[39] != 8 || len(got) != 40 {
		t.Errorf("%v in %v", got, s.Width())
	}
	if s.Total() != 15 {
		t.Errorf("total %d", s.Total())
	}
	if s.Reset(); s != (Series{}) {
		t.Errorf("%v in %v after a reset", s.sums, s.Width())
	}
}

func TestSeriesOfTime(t *testing.T) {
	var s Series
	s.AddSpan(5*ms, 5*ms)
	s.AddSpan(5*ms, 35*ms)
	if got := s.Sums(); !slices.Equal(got, []int64{int64(5 * ms), int64(10 * ms), int64(10 * ms), int64(5 * ms)}) {
		t.Errorf("%v", got)
	}
	s.AddSpan(time.Second, time.Minute)
	if got, want := s.Total(), int64(30*ms+59*time.Second); got != want {
		t.Errorf("total %v, want %v", time.Duration(got), time.Duration(want))
	}
	if got := s.Between(10*time.Second, 20*time.Second); math.Abs(got-1e10) > 1 {
		t.Errorf("of ten seconds %v", time.Duration(got))
	}
}

// A fill is recorded with the times in which each source was asked, and can be
// seen while it runs.
func TestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var live *Live
		r := Record(digest.FromString("x"), -1, func(l *Live) { live = l })
		r.Open()
		r.Sized(300, 50)
		time.Sleep(20 * ms) //nolint:forbidigo // in a bubble: it is what is measured
		origin := r.Source(Source{Name: "docker.io/a/b"})
		r.Asked(origin)
		r.Asked(origin)
		time.Sleep(100 * ms) //nolint:forbidigo // as above
		r.Came(origin, 200)
		r.Kept(origin, 200, 30*ms)
		r.Answered(origin)
		member := r.Source(Source{Member: "m", Zone: "z"})
		if again := r.Source(Source{Member: "m"}); again != member {
			t.Errorf("a member is %d and %d", member, again)
		}
		time.Sleep(1100 * ms) //nolint:forbidigo // as above
		r.Show()
		seen := live.Fill()
		if busy := seen.Sources[origin].Busy.Total(); busy != int64(1200*ms) || !seen.Ended.IsZero() || len(seen.Sources) != 2 {
			t.Errorf("while it runs: busy %v of %d sources, ended %v", time.Duration(busy), len(seen.Sources), seen.Ended)
		}
		r.Kept(origin, 0, 0)
		r.Came(member, 7)
		if seen.Sources[member].Came.Total() != 0 {
			t.Error("what was published has changed")
		}
		r.Answered(origin)
		r.End(errors.New("why"))
		r.End(nil)
		got := live.Fill()
		if got.Size != 300 || got.Restored != 50 || got.Err != "why" || got.Ended.Sub(got.Began) != 1220*ms || got.Stored.Sub(got.Began) != 1220*ms {
			t.Errorf("%+v", got)
		}
		if s := got.Sources[origin]; s.Bytes != 200 || s.Came.Total() != 200 || got.Flying != 1300*ms || got.Writing != 30*ms {
			t.Errorf("%d kept, %d came, %v flying, %v writing", s.Bytes, s.Came.Total(), got.Flying, got.Writing)
		}
	})
}

// However many sources there are, a record has a place for each and does not
// grow.
func TestOthers(t *testing.T) {
	var live *Live
	r := Record(digest.FromString("x"), 1, func(l *Live) { live = l })
	r.Open()
	for i := range 20 {
		n := r.Source(Source{Member: fmt.Sprint(i)})
		r.Asked(n)
		r.Kept(n, 1, 0)
		r.Answered(n)
	}
	origin := r.Source(Source{Name: "origin"})
	r.Kept(origin, 5, 0)
	r.End(nil)
	got := live.Fill().Sources
	if len(got) != MaxSources+2 || got[origin].Name != "origin" || got[origin].Bytes != 5 {
		t.Errorf("the origin is not told apart: %+v", got[len(got)-1])
	}
	if got[MaxSources].Member != Others || got[MaxSources].Bytes != 20-MaxSources {
		t.Errorf("%d sources, the last is %q with %d bytes", len(got), got[len(got)-1].Member, got[len(got)-1].Bytes)
	}
}

// To record nothing is no special case.
func TestNoRecorder(t *testing.T) {
	var r *Recorder
	r.Open()
	r.Sized(1, 1)
	r.Asked(r.Source(Source{}))
	r.Came(0, 1)
	r.Kept(0, 1, 1)
	r.Answered(0)
	r.Show()
	r.End(nil)
}

// What a request, a quarter of a piece and a piece cost: no allocations.
func BenchmarkRecorder(b *testing.B) {
	r := Record(digest.FromString("x"), 1, func(*Live) {})
	n := r.Source(Source{})
	b.ReportAllocs()
	for b.Loop() {
		r.Asked(n)
		r.Came(n, 256<<10)
		r.Kept(n, 1<<20, 1)
		r.Answered(n)
	}
}

func TestRecordingDoesNotAllocate(t *testing.T) {
	r := Record(digest.FromString("x"), 1, func(*Live) {})
	n := r.Source(Source{})
	if got := testing.AllocsPerRun(100, func() {
		r.Asked(n)
		r.Came(n, 1)
		r.Kept(n, 1, 1)
		r.Answered(n)
		r.Show()
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

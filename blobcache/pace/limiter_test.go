package pace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func rules(t *testing.T, words ...string) Rules {
	t.Helper()
	r, err := Parse(words)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// user moves bytes of a flow, a part at a time, until ctx ends, and notes how
// many, and the longest time without any.
type user struct {
	bytes   int64
	longest time.Duration
}

func (u *user) run(ctx context.Context, l *Limiter, f Flow) {
	last := time.Now()
	for {
		n, err := l.Take(ctx, f, 256<<10)
		if err != nil {
			return
		}
		u.bytes += int64(n)
		u.longest = max(u.longest, time.Since(last))
		last = time.Now()
	}
}

// pass lets d go by on the bubble's clock.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // within a synctest bubble nobody waits
}

// run lets users move bytes for a time.
func run(t *testing.T, l *Limiter, d time.Duration, flows ...Flow) []user {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	users := make([]user, len(flows))
	var wg sync.WaitGroup
	for i, f := range flows {
		wg.Go(func() { users[i].run(ctx, l, f) })
	}
	wg.Wait()
	return users
}

func total(users []user) (n int64) {
	for _, u := range users {
		n += u.bytes
	}
	return n
}

func near(got, want, within float64) bool { return math.Abs(got-want) <= within*want }

// Over ten seconds what passes is the rate, however many share it, and one who
// asks in the name of many connections gets what the others get.
func TestRateAndShares(t *testing.T) {
	for _, r := range []Rate{100_000, 1e6, 4e6, 20e6, 125e6} {
		for _, peers := range []int{1, 2, 8} {
			t.Run(fmt.Sprintf("%v among %d", r, peers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := New(rules(t, r.String()))
					var flows []Flow
					for i := range peers {
						for range 1 + 7*(i%2) { // every other one by eight connections
							flows = append(flows, Flow{Name: fmt.Sprint(i)})
						}
					}
					users := run(t, l, 10*time.Second, flows...)
					if got := float64(total(users)); !near(got, 10*float64(r), 0.02) {
						t.Errorf("%.0f bytes a second", got/10)
					}
					by := map[string]int64{}
					for i, u := range users {
						by[flows[i].Name] += u.bytes
						if u.longest > 450*time.Millisecond && r >= 1e6 {
							t.Errorf("%v without a byte", u.longest)
						}
					}
					for name, n := range by {
						fair := 10 * float64(r) / float64(peers)
						first := float64(r) * burst.Seconds() // before the others ask
						if got := float64(n); got < 0.95*fair-first || got > 1.02*fair+first {
							t.Errorf("%s got %d bytes of %.0f", name, n, fair)
						}
					}
				})
			})
		}
	}
}

// As many as a node answers at once still hear from it often enough, at 1 MB/s.
func TestNobodyIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(rules(t, "1MB"))
		flows := make([]Flow, 256)
		for i := range flows {
			flows[i].Name = fmt.Sprint(i % 8)
		}
		for _, u := range run(t, l, 5*time.Second, flows...) {
			if u.longest > 450*time.Millisecond {
				t.Errorf("%v without a byte", u.longest)
			}
		}
	})
}

// What a client waits for comes first, and what is done in the background goes on.
func TestBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(rules(t, "4MB"))
		flows := []Flow{{Name: "client"}}
		for i := range 10 {
			flows = append(flows, Flow{Name: fmt.Sprint(i), Background: true})
		}
		users := run(t, l, 10*time.Second, flows...)
		if got := float64(users[0].bytes) / float64(total(users)); !near(got, 0.8, 0.05) {
			t.Errorf("the client got %.2f of all", got)
		}
		for _, u := range users[1:] {
			if u.longest > 400*time.Millisecond {
				t.Errorf("%v without a byte", u.longest)
			}
		}
		// With nobody else there the background has everything.
		if got := float64(total(run(t, l, 10*time.Second, flows[1:]...))); !near(got, 40e6, 0.02) {
			t.Errorf("%.0f bytes of the background alone", got)
		}
	})
}

// take takes so many bytes, and returns how long that took.
func take(t *testing.T, l *Limiter, bytes int) time.Duration {
	t.Helper()
	began := time.Now()
	for bytes > 0 {
		n, err := l.Take(t.Context(), Flow{}, bytes)
		if err != nil || n < 1 || n > bytes {
			t.Fatalf("%d of %d bytes, %v", n, bytes, err)
		}
		bytes -= n
	}
	return time.Since(began)
}

// What passes at once after a pause is little.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(rules(t, "4MB"))
		pass(time.Hour)
		if took := take(t, l, 400_000); took != 0 {
			t.Errorf("a tenth of a second's bytes took %v", took)
		}
		if took := take(t, l, 400_000); !near(took.Seconds(), 0.1, 0.01) {
			t.Errorf("the next took %v", took)
		}
		if got := l.Waited(); got != 400_000 {
			t.Errorf("%d bytes waited", got)
		}
	})
}

// A change counts at once, for those who wait, too.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(rules(t, "10kB"))
		time.AfterFunc(time.Second, func() { l.Set(rules(t, "1MB")) })
		if took := take(t, l, 1_014_000); !near(took.Seconds(), 2, 0.01) {
			t.Errorf("%v", took) // 4 KiB at once and 10 kB, then 1 MB
		}
		time.AfterFunc(time.Second, func() { l.Set(Rules{}) })
		if took := take(t, l, 1e9); !near(took.Seconds(), 1, 0.01) {
			t.Errorf("no limit any more: %v", took)
		}
		if n, err := l.Take(t.Context(), Flow{}, 1e9); err != nil || n != 1e9 || l.Rate() != Unlimited {
			t.Errorf("%d, %v, %v", n, err, l.Rate())
		}
	})
}

// A window begins and ends by itself while somebody waits.
func TestWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begins := time.Now().Add(time.Minute).Truncate(time.Minute)
		l := New(rules(t, "1MB", begins.Format("15:04-")+begins.Add(time.Minute).Format("15:04")+" 2MB"))
		pass(time.Until(begins) - 5*time.Second)
		if got := float64(total(run(t, l, 10*time.Second, Flow{}))); !near(got, 15e6, 0.02) {
			t.Errorf("%.0f bytes around its begin", got)
		}
		pass(50 * time.Second)
		if got := float64(total(run(t, l, 10*time.Second, Flow{}))); !near(got, 15e6, 0.02) {
			t.Errorf("%.0f bytes around its end", got)
		}
	})
}

func TestTakeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(rules(t, "10kB"))
		take(t, l, leastBurst)
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
		if n, err := l.Take(ctx, Flow{Name: "a"}, 1e6); n != 0 || !errors.Is(err, cause) {
			t.Errorf("%d, %v", n, err)
		}
		if took := take(t, l, 1<<10); took > 100*time.Millisecond {
			t.Errorf("after one that gave up: %v", took)
		}
	})
}

// Names that are used no more leave nothing behind.
func TestFlowsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(rules(t, "1GB"))
		for i := range 1000 {
			if _, err := l.Take(t.Context(), Flow{Name: fmt.Sprint(i)}, 1000); err != nil {
				t.Fatal(err)
			}
		}
		if len(l.shares) > maxIdle+1 {
			t.Errorf("%d flows are kept", len(l.shares))
		}
	})
}

func TestReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := bytes.Repeat([]byte("0123456789"), 1e6)
		limits := Limits{New(rules(t, "4MB")), New(rules(t, "1MB")), nil}
		began := time.Now()
		got, err := io.ReadAll(limits.Reader(t.Context(), bytes.NewReader(data), FlowOf(t.Context())))
		if err != nil || !bytes.Equal(got, data) || !near(time.Since(began).Seconds(), 10, 0.02) {
			t.Errorf("%d bytes in %v, %v", len(got), time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := io.ReadAll(limits.Reader(ctx, bytes.NewReader(data), FlowOf(ctx))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("past its time: %v", err)
		}
		f := Flow{Name: "x"}
		if FlowOf(WithFlow(ctx, func() Flow { return f }))() != f {
			t.Error("the flow of a context is lost")
		}
	})
}

// What passes in one name comes one after the other, and what is not next shows
// that it lives.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(rules(t, "1MB"))
		flows := make([]Flow, 8)
		for i := range flows {
			flows[i] = Flow{Name: "a", Order: uint64(i)}
		}
		users := run(t, l, 5*time.Second, flows...)
		if got := float64(users[0].bytes) / float64(total(users)); got < 0.9 {
			t.Errorf("the first got %.2f of all", got)
		}
		for _, u := range users {
			if u.longest > 300*time.Millisecond || u.bytes == 0 {
				t.Errorf("%d bytes, %v without one", u.bytes, u.longest)
			}
		}
	})
}

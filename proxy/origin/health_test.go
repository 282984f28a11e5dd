package origin_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// pair is a registry with the upstreams a.test and b.test, which both have d.
type pair struct {
	*world
	a, b *origintest.Registry
	d    blob.Descriptor
	repo *origin.Repository
}

func newPair(w *world) *pair {
	p := &pair{world: w, a: w.registry("a.test:80", origintest.Options{}), b: w.registry("b.test:80", origintest.Options{})}
	p.a.AddBlob("lib/x", []byte(data))
	p.d = p.b.AddBlob("lib/x", []byte(data))
	p.repo = w.repository("a.test", "b.test")
	return p
}

// pull reads the blob, which must take that long and be answered by a host.
func (p *pair) pull(took time.Duration, from string) {
	p.t.Helper()
	begin := time.Now()
	st, body, err := read(p.t.Context(), p.repo.Blobs(), p.d, whole)
	if err != nil || body != data {
		p.t.Fatalf("got %q, %v", body, err)
	}
	if got := time.Since(begin); got != took || !strings.HasPrefix(st.Identity, "http://"+from+" ") {
		p.t.Errorf("took %v from %q, want %v from %s", got, st.Identity, took, from)
	}
}

// saw compares what the upstreams saw since it was called last.
func (p *pair) saw(a, b int) {
	p.t.Helper()
	synctest.Wait()
	if x, y := len(p.a.Requests()), len(p.b.Requests()); x != a || y != b {
		p.t.Errorf("the upstreams saw %d and %d requests, want %d and %d", x, y, a, b)
	}
	p.a.ResetStats()
	p.b.ResetStats()
}

// failing compares the metric of that name for a.test and b.test.
func (p *pair) failing(a, b float64) {
	p.t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "shoal_upstream_failing" {
			for _, m := range f.GetMetric() {
				got[m.GetLabel()[1].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	want := map[string]float64{"http://a.test": a, "http://b.test": b, "https://registry-1.docker.io": 0}
	if !maps.Equal(got, want) {
		p.t.Errorf("failing are %v, want %v", got, want)
	}
}

func TestASilentUpstreamCostsOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		p := newPair(w)
		p.a.Fault(origintest.Fault{Effect: origintest.Silence()})
		p.failing(0, 0)
		p.pull(2500*time.Millisecond, "b.test")
		p.saw(1, 1)
		p.failing(1, 0)
		for range 10 {
			p.pull(0, "b.test")
		}
		p.saw(0, 10)
		// Probes cost nobody anything, and come at growing intervals.
		probes := 0
		for range 600 {
			p.pass(time.Second)
			p.pull(0, "b.test")
			synctest.Wait()
			if n := len(p.a.Requests()); n > 1 {
				t.Fatalf("%d probes at a time", n)
			} else if n == 1 {
				probes++
			}
			p.a.ResetStats()
		}
		if probes < 9 || probes > 25 {
			t.Errorf("%d probes in ten minutes", probes)
		}
		p.b.ResetStats()
		// Once it answers it is preferred again.
		p.a.ClearFaults()
		p.pass(2 * time.Minute)
		p.pull(0, "b.test")
		p.saw(1, 1)
		p.failing(0, 0)
		p.pull(0, "a.test")
		p.saw(1, 0)
		if log := w.log.String(); strings.Count(log, "level=WARN") != 1 || strings.Count(log, "level=INFO") != 1 ||
			!strings.Contains(log, `msg="upstream fails" registry=r.test upstream=http://a.test error="http://a.test: no progress: no headers for 2.5s"`) ||
			!strings.Contains(log, `msg="upstream works again" registry=r.test upstream=http://a.test`) {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestWhatOpensABreaker(t *testing.T) {
	for name, tt := range map[string]struct {
		effect origintest.Effect
		opens  bool
		rest   time.Duration // it is not probed before that
	}{
		"dropped":                {effect: origintest.Drop(), opens: true},
		"502":                    {effect: origintest.Status(502), opens: true},
		"503":                    {effect: origintest.Status(503), opens: true},
		"429 for ten minutes":    {effect: origintest.TooMany(10 * time.Minute), opens: true, rest: 10*time.Minute - time.Second},
		"one 500":                {effect: origintest.Status(500)},
		"a web page":             {effect: origintest.HTML()},
		"a redirect to nowhere":  {effect: origintest.Redirect("http://refusing.test/"), opens: true},
		"a redirect with errors": {effect: origintest.Redirect("http://a.test/nothing")},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				p := newPair(w)
				p.a.Fault(origintest.Fault{Kind: origintest.Blob, Effect: tt.effect})
				if tt.opens {
					p.pull(0, "b.test")
				} else if _, _, err := read(p.t.Context(), p.repo.Blobs(), p.d, whole); err != nil && !errors.Is(err, blob.ErrNotFound) {
					p.t.Fatal(err)
				}
				p.failing(map[bool]float64{true: 1}[tt.opens], 0)
				if tt.rest == 0 {
					return
				}
				synctest.Wait()
				p.a.ResetStats()
				p.b.ResetStats()
				p.pass(tt.rest)
				p.pull(0, "b.test")
				p.saw(0, 1)
				p.pass(2 * time.Second)
				p.pull(0, "b.test")
				p.saw(1, 1)
			})
		})
	}
}

func TestAWrongCertificateOpensABreaker(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.secure("other.test", "10.0.0.1", origintest.Options{})
		w.alias("a.test:443", "other.test:443") // whose certificate is for another name
		b := w.registry("b.test:80", origintest.Options{})
		d := b.AddBlob("lib/x", []byte(data))
		c := w.client(origin.Options{Registries: origin.Registries{"r.test": {Upstreams: []string{"https://a.test", "http://b.test"}}}})
		for range 3 {
			if _, _, err := read(t.Context(), w.of(c, "r.test", "lib/x").Blobs(), d, whole); err != nil {
				t.Fatal(err)
			}
		}
		if w.dialled.Load() > 3 || strings.Count(w.log.String(), "upstream fails") != 1 {
			t.Errorf("%d connections; log:\n%s", w.dialled.Load(), w.log.String())
		}
	})
}

func TestASilentBodyOpensABreaker(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		p := newPair(w)
		p.a.Fault(origintest.Fault{Effect: origintest.SilenceAfter(3)})
		begin := time.Now()
		if _, _, err := read(t.Context(), p.repo.Blobs(), p.d, whole); !errors.Is(err, blob.ErrStalled) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took != 2500*time.Millisecond {
			t.Errorf("took %v", took)
		}
		p.pull(0, "b.test")
	})
}

// TestTheLastUpstreamIsAsked holds what a breaker must not do: refuse without
// asking anybody.
func TestTheLastUpstreamIsAsked(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		p := newPair(w)
		p.a.Fault(origintest.Fault{Effect: origintest.Status(502)})
		p.b.Fault(origintest.Fault{Effect: origintest.Status(502)})
		if _, _, err := read(t.Context(), p.repo.Blobs(), p.d, whole); !errors.Is(err, blob.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		p.failing(1, 1)
		p.b.ClearFaults()
		p.pull(0, "b.test")
		p.failing(1, 0)
	})
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("a.test:80", origintest.Options{})
		d := r.AddBlob("lib/x", []byte(data))
		src := w.repository("a.test").Blobs()
		r.Fault(origintest.Fault{Times: 3, Effect: origintest.Status(502)})
		if _, _, err := read(t.Context(), src, d, whole); !errors.Is(err, blob.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		if _, _, err := read(t.Context(), src, d, whole); err != nil {
			t.Error(err)
		}
	})
}

func TestAClientThatLeavesIsNoFaultOfTheUpstream(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		p := newPair(w)
		p.a.Fault(origintest.Fault{Times: 1, Effect: origintest.Silence()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := read(ctx, p.repo.Blobs(), p.d, whole); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		p.pull(0, "a.test")
	})
}

func TestAnUpstreamThatHadNoTimeIsNotBlamed(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		for _, h := range []string{"a.test", "b.test", "c.test"} {
			r := w.registry(h+":80", origintest.Options{})
			r.Fault(origintest.Fault{Effect: origintest.Silence()})
		}
		_, _, err := read(t.Context(), w.repository("a.test", "b.test", "c.test").Blobs(), blob.Descriptor{Digest: digest.FromString("x")}, whole)
		if !errors.Is(err, blob.ErrStalled) || strings.Contains(w.log.String(), "upstream=http://c.test") {
			t.Errorf("error %v; log:\n%s", err, w.log.String())
		}
	})
}

func TestCloseEndsProbes(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		p := newPair(w)
		p.a.Fault(origintest.Fault{Effect: origintest.Silence()})
		p.pull(2500*time.Millisecond, "b.test")
		p.pass(2 * time.Second)
		p.pull(0, "b.test") // a probe is under way
		p.saw(2, 2)
		begin := time.Now()
		w.closers[len(w.closers)-1]() // the client's
		if took := time.Since(begin); took != 0 || strings.Contains(w.log.String(), "works again") {
			t.Errorf("took %v; log:\n%s", took, w.log.String())
		}
	})
}

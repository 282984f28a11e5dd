package pull

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/trace"
)

const mib = 1 << 20

// from is a source that is asked and gives between two times, in ms since the pull
// began.
type from struct {
	source trace.Source
	asked  int
	first  int
	last   int
	bytes  int64
}

// fill is one of layer1 in words: when it began, stored the last piece and ended.
func fill(began, stored, ended int, sources ...from) *trace.Fill {
	f := &trace.Fill{Digest: d("layer1"), Began: at(began)}
	if stored != 0 {
		f.Stored = at(stored)
	}
	if ended != 0 {
		f.Ended = at(ended)
	}
	since := func(ms int) time.Duration { return time.Duration(ms-began) * time.Millisecond }
	for _, s := range sources {
		s.source.Bytes = s.bytes
		s.source.Busy.AddSpan(since(s.asked), since(s.last))
		f.Flying += since(s.last) - since(s.asked)
		const step = 10
		steps := (s.last - s.first) / step
		for i := range steps {
			s.source.Came.Add(since(s.first+i*step), s.bytes/int64(steps))
		}
		f.Sources = append(f.Sources, s.source)
	}
	return f
}

// serve is a pull of a manifest and of layer1, which is asked for at 100 ms; bytes
// were on their way to the client between two times.
func serve(size int64, first, last, writeFrom, writeTo int, change func(*Request)) *Pull {
	p := play(ask{0, 10, "GET tag", nil}, ask{20, 30, "GET child", nil}, ask{100, last, "GET layer1", func(q *Request) {
		q.Size, q.Sent, q.First = size, size, at(first)
		q.Writing = new(trace.Series)
		q.Writing.AddSpan(time.Duration(writeFrom-100)*time.Millisecond, time.Duration(writeTo-100)*time.Millisecond)
		if change != nil {
			change(q)
		}
	}})
	return p[0]
}

var (
	hub    = trace.Source{Name: "docker.io/library/app"}
	near   = trace.Source{Member: "near", Zone: "a"}
	far    = trace.Source{Member: "far", Zone: "b"}
	cached = func(q *Request) { q.Source = FromCache }
)

func TestBottlenecks(t *testing.T) {
	slowDisk := fill(100, 4000, 4050, from{hub, 100, 200, 4000, 100 * mib})
	slowDisk.Writing = slowDisk.Flying * 9 / 10
	for _, tt := range []struct {
		name  string
		pull  *Pull
		fill  *trace.Fill
		cause Cause
		bound float64 // seconds
		why   string
	}{
		{
			"a slow origin", serve(100*mib, 200, 4200, 4190, 4200, nil), fill(100, 4100, 4200, from{hub, 100, 150, 4100, 100 * mib}),
			Registry, 4, "docker.io gave 25MiB/s and was busy 95 % of the time",
		},
		{
			"slow members", serve(100*mib, 200, 4200, 4190, 4200, nil), fill(100, 4100, 4200, from{near, 100, 150, 4100, 60 * mib}, from{far, 100, 150, 4100, 40 * mib}),
			Peers, 4, "2 members gave 25MiB/s and were busy 95 % of the time",
		},
		{
			"a slow client", serve(100*mib, 200, 4100, 200, 4100, nil), fill(100, 1000, 1100, from{hub, 100, 150, 1000, 100 * mib}),
			Client, 3.9, "the client read slower than the bytes came: 25.64MiB/s, and they waited for 3.90 s of 4.10 s",
		},
		{
			"a lookup", serve(mib, 4000, 4100, 4090, 4100, nil), fill(100, 4050, 4090, from{near, 3900, 3950, 4050, mib}),
			Lookup, .15, "nobody was found to ask for 3.76 s of 4.10 s",
		},
		{
			"no first byte", serve(mib, 4000, 4100, 4090, 4100, nil), fill(100, 4050, 4090, from{near, 200, 3950, 4050, mib}),
			Connect, 3.85, "who was asked gave no first byte for 3.76 s of 4.10 s",
		},
		{
			"a proof", serve(100*mib, 200, 4100, 4090, 4100, nil), fill(100, 1000, 4090, from{hub, 100, 150, 1000, 100 * mib}),
			Proof, .9, "the bytes were here and being proven for 3.07 s of 4.10 s",
		},
		{
			"a disk", serve(100*mib, 200, 4100, 4090, 4100, nil), slowDisk,
			Disk, 3.9, "the disk was waited for, 3.48 s of 4.10 s",
		},
		{
			"the cache", serve(100*mib, 105, 4100, 105, 4100, cached), nil,
			Client, 3.995, "the client read slower than the bytes came: 25.03MiB/s, and they waited for 4.00 s of 4.10 s",
		},
		{
			"a blob in the cache that is proven anew", serve(100*mib, 4000, 4100, 4000, 4100, cached), nil,
			Proof, .1, "the bytes were here and being proven for 3.90 s of 4.10 s",
		},
		{
			"past the cache", serve(100*mib, 105, 4100, 4000, 4100, func(q *Request) { q.Source = Past }), nil,
			Registry, .1, "docker.io gave 25.38MiB/s, past the cache",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Analyse(tt.pull, known(tt.fill))
			if r.Bottleneck != tt.cause || r.Why != tt.why {
				t.Errorf("%s: %s\nwaits %v", r.Bottleneck, r.Why, r.Waits)
			}
			if math.Abs(r.Bound-tt.bound) > tt.bound/50 || math.Abs(r.Ratio*r.Bound-r.Seconds) > .001 {
				t.Errorf("bound %v, ratio %v of %v", r.Bound, r.Ratio, r.Seconds)
			}
			sum := 0.0
			for _, w := range r.Waits {
				sum += w.Seconds
			}
			if math.Abs(sum-r.Seconds) > .001 {
				t.Errorf("the waits add up to %v of %v: %v", sum, r.Seconds, r.Waits)
			}
		})
	}
}

// known is what is known of how layer1 was fetched.
func known(f *trace.Fill) func(digest.Digest) *trace.Fill {
	return func(of digest.Digest) *trace.Fill {
		if of == d("layer1") {
			return f
		}
		return nil
	}
}

// Bytes count as from whom they came while the pull went on; those that were here
// before are the cache's.
func TestBytesBySource(t *testing.T) {
	both := []from{{hub, 100, 100, 600, 30 * mib}, {near, 100, 100, 600, 10 * mib}, {far, 100, 100, 600, 10 * mib}}
	resumed := fill(100, 600, 610, both...)
	resumed.Restored = 50 * mib
	for _, tt := range []struct {
		name                 string
		fill                 *trace.Fill
		origin, peers, cache int64 // MiB
		zones                []Zone
	}{
		{"from everywhere", fill(100, 600, 610, both...), 30, 20, 0, []Zone{{"a", 10 * mib}, {"b", 10 * mib}}},
		{"the half was here before", resumed, 30, 20, 50, []Zone{{"a", 10 * mib}, {"b", 10 * mib}}},
		{"fetched before the pull began", fill(-2000, -100, -90, from{hub, -2000, -2000, -100, 100 * mib}), 0, 0, 100, []Zone{}},
		{"proven when the pull had begun", fill(-2000, -100, 50, from{hub, -2000, -2000, -100, 100 * mib}), 0, 0, 100, []Zone{}},
		{"one half before, one after", fill(-500, 500, 600, from{hub, -500, -500, 500, 100 * mib}), 50, 0, 50, []Zone{}},
		{"fetched anew long after", fill(5000, 6000, 6000, from{hub, 5000, 5000, 6000, 100 * mib}), 0, 0, 100, []Zone{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source := func(q *Request) { q.Source = FromCache }
			p := serve(100*mib, 200, 700, 650, 700, source)
			for _, w := range p.rows { // what manifests weigh is no matter here
				if w.manifest() {
					w.requests[0].Sent = 0
				}
			}
			r := Analyse(p, known(tt.fill))
			if got := []int64{r.FromOrigin, r.FromPeers, r.FromCache}; !near2(got, tt.origin*mib, tt.peers*mib, tt.cache*mib) || !reflect.DeepEqual(r.Zones, tt.zones) {
				t.Errorf("%d from the origin, %d from peers, %d from the cache, zones %v", r.FromOrigin, r.FromPeers, r.FromCache, r.Zones)
			}
			if last := r.Rows[len(r.Rows)-1]; (last.Fetched == nil) != (tt.origin+tt.peers == 0) {
				t.Errorf("fetched since %v", last.Fetched)
			}
			var rows, flow int64
			for _, w := range r.Rows {
				for _, s := range w.From {
					rows += s.Bytes
				}
			}
			for n, s := range r.Sources {
				if s.Kind != CacheSource {
					for _, bytes := range r.Flow.Came[n] {
						flow += bytes
					}
				}
			}
			if want := r.FromOrigin + r.FromPeers; rows != want+r.FromCache || math.Abs(float64(flow-want)) > float64(want)/50 {
				t.Errorf("rows have %d bytes, the flow %d, of %d fetched and %d cached", rows, flow, want, r.FromCache)
			}
		})
	}
}

// near2 tells whether numbers are the wanted ones, but for 2 %.
func near2(got []int64, want ...int64) bool {
	for i := range got {
		if math.Abs(float64(got[i]-want[i])) > .02*float64(max(want[i], mib)) {
			return false
		}
	}
	return true
}

// Of many members a report tells the first apart, and sums the rest.
func TestManyMembers(t *testing.T) {
	p := play(ask{0, 10, "GET child", nil}, ask{20, 1000, "GET layer1", nil}, ask{20, 1000, "GET layer2", nil})[0]
	fills := map[digest.Digest]*trace.Fill{}
	for i, name := range []string{"layer1", "layer2"} {
		var all []from
		for j := range trace.MaxSources {
			all = append(all, from{trace.Source{Member: strings.Repeat("x", 1+8*i+j)}, 100, 100, 900, mib})
		}
		fills[d(name)] = fill(100, 900, 950, all...)
	}
	r := Analyse(p, func(of digest.Digest) *trace.Fill { return fills[of] })
	if last := r.Sources[len(r.Sources)-1]; len(r.Sources) > maxSources+2 || last.Name != trace.Others || r.FromPeers != 2*trace.MaxSources*mib {
		t.Errorf("%d sources, %d bytes of peers, the last is %+v", len(r.Sources), r.FromPeers, last)
	}
	for _, w := range r.Rows {
		if len(w.Flow.Came) > maxRowSources {
			t.Errorf("%d sources are shown over time", len(w.Flow.Came))
		}
	}
}

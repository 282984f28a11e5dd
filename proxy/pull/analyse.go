package pull

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/trace"
)

// maxSources is how many of a report are told apart; maxRowSources how many of a
// row are shown over time.
const (
	maxSources    = 12
	maxRowSources = 4
)

// analysis is a report in the making.
type analysis struct {
	p       *Pull
	begun   time.Time
	length  time.Duration
	rows    []*traced
	sources []*source
	waits   map[Cause]float64 // seconds
	client  float64           // seconds in which it took bytes
}

// traced is a row with what is known of its fill, nil if none concerns the pull.
type traced struct {
	*row
	fill *trace.Fill
	from []int // sources of the report, by number in the fill
}

// source is one of the report, as it adds up.
type source struct {
	Source
	busy float64 // seconds
}

// Analyse makes the report of a pull that has ended. fill returns what is known
// of how a blob was fetched last, nil if that is nothing.
func Analyse(p *Pull, fill func(digest.Digest) *trace.Fill) Report {
	a := &analysis{p: p, begun: p.Begun, length: max(time.Microsecond, p.last.Sub(p.Begun)), waits: map[Cause]float64{}}
	for _, w := range p.rows {
		t := &traced{row: w}
		if f := fill(w.digest); f != nil && w.kind != KindTag && concerns(f, p) {
			t.fill = f
		}
		a.rows = append(a.rows, t)
	}
	rows := a.takeRows()
	a.wait()
	r := Report{
		Summary: Summary{
			Version: Version, Image: p.image(), Platform: p.platform(), Client: p.Client.String(),
			Began: p.Begun, Seconds: a.length.Seconds(), Result: OK,
		},
		Rows: rows, Zones: []Zone{}, Sources: []Source{},
	}
	a.conclude(&r)
	return r
}

// concerns tells whether a fill brought something while the pull went on, or was to.
func concerns(f *trace.Fill, p *Pull) bool {
	if !f.Began.Before(p.last) {
		return false
	}
	if f.Ended.IsZero() || f.Stored.IsZero() {
		return f.Ended.IsZero() || f.Ended.After(p.Begun)
	}
	return f.Stored.After(p.Begun)
}

// image is what people call it.
func (p *Pull) image() string {
	switch {
	case p.Tag != "":
		return p.Repository + ":" + p.Tag
	case p.Digest != "" && !p.onlyBlobs():
		return p.Repository + "@" + p.Digest.String()
	}
	return p.Repository
}

// platform is that of the manifest of which most layers were asked for: some
// runtimes fetch the manifests and configs of all.
func (p *Pull) platform() string {
	votes := map[digest.Digest]int{}
	for _, w := range p.rows {
		switch w.kind {
		case KindLayer:
			votes[p.parents[w.digest]] += MaxRows
		case KindConfig:
			votes[p.parents[w.digest]] += 2
		case KindManifest:
			votes[w.digest]++
		}
	}
	most, best := 0, ""
	for d, n := range votes {
		if n > most || n == most && p.system[d] < best {
			most, best = n, p.system[d]
		}
	}
	return best
}

// number returns the number of a source.
func (a *analysis) number(s Source) int {
	same := func(o *source) bool { return o.Kind == s.Kind && o.Name == s.Name }
	i := slices.IndexFunc(a.sources, same)
	if i >= 0 {
		return i
	}
	if s.Kind == PeerSource && s.Name != trace.Others && len(a.sources) >= maxSources {
		return a.number(Source{Kind: PeerSource, Name: trace.Others})
	}
	a.sources = append(a.sources, &source{Source: s})
	return len(a.sources) - 1
}

// since is a time as a report has it.
func (a *analysis) since(t time.Time) float64 { return t.Sub(a.begun).Seconds() }

func (a *analysis) takeRows() []Row {
	rows := make([]Row, 0, len(a.rows))
	for _, t := range a.rows {
		first := t.requests[0]
		w := Row{Kind: t.kind, Digest: t.digest.String(), Size: t.size, Requests: t.count, Start: a.since(first.Begun), Result: OK, From: []Share{}}
		end := first.Ended
		for _, q := range t.requests {
			w.Sent += q.Sent
			if q.Ended.After(end) {
				end = q.Ended
			}
			if at := a.since(q.First); !q.First.IsZero() && (w.First == nil || at < *w.First) {
				w.First = &at
			}
		}
		w.End = a.since(end)
		if last := t.requests[len(t.requests)-1]; !t.whole() {
			w.Result, w.Error = Failed, last.Err
			if last.Left {
				w.Result, w.Error = Aborted, "the client left"
			}
		}
		a.share(t, &w)
		rows = append(rows, w)
	}
	slices.SortStableFunc(rows, func(x, y Row) int { return cmp.Compare(x.Start, y.Start) })
	return rows
}

// share says where the bytes of a row came from.
func (a *analysis) share(t *traced, w *Row) {
	give := func(n int, bytes int64) {
		if bytes > 0 {
			a.sources[n].Bytes += bytes
			w.From = append(w.From, Share{n, bytes})
		}
	}
	f := t.fill
	if f == nil {
		switch last := t.requests[len(t.requests)-1]; {
		case w.Sent == 0:
		case last.Source == Past:
			give(a.number(Source{Kind: OriginSource, Name: a.p.Repository}), w.Sent)
		default:
			give(a.number(Source{Kind: CacheSource}), w.Sent)
		}
		return
	}
	fetched := a.since(f.Began)
	w.Fetched = &fetched
	if !f.Ended.IsZero() && f.Err == "" {
		proven := a.since(f.Ended)
		w.Proven = &proven
	}
	from, to := a.begun.Sub(f.Began), a.begun.Add(a.length).Sub(f.Began)
	if !f.Ended.IsZero() {
		to = max(to, f.Ended.Sub(f.Began)) // of what came to its end all was worth it
	}
	early, step := f.Restored, time.Duration(0)
	for i := range f.Sources {
		s := &f.Sources[i]
		n := a.number(sourceOf(s))
		t.from = append(t.from, n)
		in := s.Bytes
		if all := s.Came.Total(); from > 0 && all > 0 {
			in = int64(float64(s.Bytes) * s.Came.Between(from, to) / float64(all))
		}
		early += s.Bytes - in
		give(n, in)
		step = max(step, s.Came.Width())
	}
	if early = min(early, w.Sent); early > 0 {
		give(a.number(Source{Kind: CacheSource}), early)
	}
	w.Flow = rowFlow(f, w, t.from, step)
}

// sourceOf returns a source of a fill as the report has it.
func sourceOf(s *trace.Source) Source {
	if s.Member == "" {
		return Source{Kind: OriginSource, Name: cmp.Or(s.Name, "registry")}
	}
	return Source{Kind: PeerSource, Name: s.Member, Zone: s.Zone}
}

// conclude fills in what follows from the rest.
func (a *analysis) conclude(r *Report) {
	for _, w := range r.Rows {
		r.Bytes += w.Sent
		if w.Result != OK && (r.Result == OK || r.Result == Aborted) {
			r.Result, r.Error = w.Result, w.Kind+": "+w.Error
		}
	}
	zones := map[string]int64{}
	var fetched, rates float64
	for _, s := range a.sources {
		switch s.Kind {
		case OriginSource:
			r.FromOrigin += s.Bytes
		case PeerSource:
			r.FromPeers += s.Bytes
			zones[s.Zone] += s.Bytes
		case CacheSource:
			r.FromCache += s.Bytes
		}
		if s.busy > 0 {
			s.Busy = min(1, s.busy/r.Seconds)
			s.Rate = float64(s.Bytes) / s.busy
			fetched, rates = fetched+float64(s.Bytes), rates+s.Rate
		}
		r.Sources = append(r.Sources, s.Source)
	}
	for _, z := range slices.Sorted(maps.Keys(zones)) {
		r.Zones = append(r.Zones, Zone{z, zones[z]})
	}
	if r.Bound = a.client; rates > 0 {
		r.Bound = max(r.Bound, fetched/rates)
	}
	if r.Bound > 0 {
		r.Ratio = r.Seconds / r.Bound
	}
	for _, c := range Causes() {
		if a.waits[c] > 0 {
			r.Waits = append(r.Waits, Wait{c, a.waits[c]})
		}
	}
	slices.SortStableFunc(r.Waits, func(x, y Wait) int { return cmp.Compare(y.Seconds, x.Seconds) })
	r.Bottleneck = r.Waits[0].For
	r.Flow = a.flow()
	r.Why = why(r, a.client)
}

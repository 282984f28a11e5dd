package pull

import (
	"slices"
	"time"

	"shoal/blobcache/trace"
)

// flowSteps are how finely what came is shown over a whole pull.
const flowSteps = 120

// rowFlow returns what came from each of the row's shares, which are in order of
// the fill's sources. Of many only the first are shown.
func rowFlow(f *trace.Fill, w *Row, numbers []int, step time.Duration) Flow {
	flow := Flow{Step: step.Seconds()}
	var length time.Duration
	for i := range f.Sources {
		s := &f.Sources[i].Came
		length = max(length, time.Duration(len(s.Sums()))*s.Width())
	}
	for _, share := range w.From[:min(len(w.From), maxRowSources)] {
		i := slices.Index(numbers, share.Source)
		if i < 0 {
			continue // the cache
		}
		s := &f.Sources[i].Came
		var came []int64
		for at := time.Duration(0); at < length; at += step {
			came = append(came, int64(s.Between(at, at+step)))
		}
		flow.Came = append(flow.Came, came)
	}
	if flow.Came == nil {
		return Flow{}
	}
	return flow
}

// flow adds up what came over the whole pull.
func (a *analysis) flow() Flow {
	step := a.length / flowSteps
	if step <= 0 {
		return Flow{}
	}
	came := make([][]int64, len(a.sources))
	for n := range came {
		came[n] = make([]int64, flowSteps)
	}
	for _, t := range a.rows {
		if t.fill == nil {
			a.served(t.row, came, step)
			continue
		}
		at := a.begun.Sub(t.fill.Began)
		for i := range t.fill.Sources {
			for j := range flowSteps {
				from := at + time.Duration(j)*step
				came[t.from[i]][j] += int64(t.fill.Sources[i].Came.Between(from, from+step))
			}
		}
	}
	return Flow{Step: step.Seconds(), Came: came}
}

// served adds what went out to the client at once, as its writing took time.
func (a *analysis) served(w *row, came [][]int64, step time.Duration) {
	for _, q := range w.requests {
		n := slices.IndexFunc(a.sources, func(s *source) bool { return s.Kind == CacheSource })
		if q.Source == Past {
			n = slices.IndexFunc(a.sources, func(s *source) bool { return s.Kind == OriginSource })
		}
		total := q.Writing.Total()
		if n < 0 || total == 0 {
			continue
		}
		for j := range came[n] {
			from := a.begun.Add(time.Duration(j) * step).Sub(q.Begun)
			came[n][j] += int64(float64(q.Sent) * q.Writing.Between(from, from+step) / float64(total))
		}
	}
}

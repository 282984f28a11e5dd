package pull

import (
	"time"

	"shoal/blobcache/trace"
)

// steps are how finely the time of a pull is looked at.
const steps = 480

// wait finds what each moment of the pull was waited for.
func (a *analysis) wait() {
	n := int(min(steps, max(1, a.length/time.Millisecond)))
	step := a.length / time.Duration(n)
	for i := range n {
		from := time.Duration(i) * step
		to := from + step
		if i == n-1 {
			to = a.length
		}
		a.moment(from, to)
	}
}

// moment adds what was waited for between two times since the pull began: of
// several rows that wait each has its part.
func (a *analysis) moment(from, to time.Duration) {
	span := (to - from).Seconds()
	busy := make(map[int]float64)
	writing := 0.0
	fills := make(map[*trace.Fill]bool)
	var waiting []map[Cause]float64
	for _, t := range a.rows {
		if t.fill != nil && !fills[t.fill] {
			fills[t.fill] = true
			at := a.begun.Sub(t.fill.Began)
			for j := range t.fill.Sources {
				busy[t.from[j]] += t.fill.Sources[j].Busy.Between(at+from, at+to) / 1e9
			}
		}
		if open, took := t.taken(a.begun.Add(from), a.begun.Add(to)); open {
			writing += took
			waiting = append(waiting, t.causes(a, from, to, min(1, took/span)))
		}
	}
	for n, seconds := range busy {
		a.sources[n].busy += min(seconds, span)
	}
	a.client += min(writing, span)
	if len(waiting) == 0 {
		a.waits[Idle] += span
	}
	for _, w := range waiting {
		for cause, part := range w {
			a.waits[cause] += part * span / float64(len(waiting))
		}
	}
}

// taken tells whether a request for the row was open at a time, and for how many
// seconds bytes were on their way to the client.
func (t *traced) taken(from, to time.Time) (open bool, seconds float64) {
	for _, q := range t.requests {
		if q.Begun.Before(to) && q.Ended.After(from) {
			open = true
			seconds += q.Writing.Between(from.Sub(q.Begun), to.Sub(q.Begun)) / 1e9
		}
	}
	return open, seconds
}

// causes says what the row waited for, in parts of 1; the client for that part.
func (t *traced) causes(a *analysis, from, to time.Duration, client float64) map[Cause]float64 {
	parts := map[Cause]float64{Client: client}
	rest, f := 1-client, t.fill
	at := a.begun.Add(from)
	served := false // it has had a byte
	for _, q := range t.requests {
		served = served || !q.First.IsZero() && q.First.Before(at)
	}
	last := t.requests[len(t.requests)-1]
	switch {
	case t.kind == KindTag, f == nil && (last.Source != FromCache || t.manifest() && last.Tag != ""), f != nil && t.manifest() && at.Before(f.Began):
		parts[Registry] += rest // is asked what the tag means, or past the cache
	case f == nil && served, f != nil && !f.Ended.IsZero() && !at.Before(f.Ended):
		parts[Disk] += rest
	case f == nil:
		parts[Proof] += rest // anew, before it is served
	case at.Before(f.Began):
		parts[Lookup] += rest
	case f.Ended.Sub(f.Stored) < time.Hour && !f.Stored.IsZero() && !f.Ended.IsZero() && !at.Before(f.Stored):
		parts[Proof] += rest
	default:
		t.fetching(a, parts, rest, from, to)
	}
	return parts
}

// fetching says whom a fill waited for that runs.
func (t *traced) fetching(a *analysis, parts map[Cause]float64, rest float64, from, to time.Duration) {
	f := t.fill
	at := a.begun.Sub(f.Began)
	var origin, peers, came float64
	for i := range f.Sources {
		s := &f.Sources[i]
		came += s.Came.Between(0, at+to)
		if busy := s.Busy.Between(at+from, at+to); s.Member == "" {
			origin += busy
		} else {
			peers += busy
		}
	}
	switch asked := origin + peers; {
	case asked == 0 && a.originBusy(at+from, f):
		parts[Registry] += rest // gives other layers first
	case asked == 0:
		parts[Lookup] += rest
	case came == 0:
		parts[Connect] += rest
	default:
		disk := 0.0
		if f.Flying > 0 {
			disk = min(1, f.Writing.Seconds()/f.Flying.Seconds())
		}
		parts[Disk] += rest * disk
		parts[Registry] += rest * (1 - disk) * origin / asked
		parts[Peers] += rest * (1 - disk) * peers / asked
	}
}

// originBusy tells whether the registry gave something to another fill of the pull
// at a time since f began.
func (a *analysis) originBusy(at time.Duration, f *trace.Fill) bool {
	for _, t := range a.rows {
		if t.fill == nil || t.fill == f {
			continue
		}
		for i := range t.fill.Sources {
			s := &t.fill.Sources[i]
			when := at + f.Began.Sub(t.fill.Began)
			if s.Member == "" && when >= 0 && s.Busy.Between(when, when+s.Busy.Width()) > 0 {
				return true
			}
		}
	}
	return false
}

// Package trace is the vocabulary for what happened while a blob came: who was
// asked when, whose bytes came when, and when all of it was proven. Who fetches
// records it, who explains it to people reads it, and neither knows the other.
//
// It does no I/O and starts no goroutines. What is recorded is bounded, however
// long a fill takes and however many members take part: a Series has a fixed
// number of buckets, a Fill so many members, and the last of them stands for all
// others. To record costs neither a lock nor an allocation, but for a new source.
package trace

import (
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// MaxSources is how many members that bring a fill are told apart. Those that
// come after are counted as one more, Others. Origins always are.
const MaxSources = 8

// Others is the Member of the source that stands for all that are not told apart.
const Others = "others"

// publishEvery is how often a running fill can be seen: as often as people look.
const publishEvery = time.Second

// Fill is what happened while one blob was fetched. A published one is never
// changed.
type Fill struct {
	Digest digest.Digest
	// Size is in bytes; negative while it is not known.
	Size  int64
	Began time.Time
	// Restored are bytes that an earlier fill had left on the disk.
	Restored int64
	Sources  []Source
	// Stored is when the last piece was written; zero before the first.
	Stored time.Time
	// Ended is zero while it runs. Err is what it failed of.
	Ended time.Time
	Err   string
	// Flying is the time of all requests together, Writing what of it went by
	// while pieces were checked and written.
	Flying, Writing time.Duration
}

// Source is where bytes of a fill came from: a member or an origin.
type Source struct {
	// Member is a peer ID in text, or Others, and empty for an origin.
	Member string
	// Name is that of an origin: a registry and repository, or empty.
	Name string
	Zone string // of a member; may be empty
	// Bytes are those of pieces that were kept.
	Bytes int64
	// Came are the bytes as they came, Busy the nanoseconds in which it was asked
	// for some. Both start when the fill did.
	Came, Busy Series
}

// Live is a fill that runs, or has ended. Its methods may be called from any
// goroutine.
type Live struct {
	fill atomic.Pointer[Fill]
}

// Fill returns what is known by now, not older than a second.
func (l *Live) Fill() *Fill { return l.fill.Load() }

// Recorder writes a Fill down. It belongs to one goroutine. A nil one records
// nothing.
type Recorder struct {
	fill      Fill
	live      *Live
	observe   func(*Live)
	flights   []flights
	members   int // among the sources, without Others
	published time.Time
	ended     bool
}

// flights are the requests in flight to a source.
type flights struct {
	count int
	since time.Duration // that was counted last
}

// Record begins the record of a fill that starts now, for observe.
func Record(d digest.Digest, size int64, observe func(*Live)) *Recorder {
	return &Recorder{fill: Fill{Digest: d, Size: size, Began: time.Now()}, live: &Live{}, observe: observe}
}

// Open lets the fill be seen from now on: it is one, and does not just find that
// the blob is here, or that another fill brings it.
func (r *Recorder) Open() {
	if r != nil {
		r.publish(time.Now())
		r.observe(r.live)
	}
}

// Sized notes how large the blob is, and what of it was here before.
func (r *Recorder) Sized(size, restored int64) {
	if r != nil {
		r.fill.Size, r.fill.Restored = size, restored
	}
}

// Source returns the number of a source, by its Member and Name.
func (r *Recorder) Source(s Source) int {
	if r == nil {
		return 0
	}
	for i := range r.fill.Sources {
		if known := &r.fill.Sources[i]; known.Member == s.Member && known.Name == s.Name {
			return i
		}
	}
	if s.Member != "" && s.Member != Others { // an origin never is one of the others
		if r.members >= MaxSources {
			return r.Source(Source{Member: Others})
		}
		r.members++
	}
	r.fill.Sources = append(r.fill.Sources, s)
	r.flights = append(r.flights, flights{})
	return len(r.fill.Sources) - 1
}

// Asked notes that a request to a source began.
func (r *Recorder) Asked(source int) {
	if r != nil {
		r.spend(source, time.Since(r.fill.Began))
		r.flights[source].count++
	}
}

// Answered notes that a request to a source has ended, well or not.
func (r *Recorder) Answered(source int) {
	if r != nil {
		r.spend(source, time.Since(r.fill.Began))
		r.flights[source].count--
	}
}

// Came notes bytes that came from a source.
func (r *Recorder) Came(source int, bytes int64) {
	if r == nil {
		return
	}
	now := time.Since(r.fill.Began)
	r.spend(source, now)
	r.fill.Sources[source].Came.Add(now, bytes)
}

// Kept notes that a piece from a source was written, which took so long.
func (r *Recorder) Kept(source int, bytes int64, took time.Duration) {
	if r == nil {
		return
	}
	r.fill.Sources[source].Bytes += bytes
	r.fill.Writing += took
	r.fill.Stored = time.Now()
}

// spend counts the time until now in which a source was asked for something.
func (r *Recorder) spend(source int, now time.Duration) {
	f := &r.flights[source]
	if f.count > 0 {
		r.fill.Sources[source].Busy.AddSpan(f.since, now)
		r.fill.Flying += time.Duration(f.count) * (now - f.since)
	}
	f.since = now
}

// Show lets others see what was recorded, if they have not for a while.
func (r *Recorder) Show() {
	if r == nil {
		return
	}
	if now := time.Now(); now.Sub(r.published) >= publishEvery {
		for i := range r.flights {
			r.spend(i, now.Sub(r.fill.Began))
		}
		r.publish(now)
	}
}

// End notes that the fill has ended, now. Only the first time counts.
func (r *Recorder) End(err error) {
	if r == nil || r.ended {
		return
	}
	now := time.Now()
	r.ended, r.fill.Ended = true, now
	if err != nil {
		r.fill.Err = err.Error()
	}
	for i := range r.flights {
		r.spend(i, now.Sub(r.fill.Began))
	}
	r.publish(now)
}

func (r *Recorder) publish(now time.Time) {
	seen := r.fill
	seen.Sources = append([]Source(nil), r.fill.Sources...)
	r.live.fill.Store(&seen)
	r.published = now
}

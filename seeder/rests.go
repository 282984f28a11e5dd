package seeder

import (
	"maps"
	"sync"
	"time"
)

const (
	// restFirst is how long a member is ordered nothing that has not done what it
	// was; each further time doubles that, up to restMost. It may be full, trust
	// another key or reach no registry, and that is for people to mend.
	restFirst = time.Minute
	restMost  = 6 * time.Hour
	// lostFor is how long a member is not ordered an image that it fetched and
	// did not keep: its cache is too small for it.
	lostFor = time.Hour
)

// rests are what members are not ordered for a while. Its methods may be called
// from any goroutine; the caller says what time it is.
type rests struct {
	mu     sync.Mutex
	failed map[string]rest         // by member
	done   map[[2]string]time.Time // when, by member and image
}

type rest struct {
	times int
	until time.Time
}

func newRests() *rests { return &rests{failed: map[string]rest{}, done: map[[2]string]time.Time{}} }

// may tells whether a member that has not got an image whole may be ordered to
// fetch it.
func (r *rests) may(member, image string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !now.Before(r.failed[member].until) && now.Sub(r.done[[2]string{member, image}]) >= lostFor
}

// note takes in how an order ended.
func (r *rests) note(member, image string, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.failed, member)
		maps.DeleteFunc(r.done, func(_ [2]string, at time.Time) bool { return now.Sub(at) >= lostFor })
		r.done[[2]string{member, image}] = now
		return
	}
	was := r.failed[member]
	r.failed[member] = rest{was.times + 1, now.Add(min(restMost, restFirst<<min(was.times, 16)))}
}

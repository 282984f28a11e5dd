package p2p

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// avoidFor is how long a holder that could not be reached is left alone;
	// it doubles with each failure in a row, up to avoidMost. The DHT names a
	// dead holder for recordValidity, and each lookup would dial it again.
	avoidFor  = 5 * time.Second
	avoidMost = 2 * time.Minute
	// maxAvoided bounds how many failures are remembered.
	maxAvoided = 1024
)

// avoidance remembers members that could not be reached. The caller says what
// time it is.
type avoidance struct {
	mu     sync.Mutex
	failed map[peer.ID]failure
}

type failure struct {
	until time.Time
	wait  time.Duration
}

// mayTry reports whether id may be dialled.
func (a *avoidance) mayTry(id peer.ID, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !now.Before(a.failed[id].until)
}

// fail notes that id did not answer.
func (a *avoidance) fail(id peer.ID, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed == nil {
		a.failed = make(map[peer.ID]failure)
	}
	if len(a.failed) >= maxAvoided {
		for id, f := range a.failed {
			if !now.Before(f.until) {
				delete(a.failed, id)
			}
		}
		if len(a.failed) >= maxAvoided {
			return
		}
	}
	wait := min(max(avoidFor, 2*a.failed[id].wait), avoidMost)
	a.failed[id] = failure{now.Add(wait), wait}
}

// clear forgets the failures of id, which is there again.
func (a *avoidance) clear(id peer.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.failed, id)
}

package exchange

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// banFirst is how long a liar is banned for its first offence; it doubles
	// with each one up to banMost. Disks rot and machines are repaired, so no
	// ban is for ever.
	banFirst = 10 * time.Minute
	banMost  = 24 * time.Hour
	// maxBans bounds how many liars are remembered; beyond it those whose ban
	// is over are forgotten, with their history.
	maxBans = 4096
)

// bans remembers who lied. The caller says what time it is.
type bans struct {
	mu    sync.Mutex
	liars map[peer.ID]conviction
}

type conviction struct {
	until time.Time
	last  time.Duration
}

// banned reports whether nothing is to be fetched from id.
func (b *bans) banned(id peer.ID, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Before(b.liars[id].until)
}

// convict bans id and returns for how long; zero if it is banned already.
func (b *bans) convict(id peer.ID, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.liars == nil {
		b.liars = make(map[peer.ID]conviction)
	}
	c := b.liars[id]
	if now.Before(c.until) {
		return 0
	}
	if len(b.liars) >= maxBans {
		for other, o := range b.liars {
			if !now.Before(o.until) {
				delete(b.liars, other)
			}
		}
	}
	c.last = min(banMost, max(banFirst, 2*c.last))
	c.until = now.Add(c.last)
	b.liars[id] = c
	return c.last
}

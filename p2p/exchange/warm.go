package exchange

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// warmEvery is how often connections to members are looked after.
	warmEvery = 2 * time.Second
	// maxCandidates bounds the connected members that are looked at.
	maxCandidates = 1024
)

// KeepWarm keeps connections open to members, as many as one fill follows,
// until ctx is done: opening one takes three round trips and a millisecond or
// two of CPU, and a crowd that begins at the same moment would open all of its
// own in that moment. It may be called once.
func (x *Exchange) KeepWarm(ctx context.Context) {
	ticker := time.NewTicker(warmEvery)
	defer ticker.Stop()
	for {
		near, _ := x.near()
		x.follows.keep(near)
		select {
		case <-ctx.Done():
			x.follows.keep(nil)
			return
		case <-ticker.C:
		}
	}
}

// near returns connected members, MaxNear at most: those first to whom there is
// a connection, so that they stay the same.
func (x *Exchange) near() (near []Holder, connected int) {
	near, connected = x.swarm.Near(maxCandidates)
	if len(near) > MaxNear {
		warm := x.follows.warm()
		slices.SortStableFunc(near, func(a, b Holder) int {
			switch {
			case warm[a.Peer] == warm[b.Peer]:
				return 0
			case warm[a.Peer]:
				return -1
			}
			return 1
		})
		near = near[:MaxNear]
	}
	return near, connected
}

// warm returns the members to whom there is a connection.
func (fs *follows) warm() map[peer.ID]bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	warm := make(map[peer.ID]bool, len(fs.sessions))
	for id := range fs.sessions {
		warm[id] = true
	}
	return warm
}

// keep opens the connections to these members that are not there, unless they
// did not answer lately, and lets others go when they are idle.
func (fs *follows) keep(near []Holder) {
	now := time.Now()
	wanted := make(map[peer.ID]bool, len(near))
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, h := range near {
		if wanted[h.Peer] = true; fs.sessions[h.Peer] == nil && len(h.Pieces) > 0 && now.After(fs.old[h.Peer]) &&
			!fs.x.silent.Holds(h.Peer, now) && !fs.x.bans.Holds(h.Peer, now) {
			fs.open(h)
		}
	}
	for id, s := range fs.sessions {
		s.kept.Store(wanted[id])
	}
}

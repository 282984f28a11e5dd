package exchange

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

const (
	// warmEvery is how often connections to members are looked after.
	warmEvery = 2 * time.Second
	// maxCandidates bounds the connected members that are looked at.
	maxCandidates = 1024
	// touchEvery is how often a connection for pieces is used so that it stays
	// open.
	touchEvery = idleTimeout - 30*time.Second
)

// warmth is to whom a connection for pieces is open, or being opened.
type warmth struct {
	mu sync.Mutex
	at map[peer.ID]time.Time // when it was last used to stay open
}

// KeepWarm keeps connections open to members until ctx is done: one each that
// tells what they have, to as many as one fill follows, and one for pieces to
// those whom a fill asks first. Opening one takes three round trips and a
// millisecond or two of CPU, and a crowd that begins at the same moment would
// open all of its own in that moment. It may be called once.
func (x *Exchange) KeepWarm(ctx context.Context) {
	ticker := time.NewTicker(warmEvery)
	defer ticker.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		near, _ := x.near()
		x.follows.keep(near)
		for _, h := range x.warmth.due(time.Now(), near, x.follows.warm(), x.limits.degrees.Ask) {
			wg.Go(func() { x.touch(ctx, h) })
		}
		select {
		case <-ctx.Done():
			x.follows.keep(nil)
			return
		case <-ticker.C:
		}
	}
}

// due returns those of near whose connection for pieces is to be used now, and
// notes that it is: most stay open, to members that are followed and so known to
// be there. near has those first to whom there is one.
func (w *warmth) due(now time.Time, near []Holder, followed map[peer.ID]bool, most int) []Holder {
	w.mu.Lock()
	defer w.mu.Unlock()
	var due []Holder
	kept := make(map[peer.ID]time.Time, most)
	for _, h := range near {
		at, ok := w.at[h.Peer]
		switch {
		case !followed[h.Peer] || len(kept) >= most:
			continue
		case !ok || now.Sub(at) >= touchEvery:
			due, at = append(due, h), now
		}
		kept[h.Peer] = at
	}
	w.at = kept
	return due
}

// has reports whether a connection for pieces to a member is kept open.
func (w *warmth) has(id peer.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.at[id]
	return ok
}

// touch uses a connection for pieces to a member, or opens one: it asks for
// nothing, and what the answer is does not matter.
func (x *Exchange) touch(ctx context.Context, h Holder) {
	if _, err := x.client.info(ctx, h, blob.Descriptor{Digest: digest.FromBytes(nil)}); unanswered(err) {
		x.log.Debug("connection for pieces not opened", "peer", h.Peer, "error", err)
	}
}

// near returns connected members, MaxNear at most: those first to whom there
// are connections, so that they stay the same.
func (x *Exchange) near() (near []Holder, connected int) {
	near, connected = x.swarm.Near(maxCandidates)
	warm := x.follows.warm()
	rank := func(h Holder) int {
		switch {
		case x.warmth.has(h.Peer):
			return 0
		case warm[h.Peer]:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(near, func(a, b Holder) int { return rank(a) - rank(b) })
	return near[:min(MaxNear, len(near))], connected
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

// connected reports whether the connection to a member is open already.
func (fs *follows) connected(id peer.ID) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	s := fs.sessions[id]
	return s != nil && s.trip.Load() > 0
}

// keep opens the connections to these members that are not there, unless they
// did not answer lately, and lets others go when they are idle.
func (fs *follows) keep(near []Holder) {
	now := time.Now()
	wanted := make(map[peer.ID]bool, len(near))
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, h := range near {
		if wanted[h.Peer] = true; fs.sessions[h.Peer] == nil && fs.x.client.reachable(h) && now.After(fs.old[h.Peer]) &&
			!fs.x.silent.Holds(h.Peer, now) && !fs.x.bans.Holds(h.Peer, now) {
			fs.open(h)
		}
	}
	for id, s := range fs.sessions {
		s.kept.Store(wanted[id])
	}
}

package exchange

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/p2p/plan"
)

// A lookup is spared only where enough of the connected members have something,
// or an early one where all have answered who can be asked. Those that do not
// answer are waited for, but not for long.
func TestLookupsAreSpared(t *testing.T) {
	for name, c := range map[string]struct {
		connected, fills, waiting int
		early, enough             bool
	}{
		"all of few":                    {3, 3, 0, false, true},
		"not all of few":                {3, 2, 0, false, false},
		"nobody":                        {3, 0, 0, false, false},
		"enough of many":                {64, enoughMembers, 0, false, true},
		"enough before all answer":      {64, enoughMembers, 5, false, true},
		"not enough of many":            {64, enoughMembers - 1, 0, false, false},
		"somebody does not answer":      {3, 2, 1, false, false},
		"nobody was asked":              {3, 0, 0, false, false},
		"more than are connected":       {1, 2, 0, false, true},
		"all of few, one asked yet":     {2, 2, 1, false, true},
		"early, all have said no":       {enoughMembers, 0, 0, true, true},
		"early, one does not answer":    {enoughMembers, 0, 1, true, false},
		"early, in a very small swarm":  {enoughMembers - 1, 0, 0, true, false},
		"early, not everybody is asked": {MaxNear + 1, 0, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSearch(nil, blob.Descriptor{})
				for i := range c.fills + c.waiting {
					s.asked[peer.ID(rune(i))] = &asked{fills: i < c.fills, waiting: i >= c.fills}
				}
				begun := time.Now()
				if got := s.enough(t.Context(), c.connected, c.early); got != c.enough {
					t.Errorf("enough: %v", got)
				}
				var want time.Duration
				switch {
				case c.waiting > 0 && c.early:
					want = answerAll
				case c.waiting > 0 && !c.enough:
					want = answerTime
				}
				if waited := time.Since(begun); waited != want {
					t.Errorf("waited for %v, not %v", waited, want)
				}
			})
		})
	}
}

// quietSwarm has so many connected members and counts announcements and lookups.
type quietSwarm struct {
	Swarm
	connected, told int
	found           atomic.Int32
	near            []Holder
}

func (q *quietSwarm) Near(int) ([]Holder, int) { return slices.Clone(q.near), q.connected }

func (q *quietSwarm) Find(context.Context, digest.Digest) <-chan Holder {
	q.found.Add(1)
	none := make(chan Holder)
	close(none)
	return none
}

func (q *quietSwarm) Announce(context.Context, digest.Digest) error {
	q.told++
	return nil
}

// A fill is announced at once where not every member hears of it, and where all
// do only if it is not over soon.
func TestFillsAreAnnouncedWhereItHelps(t *testing.T) {
	for name, c := range map[string]struct {
		connected  int
		after      time.Duration
		announced  int
		pieceCount int
	}{
		"large swarm":             {MaxNear + 1, 0, 1, 2},
		"small swarm, soon over":  {MaxNear, announceLate - 1, 0, 2},
		"small swarm, goes on":    {MaxNear, announceLate + 1, 1, 2},
		"large swarm, one piece":  {MaxNear + 1, time.Minute, 0, 1},
		"nobody else, soon over":  {0, announceLate - 1, 0, 2},
		"nobody else, it goes on": {0, announceLate + 1, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				swarm := &quietSwarm{connected: c.connected}
				x := &Exchange{client: &client{}, swarm: swarm, log: slog.New(slog.DiscardHandler), turns: newTurns()}
				want := blob.Descriptor{Digest: digest.FromString("x"), Size: int64(c.pieceCount) * blob.PieceSize}
				d := newDriver(x, key{want.Digest, want.Size}, want)
				d.plan = plan.New(plan.Config{Size: want.Size, PieceSize: blob.PieceSize, Tuning: plan.Defaults()})
				ctx, end := context.WithCancel(t.Context())
				d.stepForward(ctx)
				time.Sleep(c.after) //nolint:forbidigo // within a bubble nobody waits
				synctest.Wait()
				end()
				d.io.Wait()
				if swarm.told != c.announced {
					t.Errorf("%d announcements, not %d", swarm.told, c.announced)
				}
			})
		})
	}
}

// Only the first lookups of a fill are spared because everybody said no: later
// ones find members that are not connected.
func TestLaterLookupsAreMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		swarm := &quietSwarm{connected: enoughMembers}
		s := newSearch(&Exchange{client: &client{}, cache: emptyCache(t), swarm: swarm, follows: newFollows(nil)}, blob.Descriptor{})
		ctx, end := context.WithCancel(t.Context())
		go s.run(ctx)
		time.Sleep(rounds()[earlyRounds] - 1) //nolint:forbidigo // within a bubble nobody waits
		synctest.Wait()
		if n := swarm.found.Load(); n != 0 {
			t.Errorf("%d lookups of a young fill", n)
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // within a bubble nobody waits
		synctest.Wait()
		if n := swarm.found.Load(); n != 1 {
			t.Errorf("%d lookups, not one", n)
		}
		end()
		synctest.Wait()
	})
}

// Those to whom connections are open are asked before all others.
func TestWhoIsAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const others = 30
		x := quiet(t, &quietSwarm{connected: others})
		x.closed = true
		followed := map[peer.ID]bool{}
		var near []Holder
		for i := range others {
			h := Holder{Peer: peer.ID(rune('a' + i)), Pieces: []string{"x"}}
			near, followed[h.Peer] = append(near, h), true
		}
		x.swarm.(*quietSwarm).near = near
		few := x.limits.degrees.Ask
		x.warmth.due(time.Now(), near[others-few:], followed, few)
		s := newSearch(x, blob.Descriptor{})
		ctx, end := context.WithCancel(t.Context())
		go s.run(ctx)
		for _, want := range []int{few, others} {
			synctest.Wait()
			s.mu.Lock()
			if len(s.asked) != want || s.asked[near[others-1].Peer] == nil {
				t.Errorf("%d members are asked, want %d", len(s.asked), want)
			}
			s.mu.Unlock()
			time.Sleep(headStart) //nolint:forbidigo // within a bubble nobody waits
		}
		end()
		synctest.Wait()
	})
}

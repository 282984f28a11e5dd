package exchange

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/p2p/plan"
)

// A lookup is spared only where enough of the connected members have something.
// Those that do not answer are waited for, but not for long.
func TestLookupsAreSpared(t *testing.T) {
	for name, c := range map[string]struct {
		connected, fills, waiting int
		enough                    bool
	}{
		"all of few":                {3, 3, 0, true},
		"not all of few":            {3, 2, 0, false},
		"nobody":                    {3, 0, 0, false},
		"enough of many":            {64, enoughMembers, 0, true},
		"enough before all answer":  {64, enoughMembers, 5, true},
		"not enough of many":        {64, enoughMembers - 1, 0, false},
		"somebody does not answer":  {3, 2, 1, false},
		"nobody was asked":          {3, 0, 0, false},
		"more than are connected":   {1, 2, 0, true},
		"all of few, one asked yet": {2, 2, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSearch(nil, blob.Descriptor{})
				for i := range c.fills + c.waiting {
					s.asked[peer.ID(rune(i))] = &asked{fills: i < c.fills, waiting: i >= c.fills}
				}
				begun := time.Now()
				if got := s.enough(t.Context(), c.connected); got != c.enough {
					t.Errorf("enough: %v", got)
				}
				waited := time.Since(begun)
				if late := c.waiting > 0 && !c.enough; late != (waited == answerTime) || !late && waited != 0 {
					t.Errorf("waited for %v", waited)
				}
			})
		})
	}
}

// quietSwarm has so many connected members and counts announcements.
type quietSwarm struct {
	Swarm
	connected, told int
}

func (q *quietSwarm) Near(int) ([]Holder, int) { return nil, q.connected }

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
		"large swarm":             {maxNear + 1, 0, 1, 2},
		"small swarm, soon over":  {maxNear, announceLate - 1, 0, 2},
		"small swarm, goes on":    {maxNear, announceLate + 1, 1, 2},
		"large swarm, one piece":  {maxNear + 1, time.Minute, 0, 1},
		"nobody else, soon over":  {0, announceLate - 1, 0, 2},
		"nobody else, it goes on": {0, announceLate + 1, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				swarm := &quietSwarm{connected: c.connected}
				x := &Exchange{swarm: swarm, log: slog.New(slog.DiscardHandler), turns: newTurns()}
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

package exchange

import (
	"context"
	"math/rand/v2"
	"time"

	"shoal/blobcache/blob"
	"shoal/p2p/plan"
)

// announceLate is when a fill is announced in a swarm where everybody who is
// connected hears of it anyway: most are over by then, and the whole blob is
// announced.
const announceLate = 5 * time.Second

// lookTwice is how many lookups must have ended before members count as
// having nothing: the second sees who announced while the first was made.
const lookTwice = 2

// willVolunteer decides by lot, with so many other members connected, of whom
// volunteers are to do so.
func willVolunteer(others, volunteers int, lot float64) bool {
	return float64(others+1)*lot < float64(volunteers)
}

// volunteer makes this node one of those who ask the origin for others, if the
// lot says so; else it may do so later (stepIn). Then it is known who of those
// that followed before finds room.
func (d *driver) volunteer(ctx context.Context) {
	_, others := d.x.swarm.Near(0)
	if willVolunteer(others, d.x.limits.degrees.Volunteers, rand.Float64()) {
		d.stepForward(ctx)
	}
	d.x.followers.trim(d.want.Digest)
}

// stepIn volunteers when the lookups have found too few others.
func (d *driver) stepIn(ctx context.Context) {
	if d.volunteered || !d.search.state(lookTwice).idle {
		return
	}
	n := 0
	for _, s := range d.sources {
		if s.info.Volunteer {
			n++
		}
	}
	if n < d.x.limits.degrees.Fewest {
		d.stepForward(ctx)
	}
}

func (d *driver) stepForward(ctx context.Context) {
	d.volunteered, d.board.untold = true, true
	d.search.volunteer()
	d.plan.Volunteer(true)
	if blob.PieceCount(d.want.Size) <= 1 {
		return // it is here, and announced, before anybody asks
	}
	late := announceLate
	if _, connected := d.x.swarm.Near(0); connected > MaxNear {
		late = 0
	}
	d.io.Go(func() {
		if wait(ctx, late) != nil {
			return
		}
		if err := d.x.swarm.Announce(ctx, d.want.Digest); err != nil && ctx.Err() == nil {
			d.log.Debug("fill not announced", "error", err)
		}
	})
}

// recallOrigin tells the plan what earlier fills learnt: that the origin serves
// ranges. What made one stream may be over.
func (d *driver) recallOrigin() {
	if d.x.ranged.Load() {
		d.plan.KnowsOrigin(plan.Ranged)
	}
}

// rememberOrigin keeps what this fill learnt for later ones.
func (d *driver) rememberOrigin() {
	switch d.plan.Serving() {
	case plan.Ranged:
		d.x.ranged.Store(true)
	case plan.Streams:
		d.x.ranged.Store(false)
	}
}

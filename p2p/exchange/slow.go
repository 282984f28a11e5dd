package exchange

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/pace"
	"shoal/p2p/penalty"
	"shoal/p2p/plan"
)

// forSlowness is how long fills do not wait for a member that was slower than a
// registry; what it offers is taken beside.
func forSlowness() penalty.Terms {
	return penalty.Terms{First: 30 * time.Second, Most: 10 * time.Minute, Members: 1024}
}

// lags reports whether a member is known to be later than a registry would be.
func (x *Exchange) lags(id peer.ID, now time.Time) bool {
	return x.slow.Holds(id, now) || x.met.trip(id) >= x.limits.distant
}

// inCompany is how long a node counts as part of a crowd after its last fill that
// was.
const inCompany = 2 * time.Second

// hurry tells other fills which members are slow, or hears it from them: each
// would need as long to find out.
func (d *driver) hurry() {
	now := time.Now()
	d.plan.Late(time.Since(d.begun) - d.asleep - d.held)
	// Who fills one layer with others does so with the next one. Only what was seen
	// is passed on, or it would never end.
	if d.plan.Accompanied() {
		d.x.company.Store(now.Add(inCompany).UnixNano())
	} else if now.UnixNano() < d.x.company.Load() {
		d.plan.Busy()
	}
	known, others := 0, 0
	for id, src := range d.sources {
		switch {
		case !src.joined || !src.whole:
		case d.plan.Slow():
			d.x.slow.Add(id, now)
		case d.plan.Fast():
			d.x.slow.Pardon(id)
		case d.x.slow.Holds(id, now):
			known++
		default:
			others++
		}
	}
	if known > 0 && others == 0 {
		d.plan.Hurry()
	}
}

// tuning returns what a plan of this moment goes by. Members cannot show that
// they are fast to a node that is limited: half of that is enough, which several
// fills share.
func (x *Exchange) tuning() plan.Tuning {
	t := x.limits.plan
	if rate := x.download.Rate(); rate != pace.Unlimited {
		t.SlowHolders = min(t.SlowHolders, float64(rate)/2)
	}
	return t
}

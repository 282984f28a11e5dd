package exchange

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bits-and-blooms/bitset"
	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/p2p/plan"
	"shoal/p2p/wire"
)

// inZone puts the node of d into a zone, connected to so many members, of which
// these are near.
func inZone(d *driver, zone string, connected int, near ...Holder) {
	d.x.zone, d.x.swarm = zone, &quietSwarm{connected: connected, near: near}
	d.x.around.looked = time.Time{}
}

// of returns so many members of a zone, named by it and numbers.
func of(zone string, n int) (all []Holder) {
	for i := range n {
		all = append(all, Holder{Peer: peer.ID(fmt.Sprint(zone, i)), Pieces: []string{"x"}, Zone: zone})
	}
	return all
}

// A member is in another zone if it says so, and where nobody says anything, if
// it is far away.
func TestFar(t *testing.T) {
	for _, c := range []struct {
		own, other string
		trip       time.Duration
		far        bool
	}{
		{"a", "a", time.Second, false},
		{"a", "b", time.Microsecond, true},
		{"a", "", time.Microsecond, true},
		{"", "b", time.Microsecond, true},
		{"", "", 0, false}, // nobody knows
		{"", "", oneZone, false},
		{"", "", oneZone + 1, true},
	} {
		d, _ := crowded(t, 500, false)
		d.x.zone = c.own
		if c.trip > 0 {
			d.x.met.meet("p").tripped(c.trip)
		}
		if got := d.x.far(Holder{Peer: "p", Zone: c.other}); got != c.far {
			t.Errorf("zones %q and %q, %v apart: far is %v", c.own, c.other, c.trip, got)
		}
	}
}

// says lets a member say that it fills the blob.
func says(d *driver, left map[peer.ID]int, h Holder, info wire.Info) {
	d.search.asked[h.Peer] = &asked{holder: h, leave: func() { left[h.Peer]++ }}
	info.Size, info.Proven, info.Claims = d.want.Size, bitset.New(4), bitset.New(4)
	d.search.hear(h.Peer, said{info: info})
	d.listen()
}

// All members of a small zone know each other, however many members of others
// there are, and the other way round.
func TestZonesHaveRoomOfTheirOwn(t *testing.T) {
	g := plan.DefaultDegrees()
	for name, c := range map[string]struct{ mates, near, far int }{
		"small zone": {g.Volunteers - 1, g.Volunteers - 1, g.Degree},
		"large zone": {g.Volunteers, g.Degree, g.Degree},
	} {
		t.Run(name, func(t *testing.T) {
			d, left := crowded(t, 500, false)
			mates, others := of("a", c.mates), of("b", 30)
			inZone(d, "a", 500, append(mates, others...)...)
			d.look()
			d.held = time.Minute // other zones need not wait
			for _, h := range append(others[:20:20], mates...) {
				says(d, left, h, wire.Info{})
			}
			if _, members, _ := d.joined(); members != (sides{c.near, c.far}) {
				t.Errorf("%v members of the own zone and others, want %d and %d", members, c.near, c.far)
			}
			for i := range maxWholes + 1 {
				says(d, left, Holder{Peer: peer.ID(fmt.Sprint("w", i)), Zone: "b"}, wire.Info{Whole: true})
			}
			says(d, left, Holder{Peer: "here", Zone: "a"}, wire.Info{Whole: true})
			if _, _, wholes := d.joined(); wholes != (sides{1, maxWholes}) {
				t.Errorf("%v members with the whole: those of other zones leave no room for one of the own", wholes)
			}
			// Followers are bounded alike.
			for _, h := range append(mates, others...) {
				d.x.followers.mu.Lock()
				f := &follower{all: d.x.followers, holder: h, woken: make(chan struct{}, 1), watches: map[uint32]*watch{}}
				d.x.followers.mu.Unlock()
				f.add(&watch{by: f, id: 1, blob: d.want.Digest, size: d.want.Size})
			}
			var n sides
			for _, h := range d.x.followers.of(d.want.Digest) {
				n[d.x.side(h)]++
			}
			if want := min(c.mates, max(g.Followers, c.near)); n != (sides{want, g.Followers}) {
				t.Errorf("%v followers, want %d and %d", n, want, g.Followers)
			}
			// Who is spare comes back when one of its side has gone.
			for _, side := range []string{"a0", "b0"} {
				if src := d.sources[peer.ID(side)]; src != nil {
					d.forget(src)
				}
			}
			d.search.met = nil
			d.fillUp()
			for _, h := range d.search.met {
				if c.near == c.mates && h.Zone == "a" {
					t.Errorf("%s is asked again, and was never let go", h.Peer)
				}
			}
		})
	}
}

// Members of other zones are not asked before those of the own had the time to
// say what they have or bring.
func TestOtherZonesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, left := crowded(t, 500, false)
		mate, other := of("a", 1)[0], of("b", 1)[0]
		inZone(d, "a", 2, mate, other)
		d.search.asked[mate.Peer] = &asked{holder: mate, waiting: true, leave: func() {}}
		says(d, left, other, wire.Info{Whole: true})
		joined := func() bool { d.fillUp(); return d.sources[other.Peer].joined }
		if joined() {
			t.Error("another zone is asked before the own has answered")
		}
		d.held = d.swarmFirst() - 1
		if joined() {
			t.Error("another zone is asked before the own has had its time")
		}
		if d.held++; !joined() {
			t.Error("another zone is not asked although the own has had its time")
		}
	})
}

// A holder in another zone that waited is asked when the own zone has answered,
// and the blob is not given up in the same moment.
func TestTheOnlyHolderIsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, left := crowded(t, 500, false)
		d.settled, d.begun, d.stored = false, time.Now(), time.Now()
		var err error
		if d.fill, _, err = d.x.cache.Fill(d.want); err != nil {
			t.Fatal(err)
		}
		defer d.fill.Fail(ErrClosed)
		mate, other := of("a", 1)[0], of("b", 1)[0]
		inZone(d, "a", 2, mate, other)
		d.search.asked[mate.Peer] = &asked{holder: mate, waiting: true, leave: func() {}}
		d.search.rounds = lookTwice
		says(d, left, other, wire.Info{Whole: true})
		if err := d.hopeless(); err != nil || d.settled {
			t.Fatalf("before the own zone has answered: %v, settled: %v", err, d.settled)
		}
		d.search.hear(mate.Peer, said{err: errGone})
		d.listen()
		if err := d.hopeless(); err != nil || !d.sources[other.Peer].joined {
			t.Errorf("%v, the holder is asked: %v", err, d.sources[other.Peer].joined)
		}
	})
}

// Who is alone in its zone waits for nobody.
func TestWhoIsAloneInItsZone(t *testing.T) {
	d, left := crowded(t, 500, false)
	other := of("b", 1)[0]
	inZone(d, "a", 1, other)
	says(d, left, other, wire.Info{Whole: true})
	if !d.sources[other.Peer].joined {
		t.Error("it waits")
	}
}

// What comes from other zones is told to the own.
func TestInboundIsTold(t *testing.T) {
	d, left := crowded(t, 500, false)
	mate, other := of("a", 1)[0], of("b", 1)[0]
	inZone(d, "a", 2, mate, other)
	d.held = time.Minute
	says(d, left, mate, wire.Info{Inbound: bitset.New(4).SetRange(0, 3)})
	says(d, left, other, wire.Info{Whole: true})
	for now := time.Duration(0); now < time.Second; now += 100 * time.Millisecond {
		d.plan.Next(now, plan.Room{Members: 10})
	}
	if got := d.plan.Inbound(); got.Count() != 1 || !got.Test(3) {
		t.Fatalf("%v comes in; the mate brings all but 3", got)
	}
	if !d.claimsMore() {
		t.Error("what nobody has heard of waits")
	}
}

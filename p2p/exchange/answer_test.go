package exchange

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/blob"
	"shoal/p2p/plan"
)

// Who does not answer over an open connection is waited for once, for a moment;
// who asked this node, or has to be reached first, as long as before.
func TestWhoIsGivenUp(t *testing.T) {
	m := newMesh(t).member(nil)
	const patience = 75 * time.Millisecond
	for _, c := range []struct {
		name string
		a    asked
		vain bool
	}{
		{"silent", asked{waiting: true, told: true, warm: true}, true},
		{"asked this node", asked{waiting: true, told: true, warm: true, lives: true}, false},
		{"is being reached", asked{waiting: true, told: true}, false},
		{"was asked later", asked{waiting: true, told: true, warm: true, since: time.Millisecond}, false},
		{"fills it", asked{waiting: true, told: true, warm: true, heard: true, filling: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSearch(m.Exchange, blob.Descriptor{Size: 1})
			id := peer.ID(c.name)
			s.asked[id] = &c.a
			s.giveUp(patience-1, patience)
			if s.state(0).vain {
				t.Error("given up too soon")
			}
			s.giveUp(patience, patience)
			if got := s.state(0); got.vain != c.vain || got.told == c.vain {
				t.Errorf("%+v", got)
			}
			if m.silent.Holds(id, time.Now()) != c.vain {
				t.Error("the fills that follow do not hear of it")
			}
			s.hear(id, said{err: errGone})
			if s.state(0).vain || m.silent.Holds(id, time.Now()) {
				t.Error("it has answered, and is still given up")
			}
		})
	}
}

// The origin is asked when the only member has been given up, and at once by the
// next fill; other fills that found members to be slow are believed.
func TestSilentMemberCostsOneMoment(t *testing.T) {
	m := newMesh(t).member(nil)
	begin := func() *driver {
		return newDriver(m.Exchange, key{blob.Descriptor{}.Digest, 2 << 20}, blob.Descriptor{Size: 2 << 20})
	}
	d := begin()
	d.search.asked["silent"] = &asked{waiting: true, told: true, warm: true}
	d.woke(m.limits.answer/2, m.limits.answer/2)
	if d.originsTurn() {
		t.Error("the member had no time to answer")
	}
	d.woke(m.limits.answer/2, m.limits.answer/2)
	if !d.originsTurn() {
		t.Error("the member is waited for")
	}
	next := begin()
	next.search.asked["silent"] = &asked{waiting: true, warm: true, deaf: m.silent.Holds("silent", time.Now())}
	if !next.originsTurn() {
		t.Error("the next fill waits for it again")
	}
}

// Fills of one node believe each other that members are slow.
func TestFillsTellEachOtherWhoIsSlow(t *testing.T) {
	m := newMesh(t).member(nil)
	m.limits.plan.NoStart = plan.Defaults().NoStart
	begin := func() *driver {
		d := newDriver(m.Exchange, key{blob.Descriptor{}.Digest, 1 << 20}, blob.Descriptor{Size: 1 << 20})
		d.plan = plan.New(plan.Config{Size: 1 << 20, PieceSize: 1 << 20, Tuning: m.limits.plan})
		d.plan.OriginFrom(0, 0)
		d.plan.Join(1, 1, false)
		d.plan.Told(0, 1, plan.State{Whole: true})
		return d
	}
	found, next := begin(), begin()
	found.plan.Next(0, plan.Room{Members: 8})
	found.plan.Next(m.limits.plan.NoStart, plan.Room{})
	found.hurry()
	next.plan.Next(0, plan.Room{})
	next.hurry()
	if got := next.plan.Next(0, plan.Room{Members: 8, Origin: 1}).Start; len(got) != 1 || got[0].Member != plan.Origin {
		t.Errorf("the second fill asks %+v", got)
	}
}

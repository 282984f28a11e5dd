package exchange

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

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

// Fills of one node believe each other which members are slow: the others are
// asked as before, and who turns out to be fast is slow no more.
func TestFillsTellEachOtherWhoIsSlow(t *testing.T) {
	m := newMesh(t).member(nil)
	m.limits.plan.SlowStart = plan.Defaults().SlowStart
	begin := func(holders ...peer.ID) *driver {
		d := newDriver(m.Exchange, key{blob.Descriptor{}.Digest, 60 << 20}, blob.Descriptor{Size: 60 << 20})
		d.begun, d.held = time.Now(), time.Hour // it was never late
		d.plan = plan.New(plan.Config{Size: 60 << 20, PieceSize: 1 << 20, Tuning: m.limits.plan})
		d.plan.OriginFrom(0, 0)
		for i, id := range holders {
			d.sources[id] = &source{id: plan.Member(i + 1), joined: true, whole: true}
			d.plan.Join(plan.Member(i+1), 1, false)
			d.plan.Told(0, plan.Member(i+1), plan.State{Whole: true})
		}
		return d
	}
	asksOrigin := func(d *driver) bool {
		d.hurry()
		return slices.ContainsFunc(d.plan.Next(0, plan.Room{Members: 8, Origin: 1}).Start, func(r plan.Request) bool {
			return r.Member == plan.Origin
		})
	}
	found := begin("slow")
	found.plan.Progress(1, found.plan.Next(0, plan.Room{Members: 8}).Start[0].ID, 1)
	found.plan.Next(m.limits.plan.SlowStart, plan.Room{})
	found.hurry()
	if !asksOrigin(begin("slow")) {
		t.Error("the second fill waits to find out for itself")
	}
	if asksOrigin(begin("slow", "other")) {
		t.Error("a member of which nobody knows is not waited for")
	}
	if a := ask(m, "slow"); !a.deaf || a.told {
		t.Errorf("a slow member is waited for: %+v", a)
	}
	fast := begin("slow")
	for _, r := range fast.plan.Next(0, plan.Room{Members: 8}).Start {
		fast.plan.Progress(0, r.ID, 1<<20)
	}
	fast.hurry()
	if a := ask(m, "slow"); !a.deaf {
		t.Error("it was not measured, and counts as fast")
	}
	id := fast.plan.Next(0, plan.Room{Origin: 1}).Start[0].ID
	fast.plan.Progress(m.limits.plan.SlowStart, id, 1)
	fast.plan.Next(m.limits.plan.SlowStart, plan.Room{})
	fast.hurry()
	if a := ask(m, "slow"); a.lags {
		t.Errorf("who is as fast as the origin is not waited for: %+v", a)
	}
}

// What the node was late itself is passed on to the plan.
func TestLatenessIsToldToThePlan(t *testing.T) {
	m := newMesh(t).member(nil)
	m.limits.plan.SlowStart = time.Second
	for _, ran := range []bool{false, true} {
		d := newDriver(m.Exchange, key{blob.Descriptor{}.Digest, 2 << 20}, blob.Descriptor{Size: 2 << 20})
		d.plan = plan.New(plan.Config{Size: 2 << 20, PieceSize: 1 << 20, Tuning: m.limits.plan})
		d.plan.OriginFrom(0, 0)
		d.plan.Join(1, 1, false)
		d.plan.Told(0, 1, plan.State{Whole: true})
		d.plan.Progress(1, d.plan.Next(0, plan.Room{Members: 8}).Start[0].ID, 1)
		if d.begun = time.Now().Add(-1200 * time.Millisecond); ran {
			d.held = 1200 * time.Millisecond
		}
		d.hurry()
		if d.plan.Next(d.now(), plan.Room{}); d.plan.Slow() != ran {
			t.Errorf("after more than a second, in which the node ran: %v; the member is slow: %v", ran, d.plan.Slow())
		}
	}
}

// A slow member that has answered keeps nobody waiting for a lookup, and one that
// has the whole leaves it to the plan whether the origin is asked.
func TestWhoseTurnIsItWhenMembersHaveAnswered(t *testing.T) {
	m := newMesh(t).member(nil)
	for name, c := range map[string]struct {
		lags, whole, turn bool
	}{
		"a member that has nothing": {false, false, false},
		"a slow one":                {true, false, true},
		"one that has the whole":    {false, true, true},
	} {
		d := newDriver(m.Exchange, key{blob.Descriptor{}.Digest, 2 << 20}, blob.Descriptor{Size: 2 << 20})
		d.search.asked["member"] = &asked{waiting: true, lags: c.lags, deaf: c.lags}
		d.search.hear("member", said{err: errGone})
		d.search.take()
		if c.whole {
			d.sources["member"] = &source{joined: true, whole: true}
		}
		if d.originsTurn() != c.turn {
			t.Errorf("%s has answered, and a lookup goes on: it is the origin's turn: %v", name, !c.turn)
		}
	}
}

// A node that fills one blob with others takes holders of the next for busy, not
// for slow; of that nobody else hears.
func TestCompanyIsKept(t *testing.T) {
	m := newMesh(t).member(nil)
	m.limits.plan.SlowStart = plan.Defaults().SlowStart
	doubts := func(d *driver) bool {
		d.hurry()
		d.plan.Next(0, plan.Room{Members: 8})
		d.plan.Next(m.limits.plan.SlowStart, plan.Room{})
		return d.plan.Slow()
	}
	if !doubts(holding(m)) {
		t.Error("a holder is in no doubt without a crowd")
	}
	with := holding(m)
	with.plan.Accompany()
	with.hurry()
	next := holding(m)
	if doubts(next) {
		t.Error("the next fill knows nothing of the crowd")
	}
	m.company.Store(0)
	if next.hurry(); m.company.Load() != 0 {
		t.Error("what was only heard is passed on")
	}
}

// Nobody waits for a member far away.
func TestDistantMembersAreNotWaitedFor(t *testing.T) {
	m := newMesh(t).member(nil)
	m.limits.distant = 50 * time.Millisecond
	for id, trip := range map[peer.ID]time.Duration{"near": 49 * time.Millisecond, "distant": 50 * time.Millisecond} {
		m.met.meet(id).tripped(trip)
		if a := ask(m, id); a.deaf != (id == "distant") {
			t.Errorf("%s: %+v", id, a)
		}
	}
}

// ask returns what a new fill thinks of a member that was named for it.
func ask(m *member, id peer.ID) asked {
	s := newSearch(m.Exchange, blob.Descriptor{Digest: digest.FromString("x"), Size: 1 << 20})
	s.ask(Holder{Peer: id, Pieces: []string{"127.0.0.1:1"}}, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.asked[id]
}

// Members are not slow because this node is limited.
func TestALimitIsNoSlowness(t *testing.T) {
	m := newMesh(t).member(nil)
	usual := plan.Defaults().SlowHolders
	for words, want := range map[string]float64{"unlimited": usual, "2MB": 1e6, "1GB": usual} {
		m.download = limiter(t, words)
		if got := m.tuning().SlowHolders; got != want {
			t.Errorf("%s: holders must bring %.0f bytes a second, want %.0f", words, got, want)
		}
	}
}

// What other fills get is told to the plan, and how much of it came from members.
func TestPlanKnowsWhatOthersGet(t *testing.T) {
	m := newMesh(t).member(nil)
	m.limits.plan.SlowStart = plan.Defaults().SlowStart
	for _, from := range []plan.Member{plan.Origin, 1} {
		d, other := holding(m), holding(m)
		d.hurry()
		d.plan.Next(0, plan.Room{Members: 8})
		other.delivered(run{Request: plan.Request{Member: from}, account: m.met.meet("member")}, 0, 60<<20)
		d.lookBeside()
		d.plan.Next(m.limits.plan.SlowStart, plan.Room{})
		if d.plan.Slow() != (from == plan.Origin) {
			t.Errorf("others got much from %d: the holder counts as slow: %v", from, d.plan.Slow())
		}
	}
}

// holding returns a fill that was never late, of a blob that a member has.
func holding(m *member) *driver {
	want := blob.Descriptor{Digest: digest.FromString("x"), Size: 2 << 20}
	d := newDriver(m.Exchange, key{want.Digest, want.Size}, want)
	d.begun, d.held = time.Now(), time.Hour
	d.bytes.beside = m.inflow.beside(d.bytes)
	d.plan = plan.New(plan.Config{Size: 2 << 20, PieceSize: 1 << 20, Tuning: m.limits.plan})
	d.plan.OriginFrom(0, 0)
	d.plan.Join(1, 1, false)
	d.plan.Told(0, 1, plan.State{Whole: true})
	return d
}

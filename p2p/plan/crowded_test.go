package plan

import (
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// several returns a plan of a blob whose runs are of one piece, with members that
// volunteer as this node does, numbered from 1 on.
func several(members, pieces int) *Plan {
	p := New(Config{Size: int64(pieces) * testPiece, PieceSize: testPiece, Key: 1, Volunteer: true, Tuning: Defaults()})
	p.KnowsOrigin(Ranged)
	for m := Member(1); int(m) <= members; m++ {
		p.Join(m, uint64(m), false)
		p.Told(0, m, State{Volunteer: true})
	}
	p.OriginFrom(0, 0)
	return p
}

// A crowd with a slow origin fetches the first pieces of a small blob first, so
// that some are there soon and can be traded while the others come.
func TestSmallBlobsBeginAtTheHead(t *testing.T) {
	for seed := range uint64(5) {
		c := newCrowd(t, 12, 16, 6*mb, seed)
		c.full()
		for _, p := range c.nodes {
			p.plan.KnowsOrigin(Ranged)
		}
		most := 0
		watch(c, func() {
			on := bitset.New(uint(c.pieces))
			for _, p := range c.nodes {
				on.InPlaceUnion(p.plan.Claims())
			}
			most = max(most, int(on.Count()))
			if i, ok := on.NextSet(uint(2 * Defaults().AtOnce)); ok && c.now < spent(testPiece, c.origin.rate) {
				t.Errorf("seed %d: piece %d is fetched at %v", seed, i, c.now)
			}
		})
		c.end("small blob", outcome{1.6, 1.001})
		if most > 2*Defaults().AtOnce || most < Defaults().AtOnce {
			t.Errorf("seed %d: %d pieces were on their way, want about %d", seed, most, Defaults().AtOnce)
		}
	}
}

// What may be begun follows what is on its way, and what the origin gives.
func TestReach(t *testing.T) {
	for _, c := range []struct {
		claimed, stuck int     // pieces from the first on, each by another member
		capacity       float64 // pieces a second
		slow           float64 // parts of what others got that these get; 0: it is not known
		want           int
	}{
		{0, 0, 0, 0, 2},
		{1, 0, 0, 0, 2},
		{2, 0, 0, 0, 2},
		{4, 0, 0, 0, 4},
		{4, 3, 0, 0, 5},
		{0, 0, 100, 0, 30},
		{10, 0, 100, 0, 30},
		{0, 0, 1000, 0, 60},
		{2, 0, 0, 0.4, 4},
		{2, 0, 0, 0.6, 2},
		{4, 0, 0, 0.2, 6},
	} {
		p := several(12, 60)
		for m := Member(1); int(m) <= c.claimed; m++ {
			p.Told(0, m, State{Volunteer: true, Claims: bitset.New(60).Set(uint(m - 1))})
			if int(m) <= c.stuck {
				p.members[m].stuck = 0
			}
			p.members[m].pulls.kept = c.slow * testPiece
		}
		for m := Member(8); m <= 12 && c.slow > 0; m++ {
			p.members[m].pulls.kept = testPiece
		}
		p.own()
		p.owners.capacity = c.capacity * testPiece
		if got := p.reach(0); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// What owners of another zone bring comes over another link: neither what they have
// begun counts nor what is still theirs to begin.
func TestReachIsOfTheZone(t *testing.T) {
	const pieces = 60
	p := several(3, pieces)
	for m := Member(11); m <= 14; m++ {
		p.Join(m, uint64(m), true)
		p.Told(0, m, State{Volunteer: true, Claims: bitset.New(pieces).Set(uint(m - 11))})
	}
	p.Told(0, 1, State{Volunteer: true, Claims: bitset.New(pieces).Set(4)})
	p.own()
	for i, near := 5, 0; ; i++ {
		if m := p.owners.list[p.owners.first[i]].member; m != nil && m.far {
			continue
		}
		if near++; near == Defaults().AtOnce { // one of the zone is on its way
			if got := p.reach(0); got != i {
				t.Errorf("begins what is before %d, want %d", got, i)
			}
			return
		}
	}
}

// Who comes second to relieve a late owner waits until it would have heard of the
// first.
func TestTheSecondHelperWaits(t *testing.T) {
	p := several(3, 60)
	o := p.own()
	for i := range p.pieces {
		owner := &o.list[o.first[i]]
		for k := range o.list {
			o.list[k].backlog = 0
		}
		if owner.backlog = 1; owner.member == nil || o.helpers(i) != 1 {
			continue
		}
		owner.member.late = 0
		p.open.ClearAll().Set(uint(i))
		for now, want := range map[time.Duration]bool{p.tune.HelpEvery - 1: false, p.tune.HelpEvery: true} {
			o.surveyed = now
			if first, _, ok := p.relieve(now, false); ok != want || ok && first != i {
				t.Errorf("at %v it relieves the owner of piece %d: %v, %d", now, i, ok, first)
			}
		}
		return
	}
	t.Fatal("no piece has one helper before this node")
}

// Of several that share the origin's link some have little of it, and more when
// the others are done: what they fetch is not fetched again meanwhile.
func TestStuckClaimsWaitForThoseThatAreNot(t *testing.T) {
	const pieces = 8
	p := several(2, pieces)
	first, second := bitset.New(pieces).Set(0).Set(1).Set(2), bitset.New(pieces).Set(3).Set(4).Set(5).Set(6).Set(7)
	p.origin.rate.add(0, testPiece) // known: eight pieces a second
	p.origin.rate.add(time.Second/8, 0)
	p.origin.rate.stop(time.Second / 8)
	has := State{Volunteer: true, Origin: Ranged, Claims: first}
	const done = 3 * time.Second
	for now := time.Duration(0); now < done+time.Second; now += 50 * time.Millisecond {
		has.Progress = now.Milliseconds() * testPiece / 1000
		if now == done {
			has.Has, has.Claims = first, nil
		}
		p.Told(now, 1, has)
		p.Told(now, 2, State{Volunteer: true, Origin: Ranged, Claims: second, Progress: now.Milliseconds()})
		p.origin.barred = now // it stays in the swarm
		for _, r := range p.Next(now, Room{Origin: 1}).Start {
			if r.Member != Origin || !second.Test(uint(r.First)) {
				t.Fatalf("at %v %+v", now, r)
			}
			if now < done {
				t.Fatalf("at %v piece %d is fetched again", now, r.First)
			}
			return
		}
	}
	t.Error("nobody takes over what would come in an hour")
}

// Who began when it was alone has more to bring than others, and is not slow for it.
func TestWhoBeganAloneIsNotStuck(t *testing.T) {
	const pieces = 8
	for _, c := range []struct {
		rate int64 // bytes a second
		want bool
	}{{testPiece, false}, {testPiece / 100, true}} {
		p := several(1, pieces)
		taken := false
		for now := time.Duration(0); now < 4*time.Second && !taken; now += 50 * time.Millisecond {
			p.Told(now, 1, State{Volunteer: true, Origin: Ranged, Claims: bitset.New(pieces).SetAll(), Progress: now.Milliseconds() * c.rate / 1000})
			taken = len(p.Next(now, Room{Origin: 1}).Start) > 0 && !p.origin.first
		}
		if taken != c.want {
			t.Errorf("at %d bytes a second something is fetched again: %v", c.rate, taken)
		}
	}
}

// What this node got from the origin once is not what it would get beside others,
// but for those that are stuck.
func TestBesideOthersTheOriginIsShared(t *testing.T) {
	p := several(4, 64)
	p.origin.rate.add(0, 5*testPiece)
	p.origin.rate.stop(time.Second)
	for m := Member(1); m <= 4; m++ {
		p.Told(0, m, State{Volunteer: true, Origin: Ranged, Claims: bitset.New(64).Set(uint(m))})
	}
	alone := p.tune.OriginShare * 5 * testPiece
	for _, c := range []struct {
		stuck Member // so many
		want  float64
	}{{0, alone / 5}, {1, alone / 4}, {4, alone}} {
		for m := Member(1); m <= c.stuck; m++ {
			p.members[m].stuck = 0
		}
		if got := p.hope(time.Second); got < c.want*0.99 || got > c.want*1.01 {
			t.Errorf("%d of four are stuck: the swarm must reach %.0f bytes a second, want %.0f", c.stuck, got, c.want)
		}
	}
}

// Members that claim everything, tell of bytes as they should, and bring nothing are
// left, although they lower what this node counts on.
func TestClaimsThatNeverCome(t *testing.T) {
	for _, known := range []bool{false, true} {
		p := several(4, 8)
		if known {
			p.origin.rate.add(0, 5*testPiece)
			p.origin.rate.stop(time.Second)
		}
		asked := bitset.New(8)
		for now := time.Duration(0); now < 6*time.Second; now += 50 * time.Millisecond {
			for m := Member(1); m <= 4; m++ {
				p.Told(now, m, State{Volunteer: true, Origin: Ranged, Claims: bitset.New(8).SetAll(), Progress: now.Milliseconds() * 8 * testPiece / 1000})
			}
			for _, r := range p.Next(now, Room{Origin: 2}).Start {
				for i := range r.Count {
					asked.Set(uint(r.First + i))
					p.Progress(now, r.ID, testPiece)
					p.Delivered(now, r.ID)
				}
			}
		}
		if !asked.All() {
			t.Errorf("rate known: %v; only %v is asked for", known, asked)
		}
	}
}

// What a member had before it was known says nothing of its rate.
func TestProgressOfBeforeIsNoRate(t *testing.T) {
	p := several(1, 8)
	p.Join(2, 2, false)
	p.Told(time.Second, 2, State{Volunteer: true, Origin: Ranged, Progress: 5 * testPiece})
	if rate, known := p.members[2].pulls.rate(2 * time.Second); known {
		t.Errorf("%.0f bytes a second", rate)
	}
	p.Told(time.Second, 2, State{Volunteer: true, Origin: Ranged, Progress: 5 * testPiece, Claims: bitset.New(8).Set(1)})
	p.Told(2*time.Second, 2, State{Volunteer: true, Origin: Ranged, Progress: 6 * testPiece, Claims: bitset.New(8).Set(1)})
	if rate, _ := p.members[2].pulls.rate(2 * time.Second); rate < testPiece*9/10 || rate > testPiece*11/10 {
		t.Errorf("%.0f bytes a second, want %d", rate, testPiece)
	}
}

// Where a piece takes seconds, one without a byte is no sign of death.
func TestSilenceIsLongWhereTheOriginIsSlow(t *testing.T) {
	p := several(8, 8)
	now := 4 * time.Second
	for m := Member(1); m <= 8; m++ {
		claims := bitset.New(8).Set(uint(m - 1))
		p.Told(0, m, State{Volunteer: true, Origin: Ranged, Claims: claims})
		p.Told(now, m, State{Volunteer: true, Origin: Ranged, Claims: claims, Progress: testPiece / 2})
	}
	p.own()
	if got := p.silentAfter(now); got < 1500*time.Millisecond {
		t.Errorf("silent after %v, where a piece takes 8 s", got)
	}
}

package plan

import (
	"slices"
	"testing"
	"time"
)

// Members that have the whole behind slow uplinks cost a pull the time in which
// they could show that they are fast, and hardly more.
func TestSlowHolders(t *testing.T) {
	const most = 130 * time.Millisecond
	for _, c := range []struct {
		pieces, members int
		rate, origin    float64
	}{
		{1, 1, mb / 8, 100 * mb},
		{1, 8, mb / 4, 100 * mb},
		{20, 1, mb / 8, 100 * mb},
		{20, 8, mb / 4, 100 * mb},
		{20, 1, mb / 8, 6 * mb},
	} {
		plain := newWorld(t, c.pieces, 1)
		plain.origin(c.origin)
		direct := plain.run()
		w := newWorld(t, c.pieces, 1)
		w.origin(c.origin)
		for m := range c.members {
			w.member(Member(m+1), c.rate, nil)
		}
		if took := w.run(); took > direct+max(most, direct/10) {
			t.Errorf("%+v: took %v, and %v without members", c, took, direct)
		}
	}
}

// The origin is left alone by who gets more from members than it needs to know.
func TestFastHolderIsNotInDoubt(t *testing.T) {
	w := newWorld(t, 60, 1)
	w.origin(100 * mb)
	w.member(1, 12*mb, nil)
	if w.enough = 20; w.run() > 3*time.Second || w.got[Origin] > 0 {
		t.Errorf("the origin gave %d pieces", w.got[Origin])
	}
}

// beginWhole returns a plan of a blob that a member has, and the origin.
func beginWhole(pieces int) *Plan {
	p := New(Config{Size: int64(pieces) * testPiece, PieceSize: testPiece, Tuning: Defaults()})
	p.OriginFrom(0, 0)
	p.Join(1, 1, false)
	p.Told(0, 1, State{Whole: true})
	return p
}

// What one plan has found out another need not: the origin is asked at once.
func TestHurry(t *testing.T) {
	first := beginWhole(1)
	got := first.Next(0, Room{Members: 8, Origin: 1}).Start
	if len(got) != 1 || got[0].Member != 1 {
		t.Fatalf("%+v", got)
	}
	now := Defaults().SlowStart
	first.Progress(now/2, got[0].ID, 1)
	if got := first.Next(now, Room{Origin: 1}).Start; len(got) != 1 || got[0].Member != Origin || !first.Slow() {
		t.Fatalf("after %v: %+v, slow: %v", now, got, first.Slow())
	}
	second := beginWhole(1)
	second.Hurry()
	if got := second.Next(0, Room{Origin: 1, Members: 8}).Start; len(got) != 1 || got[0].Member != Origin || second.Slow() {
		t.Errorf("in a hurry: %+v, slow: %v", got, second.Slow())
	}
}

// A verdict is about those whom it was found of: once somebody else fills the blob,
// too, no holder is slow for it.
func TestAVerdictIsAboutNobodyElse(t *testing.T) {
	p := beginWhole(60)
	p.Next(0, Room{Members: 8})
	now := Defaults().SlowStart
	if p.Next(now, Room{}); !p.Slow() {
		t.Fatal("a member that brings nothing is not slow")
	}
	p.Accompany()
	p.Join(2, 2, false)
	p.Told(now, 2, State{Whole: true})
	if p.Next(now, Room{}); p.Slow() {
		t.Error("a member that has just come is slow")
	}
}

// Holders that were late and then fast are not left for an origin that has yet to
// answer.
func TestLateButFast(t *testing.T) {
	p := beginWhole(60)
	r := p.Next(0, Room{Members: 8}).Start
	now := Defaults().SlowStart
	if got := p.Next(now, Room{Origin: 1}).Start; len(got) != 1 || !p.Slow() {
		t.Fatalf("asked %+v, slow: %v", got, p.Slow())
	}
	for _, o := range r {
		p.Progress(2*now, o.ID, testPiece)
	}
	if p.Next(2*now, Room{}); !p.Fast() {
		t.Error("members that bring enough still count as slow")
	}
}

// That members were slow elsewhere does not count where the origin is slow, too:
// they may have had to be reached first.
func TestHurryToASlowOrigin(t *testing.T) {
	const origin = 0.25 * mb
	for _, c := range []struct {
		rate  float64
		helps bool
	}{{origin, true}, {100 * mb, false}} {
		p := beginWhole(6)
		p.Hurry()
		r := p.Next(0, Room{Origin: 8, Members: 8}).Start
		if len(r) != 1 || r[0].Member != Origin {
			t.Fatalf("in a hurry: %+v", r)
		}
		p.Answered(0, r[0].ID, true)
		now := Defaults().SlowStart
		p.Progress(now, r[0].ID, int64(c.rate*now.Seconds()))
		asked := slices.ContainsFunc(p.Next(now, Room{Members: 8}).Start, func(r Request) bool { return r.Member != Origin })
		if asked != c.helps {
			t.Errorf("the origin gives %.0f bytes a second: the member is asked: %v", c.rate, asked)
		}
		if p.Next(2*now, Room{}); c.helps && !p.Slow() {
			t.Error("a member that brings nothing is not slow")
		}
	}
}

// A member that was slow stays so when it comes back, and is pardoned when it
// turns out to be faster than the origin.
func TestSlowMembersAreNotForgotten(t *testing.T) {
	tune := Defaults()
	p := beginWhole(60)
	now := tune.SlowStart
	p.Progress(now/2, p.Next(0, Room{Members: 8}).Start[0].ID, 1)
	p.Next(now, Room{})
	p.Gone(now, 1)
	p.Next(now, Room{})
	p.Join(1, 1, false)
	p.Told(now, 1, State{Whole: true})
	var origin, member ID
	for _, r := range p.Next(now, Room{Origin: 1, Members: 1}).Start {
		if r.Member == Origin {
			origin = r.ID
		} else {
			member = r.ID
		}
	}
	if !p.Slow() || origin == 0 || member == 0 {
		t.Fatalf("slow: %v; asked the origin: %d, the member: %d", p.Slow(), origin, member)
	}
	now += tune.SlowStart
	p.Progress(now, origin, 1000)
	p.Progress(now, member, testPiece/2)
	if p.Next(now, Room{}); !p.Fast() || p.Slow() {
		t.Error("the member is faster than the origin, and still counts as slow")
	}
}

// What slow members have been asked for comes from the origin, in order, before
// anything else; not what they are about to bring.
func TestSlowMembersArePassed(t *testing.T) {
	tune := Defaults()
	for soon, length := range map[bool]int{false: 1, true: tune.RunPieces} { // one piece tells the rate
		p := beginWhole(60)
		p.Next(0, Room{})
		asked := p.Next(tune.SlowStart/4, Room{Members: 8}).Start
		if len(asked) != tune.Requests || asked[0].First != 0 {
			t.Fatalf("%+v", asked)
		}
		now := tune.SlowStart
		want := 0
		if soon {
			for _, r := range asked {
				p.Progress(now/2, r.ID, 9*testPiece/10)
			}
			p.Next(now, Room{})
			p.doubt.word, p.doubt.said, p.origin.first = slow, now, true
			p.origin.serving = Ranged
			p.origin.rate.start(now)
			p.origin.rate.add(now, 100*testPiece)
			now += 2 * minSpan
			want = tune.Requests
		}
		got := p.Next(now, Room{Origin: 1}).Start
		if len(got) != 1 || got[0].First != want || got[0].Count != length {
			t.Errorf("soon %v: %+v, want %d pieces from %d on", soon, got, length, want)
		}
	}
}

// What several slow members have been asked for, because they looked fast, comes
// from the origin all the same, unless one of them is about to bring it.
func TestSeveralSlowMembersArePassed(t *testing.T) {
	for _, crowd := range []bool{false, true} {
		for _, soon := range []bool{false, true} {
			p := beginWhole(1)
			for m := Member(2); m <= 3; m++ {
				p.Join(m, uint64(m), false)
				p.Told(0, m, State{Whole: !crowd})
			}
			p.Next(0, Room{})
			for m := Member(1); m <= 2; m++ {
				p.begin(0, m, 0, 1, false)
			}
			p.begin(0, Origin, 0, 1, false)
			now := time.Second
			for _, r := range p.of(Origin) { // it gave something before
				p.origin.rate.start(0)
				p.Progress(now, r.ID, 10*testPiece)
				p.finish(now, r)
			}
			for m := Member(1); m <= 2; m++ {
				r := p.of(m)[0]
				p.members[m].rate.start(0)
				if p.Progress(now, r.ID, testPiece/100); soon && m == 2 {
					p.Progress(now, r.ID, 98*testPiece/100)
				}
			}
			p.doubt.word, p.doubt.said, p.doubt.crowd, p.doubt.holds, p.origin.first, p.origin.serving = slow, now, crowd, !crowd, true, Ranged
			first, _, ok := p.chooseForOrigin(now)
			if ok == soon || first != 0 {
				t.Errorf("crowd %v, soon %v: asks for %d: %v", crowd, soon, first, ok)
			}
		}
	}
}

// A second request to the origin does not wait until the first one's rate is
// known: that is a round trip lost.
func TestOriginHasTwoRequestsBesideSlowMembers(t *testing.T) {
	p := beginWhole(60)
	p.Hurry()
	first := p.Next(0, Room{Origin: 8}).Start
	if len(first) != 1 {
		t.Fatalf("asked %+v before it is known that the origin serves ranges", first)
	}
	p.Answered(minSpan/2, first[0].ID, true)
	if got := p.Next(minSpan/2, Room{Origin: 8}).Start; len(got) != 1 || got[0].Member != Origin || got[0].First != 1 {
		t.Errorf("asked %+v, want the next piece", got)
	}
}

// By what this node was late itself no member is slower.
func TestOwnLatenessIsNoDoubt(t *testing.T) {
	p := beginWhole(60)
	late := Defaults().SlowStart
	p.Progress(late, p.Next(0, Room{Members: 8}).Start[0].ID, 1)
	p.Late(late)
	if p.Next(2*late-1, Room{}); p.Slow() {
		t.Error("the member is slow because this node was late")
	}
	if p.Next(2*late, Room{}); !p.Slow() {
		t.Error("no member is slow any more")
	}
}

// What other fills saw the origin give is enough to be as fast as it.
func TestSlowOriginIsEasilyMatched(t *testing.T) {
	for _, c := range []struct {
		hint float64
		slow bool
	}{{0, true}, {mb, false}, {100 * mb, true}} {
		p := beginWhole(60)
		p.OriginFrom(0, c.hint)
		r := p.Next(0, Room{Members: 8}).Start[0]
		now := Defaults().SlowStart
		p.Progress(now/2, r.ID, int64(mb*now.Seconds()))
		if p.Next(now, Room{}); p.Slow() != c.slow {
			t.Errorf("members as fast as 1 MB/s, the origin known to give %v: slow is %v", c.hint, p.Slow())
		}
	}
}

// What a client waits for is not asked from slow members: each has one piece to
// bring, from the end, and none of a blob that the origin takes at once.
func TestSlowHoldersBringTheEnd(t *testing.T) {
	for pieces, want := range map[int]int{20: 19, 8: -1} {
		p := New(Config{Size: int64(pieces) * testPiece, PieceSize: testPiece, Tuning: Defaults()})
		p.OriginFrom(0, 0)
		p.Join(1, 1, false)
		p.Told(0, 1, State{Whole: true})
		p.Next(0, Room{})
		p.Hurry()
		got := -1
		for _, r := range p.Next(tick, Room{Origin: 2, Members: 8}).Start {
			switch {
			case r.Member == Origin:
			case got >= 0 || r.Count != 1:
				t.Errorf("of %d pieces too much is asked for: %+v", pieces, r)
			default:
				got = r.First
			}
		}
		if got != want {
			t.Errorf("of %d pieces the member is asked for %d, want %d", pieces, got, want)
		}
	}
}

// Where others fill the blob, too, holders are in no doubt, however slow.
func TestNoDoubtInACrowd(t *testing.T) {
	for name, accompany := range map[string]func(p *Plan){
		"a member has a part": func(p *Plan) { p.Join(2, 2, false); p.Told(0, 2, State{}); p.Gone(0, 2) },
		"somebody fills it":   func(p *Plan) { p.Accompany() },
	} {
		p := New(Config{Size: testPiece, PieceSize: testPiece, Tuning: Defaults()})
		p.OriginFrom(0, 0)
		p.Join(1, 1, false)
		p.Told(0, 1, State{Whole: true})
		accompany(p)
		p.Next(0, Room{Members: 8})
		if got := p.Next(time.Second/2, Room{Origin: 1, Members: 8}).Start; len(got) > 0 {
			t.Errorf("%s: asked %+v", name, got)
		}
	}
}

// What other fills of the node get from members excuses holders, which share the
// links with these; what they get from the origin does not.
func TestOriginBesideIsNoExcuse(t *testing.T) {
	for _, members := range []int64{0, 60 * mb} {
		p := beginWhole(60)
		p.Next(0, Room{Members: 8})
		p.Beside(1, 60*mb, members)
		p.Next(Defaults().SlowStart, Room{})
		if p.Slow() != (members == 0) {
			t.Errorf("others got %d bytes from members: holders count as slow: %v", members, p.Slow())
		}
	}
}

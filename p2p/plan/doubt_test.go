package plan

import (
	"testing"
	"time"
)

// Members that have the whole behind slow uplinks cost a pull the time in which
// they could show that they are fast, and hardly more.
func TestSlowHolders(t *testing.T) {
	const most = 450 * time.Millisecond
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

// Of two plans of a node the second does not look for itself.
func TestHurry(t *testing.T) {
	begin := func() *Plan {
		p := New(Config{Size: testPiece, PieceSize: testPiece, Tuning: Defaults()})
		p.OriginFrom(0, 0)
		p.Join(1, 1, false)
		p.Told(0, 1, State{Whole: true})
		if got := p.Next(0, Room{Members: 8}).Start; len(got) != 1 || got[0].Member != 1 {
			t.Fatalf("%+v", got)
		}
		return p
	}
	first, second := begin(), begin()
	now := Defaults().NoStart
	if got := first.Next(now, Room{Origin: 1}).Start; len(got) != 1 || got[0].Member != Origin || !first.Slow() {
		t.Fatalf("after %v: %+v, slow: %v", now, got, first.Slow())
	}
	second.Hurry()
	if got := second.Next(now/2, Room{Origin: 1, Members: 8}).Start; len(got) != 0 || second.Slow() {
		t.Errorf("what was asked for just now: %+v, slow: %v", got, second.Slow())
	}
	third := New(Config{Size: testPiece, PieceSize: testPiece, Tuning: Defaults()})
	third.OriginFrom(0, 0)
	third.Join(1, 1, false)
	third.Told(0, 1, State{Whole: true})
	third.Next(0, Room{})
	third.Hurry()
	if got := third.Next(0, Room{Origin: 1, Members: 8}).Start; len(got) != 1 || got[0].Member != Origin {
		t.Errorf("in a hurry: %+v", got)
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
		"somebody fills it":   func(p *Plan) { p.Accompanied() },
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

// Members have more time to their first byte than from there on.
func TestDoubtBeginsWithTheFirstByte(t *testing.T) {
	tune := Defaults()
	for _, c := range []struct {
		first, at time.Duration
		slow      bool
	}{
		{0, tune.NoStart - 1, false},
		{0, tune.NoStart, true},
		{tune.NoStart - 2, tune.NoStart + tune.SlowStart - 3, false},
		{tune.NoStart - 2, tune.NoStart + tune.SlowStart - 2, true},
	} {
		p := New(Config{Size: 20 * testPiece, PieceSize: testPiece, Tuning: tune})
		p.OriginFrom(0, 0)
		p.Join(1, 1, false)
		p.Told(0, 1, State{Whole: true})
		r := p.Next(0, Room{Members: 1}).Start[0]
		if c.first > 0 {
			p.Progress(c.first, r.ID, 1000)
			p.Next(c.first, Room{})
		}
		p.Next(c.at, Room{})
		if p.Slow() != c.slow {
			t.Errorf("first byte at %v, looked at %v: slow is %v", c.first, c.at, p.Slow())
		}
	}
}

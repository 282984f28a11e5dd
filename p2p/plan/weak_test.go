package plan

import (
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// TestWhoHasLittleIsWeak: who has a small part of what is here makes way, but
// nobody on whom others count, and not when this node has next to nothing
// itself.
func TestWhoHasLittleIsWeak(t *testing.T) {
	const pieces = 100
	tune := Defaults()
	some := func(n int) *bitset.BitSet { return bitset.New(pieces).SetRange(0, uint(n)) }
	for name, c := range map[string]struct {
		here      int
		volunteer bool
		second    State // of member 2; member 1 has half of what is here
		weak      bool
	}{
		"much less":                {60, false, State{Has: some(29)}, true},
		"half":                     {60, false, State{Has: some(30)}, false},
		"nothing":                  {60, false, State{Has: some(0)}, true},
		"all":                      {60, false, State{Whole: true}, false},
		"asks the origin":          {60, false, State{Has: some(1), Claims: some(1)}, false},
		"a volunteer":              {60, false, State{Has: some(1), Volunteer: true}, true},
		"a volunteer to another":   {60, true, State{Has: some(1), Volunteer: true}, false},
		"no volunteer, to one":     {60, true, State{Has: some(1)}, true},
		"hardly anything is here":  {pieces/tune.FirstPart - 1, false, State{Has: some(0)}, false},
		"the first part is here":   {pieces / tune.FirstPart, false, State{Has: some(0)}, true},
		"everything is here, done": {pieces, false, State{Has: some(1)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Here: some(c.here), Volunteer: c.volunteer, Tuning: tune})
			p.Join(1, 1, false)
			p.Told(0, 1, State{Has: some((c.here + 1) / 2)})
			p.Join(2, 2, false)
			p.Told(0, 2, c.second)
			if m, ok := p.Weak(0, false); ok != c.weak || ok && m != 2 {
				t.Errorf("Weak: %d, %v", m, ok)
			}
		})
	}
}

// TestTheWeakGoOneAtATime: the weakest first.
func TestTheWeakGoOneAtATime(t *testing.T) {
	const pieces = 100
	tune := Defaults()
	p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Here: bitset.New(pieces).SetRange(0, 60), Tuning: tune})
	for m, has := range map[Member]uint{1: 20, 2: 10, 3: 15} {
		p.Join(m, uint64(m), false)
		p.Told(0, m, State{Has: bitset.New(pieces).SetRange(0, has)})
	}
	var went []Member
	for now := time.Duration(0); now <= 2*tune.WeakEvery; now += tune.WeakEvery / 5 {
		if m, ok := p.Weak(now, false); ok {
			if now != time.Duration(len(went))*tune.WeakEvery {
				t.Errorf("%d goes after %v", m, now)
			}
			went = append(went, m)
			p.Gone(now, m)
		}
	}
	if len(went) != 3 || went[0] != 2 || went[1] != 3 || went[2] != 1 {
		t.Errorf("%v went, want 2, 3 and 1", went)
	}
}

// TestTheWeakOfASide: members of the own zone make way for others of it.
func TestTheWeakOfASide(t *testing.T) {
	for _, far := range []bool{false, true} {
		p := New(Config{Size: 100 * testPiece, PieceSize: testPiece, Here: bitset.New(100).SetRange(0, 60), Tuning: Defaults()})
		for m, other := range map[Member]bool{1: false, 2: true} {
			p.Join(m, uint64(m), other)
			p.Told(0, m, State{Has: bitset.New(100).Set(uint(m))})
		}
		if m, ok := p.Weak(0, far); !ok || p.members[m].far != far {
			t.Errorf("of the side %v member %d is weak (%v)", far, m, ok)
		}
	}
}

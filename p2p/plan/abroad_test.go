package plan

import (
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// site returns the plan of a node whose zone has two other fillers, members 2
// and 3, which have nothing yet, and which knows a member of another zone, 1,
// that has the whole blob.
func site(t *testing.T, pieces int) *Plan {
	t.Helper()
	p := New(Config{Size: int64(pieces) * testPiece, PieceSize: testPiece, Self: 10, Key: 7, Tuning: Defaults()})
	p.Join(1, 1, true)
	p.Told(0, 1, State{Whole: true})
	for m := Member(2); m <= 3; m++ {
		p.Join(m, uint64(10*m), false)
		p.Told(0, m, State{})
	}
	return p
}

// asks returns what is asked of member 1 until then, looking every 10 ms.
func asks(p *Plan, from, until time.Duration) *bitset.BitSet {
	asked := bitset.New(uint(p.pieces))
	for now := from; now <= until; now += 10 * time.Millisecond {
		for _, r := range p.Next(now, Room{Members: 100}).Start {
			if r.Member == 1 {
				asked.SetRange(uint(r.First), uint(r.First+r.Count))
			}
		}
	}
	return asked
}

// own returns the pieces that are a node's to bring into the zone.
func own(p *Plan) *bitset.BitSet {
	p.shareSeeds()
	return p.seeds.mine
}

// Each brings its own pieces into the zone, and no more at a time than keep the
// link busy.
func TestAZoneSharesWhatComesIn(t *testing.T) {
	p := site(t, 300)
	asked := asks(p, 0, 0)
	if n := int(asked.Count()); n != p.tune.AbroadPieces || !own(p).IsSuperSet(asked) {
		t.Errorf("asked for %v; %d are to be asked for at a time, of its own %v", asked, p.tune.AbroadPieces, own(p).Count())
	}
	if n := own(p).Count(); n < 50 || n > 150 {
		t.Errorf("%d of 300 pieces are this node's own, among three", n)
	}
	if got := p.Inbound(); !got.Equal(asked) {
		t.Errorf("tells that it brings %v, and asked for %v", got, asked)
	}
	r := p.requests[0]
	p.Progress(time.Millisecond, r.ID, testPiece)
	p.Delivered(time.Millisecond, r.ID)
	if p.Inbound().Test(uint(r.First)) {
		t.Errorf("tells that it brings piece %d, which is here", r.First)
	}
	// What others bring is on its way, too.
	p = site(t, 300)
	p.Told(0, 2, State{Inbound: own(p).Complement().Clear(299)})
	if asked := asks(p, 0, 0); asked.Any() {
		t.Errorf("asked for %v though more comes than the link takes", asked)
	}
}

// What another of the zone brings, from wherever, nobody else asks for, until it
// takes too long.
func TestWhatAnotherBringsIsLeftToIt(t *testing.T) {
	for name, told := range map[string]func(s *State, set *bitset.BitSet){
		"from another zone": func(s *State, set *bitset.BitSet) { s.Inbound = set },
		"from the origin":   func(s *State, set *bitset.BitSet) { s.Claims = set },
	} {
		t.Run(name, func(t *testing.T) {
			p := site(t, 300)
			mine := own(p)
			left, _ := mine.NextSet(0)
			s := State{}
			told(&s, bitset.New(300).SetAll().Clear(left))
			p.tune.AbroadPieces = 1000
			p.Told(0, 2, s)
			if asked := asks(p, 0, time.Second); asked.Count() != 1 || !asked.Test(left) {
				t.Errorf("asked for %v, only %d is left", asked, left)
			}
		})
	}
	p := site(t, 300)
	p.tune.AbroadPieces = 1000
	p.Told(0, 2, State{Inbound: bitset.New(300).SetAll()})
	late := p.tune.DeadAfter
	if asked := asks(p, 0, late-10*time.Millisecond); asked.Any() {
		t.Errorf("asked for %v, which comes", asked)
	}
	if asked := asks(p, late, late); asked.None() {
		t.Errorf("nothing is asked for although nothing has come for %v", late)
	}
	p.Told(late, 2, State{Inbound: bitset.New(300).SetAll().Clear(299)}) // it goes on
	if !p.coming.some.Test(5) {
		t.Error("what goes on coming does not count")
	}
	// Where a piece takes long, it takes longer to be late.
	p = site(t, 300)
	p.abroad.rate.add(0, 1)
	p.abroad.rate.add(time.Second, testPiece/2) // 2 s for a piece
	p.Told(0, 2, State{Inbound: bitset.New(300).SetAll()})
	if asked := asks(p, time.Second, 7*time.Second); asked.Any() {
		t.Errorf("asked for %v, of which each takes 2 s", asked)
	}
}

// When its own are under way a node brings those of others that nobody has
// begun: not before these had their time.
func TestOthersPiecesComeLater(t *testing.T) {
	p := New(Config{Size: 300 * testPiece, PieceSize: testPiece, Self: 10, Key: 7, Tuning: Defaults()})
	p.tune.AbroadPieces = 1000
	p.Join(1, 1, true)
	for m := Member(2); m <= 3; m++ {
		p.Join(m, uint64(10*m), false)
		p.Told(0, m, State{})
	}
	others := own(p).Complement()
	p.Told(0, 1, State{Has: others})
	p.reap(0)
	stagger := p.tune.Stagger
	for _, c := range []struct {
		at    time.Duration
		ranks uint8 // that have their turn
	}{{0, 0}, {stagger - 1, 0}, {stagger + 1, 1}, {2*stagger - 1, 1}, {2*stagger + 1, 2}} {
		if !p.findCandidates(p.members[1]) {
			t.Fatal("there is nothing to bring")
		}
		any := p.bring(c.at)
		highest := uint8(0)
		for i, ok := p.candidates.NextSet(0); ok; i, ok = p.candidates.NextSet(i + 1) {
			highest = max(highest, p.seeds.rank[int(i)/p.runLength()])
		}
		if any != (c.ranks > 0) || highest != c.ranks {
			t.Errorf("after %v: pieces of ranks up to %d (%v), want %d", c.at, highest, any, c.ranks)
		}
		if wake, ok := p.NextWake(c.at); c.ranks < 2 && (!ok || wake > c.at.Truncate(stagger)+stagger+1) {
			t.Errorf("after %v the next look is at %v (%v)", c.at, wake, ok)
		}
	}
}

// Who is the only one of its zone has nobody to share with, and asks for
// whatever comes next.
func TestAZoneOfOne(t *testing.T) {
	p := New(Config{Size: 300 * testPiece, PieceSize: testPiece, Tuning: Defaults()})
	p.Join(1, 1, true)
	p.Told(0, 1, State{Whole: true})
	asked := asks(p, 0, 0)
	if first, _ := asked.NextSet(0); first != 0 || asked.Count() != uint(p.tune.Requests) {
		t.Errorf("asked for %v", asked)
	}
}

// All that comes into a zone shares its link: nobody of another zone overtakes
// another.
func TestNobodyOvertakesIntoAZone(t *testing.T) {
	for _, shared := range []bool{true, false} {
		p := New(Config{Size: 4 * testPiece, PieceSize: testPiece, Here: bitset.New(4).SetRange(0, 3), Tuning: Defaults()})
		for m := Member(1); m <= 2; m++ {
			p.Join(m, uint64(m), true)
			p.Told(0, m, State{Whole: true})
		}
		if shared {
			p.Join(3, 3, false)
			p.Told(0, 3, State{})
		}
		asks(p, 0, 100*time.Millisecond) // somebody is asked
		for k, r := range p.requests {
			p.Progress(200*time.Millisecond, r.ID, int64(k+1))
		}
		slow := p.requests[0].from
		for _, m := range p.order[:2] {
			m.rate.kept, m.rate.any = 100*testPiece, true
		}
		slow.rate.kept, slow.rate.any = 1, true
		slow.rate.running = false
		p.look = true
		before := len(p.requests)
		p.Next(300*time.Millisecond, Room{Members: 10})
		if got := len(p.requests) > before; got == shared {
			t.Errorf("zone is shared: %v; a fast member is asked for what a slow one brings: %v", shared, got)
		}
	}
}

// When the swarm is slower than the origin, members of a zone ask it for
// different pieces, and one after the other.
func TestAZoneAsksTheOriginOnce(t *testing.T) {
	p := site(t, 300)
	p.origin.first = true
	p.Told(0, 1, State{})
	p.Told(0, 2, State{Claims: bitset.New(300).SetRange(0, 200)})
	if first, _, ok := p.chooseAnything(0, 4); !ok || first != 200 {
		t.Errorf("piece %d is asked for (%v), 200 is the first that nobody brings", first, ok)
	}
	// Another zone has or brings the rest: better from there, but this node has
	// reasons to ask the origin.
	p.Told(0, 1, State{Has: bitset.New(300).SetRange(200, 300), Claims: bitset.New(300).SetRange(200, 300)})
	p.reap(0)
	if first, _, ok := p.chooseAnything(0, 4); !ok || first != 200 {
		t.Errorf("piece %d is asked for (%v), which comes into the zone already", first, ok)
	}
	waits := map[time.Duration]bool{}
	for _, self := range []uint64{10, 20, 30} {
		p := New(Config{Size: 300 * testPiece, PieceSize: testPiece, Self: self, Key: 7, Volunteer: true, Tuning: Defaults()})
		for i, other := range []uint64{10, 20, 30, 40} {
			if other != self {
				p.Join(Member(i+1), other, other == 40)
				p.Told(0, Member(i+1), State{})
			}
		}
		p.reap(0)
		waits[p.patience()] = true
	}
	if len(waits) != 3 {
		t.Errorf("members of a zone leave the plan after %v", waits)
	}
	// Who owns nothing waits longer than any owner of the same rank.
	p = site(t, 300)
	p.reap(0)
	wait := p.patience()
	p.Volunteer(true)
	if more := wait - p.patience(); more != 2*p.tune.Window {
		t.Errorf("who owns nothing waits %v longer", more)
	}
}

// What was being brought and is not any more is for the next in turn, not for
// all at once.
func TestWhatIsGivenUpHasItsTurnsAgain(t *testing.T) {
	p := site(t, 300)
	p.reap(0)
	p.Told(0, 1, State{Has: own(p).Complement()})
	p.findCandidates(p.members[1])
	p.bring(time.Millisecond)
	p.Told(0, 2, State{Inbound: bitset.New(300).SetAll()})
	p.Told(time.Second, 2, State{})
	p.findCandidates(p.members[1])
	if p.bring(time.Second) {
		t.Errorf("%v are for this node at once", p.candidates)
	}
}

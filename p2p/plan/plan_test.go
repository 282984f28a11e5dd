package plan

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"
)

func TestOriginAlone(t *testing.T) {
	w := newWorld(t, 40, 1)
	w.origin(25 * mb)
	took := w.run()
	// In order, at most four pieces each, the second only after the first
	// answer, never more than two in flight, each piece once.
	next := 0
	for _, r := range w.asked {
		if r.Member != Origin || r.First != next || r.Count > 4 {
			t.Fatalf("asked %+v when piece %d was next", r, next)
		}
		next += r.Count
	}
	if w.most[Origin] != 2 || w.twice() != 0 {
		t.Errorf("%d requests in flight, %d pieces twice; want 2, 0", w.most[Origin], w.twice())
	}
	// The link is never idle but for the first round trip.
	direct := 20*time.Millisecond + time.Duration(float64(w.plan.size)/(25*mb)*float64(time.Second))
	if took > direct+time.Millisecond {
		t.Errorf("took %v, a direct stream takes %v", took, direct)
	}
}

func TestOriginShowsRangesFirst(t *testing.T) {
	p := New(Config{Size: 20 * testPiece, PieceSize: testPiece, Tuning: Defaults()})
	p.OriginFrom(0, 0)
	room := Room{Members: 8, Origin: 8}
	first := p.Next(0, room).Start
	if len(first) != 1 {
		t.Fatalf("%d requests before the first answer, want 1", len(first))
	}
	p.Answered(time.Millisecond, first[0].ID, true)
	if second := p.Next(time.Millisecond, room).Start; len(second) != 1 || second[0].First != 4 {
		t.Fatalf("after the first answer: %+v, want one request from piece 4", second)
	}
}

// TestWholeAnswersTellNothing of ranges: a manifest comes whole from an origin
// that ignores them, too, and the layers that follow must not be asked for by
// everybody at once.
func TestWholeAnswersTellNothing(t *testing.T) {
	for pieces, want := range map[int]Serving{1: Unknown, 3: Unknown, 20: Ranged} {
		p := New(Config{Size: int64(pieces) * testPiece, PieceSize: testPiece, Tuning: Defaults()})
		p.OriginFrom(0, 0)
		first := p.Next(0, Room{Members: 8, Origin: 8}).Start
		if len(first) != 1 {
			t.Fatalf("%d requests before the first answer, want 1", len(first))
		}
		p.Answered(time.Millisecond, first[0].ID, true)
		if got := p.Serving(); got != want {
			t.Errorf("an answer to %d of %d pieces shows %v, want %v", first[0].Count, pieces, got, want)
		}
	}
}

func TestOriginWithoutRanges(t *testing.T) {
	w := newWorld(t, 40, 1)
	w.origin(25 * mb).unranged = true
	w.run()
	if len(w.asked) != 1 || w.twice() != 0 {
		t.Errorf("%d requests, %d pieces twice; want one stream", len(w.asked), w.twice())
	}
}

func TestMembersHelpAStream(t *testing.T) {
	w := newWorld(t, 400, 1)
	w.origin(25 * mb).unranged = true
	// Somebody with the second half shows up when the stream is under way.
	w.at(time.Second, func() {
		half := bitset.New(400).SetRange(200, 400)
		w.member(1, 100*mb, half)
	})
	w.run()
	if w.got[1] < 190 {
		t.Errorf("the member gave %d pieces, want nearly 200", w.got[1])
	}
	if n := w.twice(); n > w.got[1] {
		t.Errorf("%d pieces twice, although the stream passes only what the member gave", n)
	}
}

func TestHolderSparesTheOrigin(t *testing.T) {
	for _, members := range []int{1, 2, 5} {
		w := newWorld(t, 300, 1)
		w.origin(500 * mb) // never asked, so nobody knows how fast it is
		for m := range members {
			w.member(Member(m+1), 50*mb, nil)
		}
		took := w.run()
		if w.got[Origin] != 0 || w.twice() != 0 {
			t.Errorf("%d members: %d pieces from the origin, %d twice; want none", members, w.got[Origin], w.twice())
		}
		bound := time.Duration(float64(w.plan.size) / (50 * mb * float64(members)) * float64(time.Second))
		if took > bound*105/100+50*time.Millisecond {
			t.Errorf("%d members: took %v, the bound is %v", members, took, bound)
		}
	}
}

func TestOriginGivesWhatNobodyOffers(t *testing.T) {
	w := newWorld(t, 100, 1)
	w.origin(25 * mb)
	w.member(1, 100*mb, bitset.New(100).SetRange(0, 60))
	w.run()
	if w.got[1] != 60 || w.got[Origin] != 40 {
		t.Errorf("member gave %d, origin %d; want 60 and 40", w.got[1], w.got[Origin])
	}
}

func TestOriginWaitsForTheSwarm(t *testing.T) {
	p := New(Config{Size: 4 * testPiece, PieceSize: testPiece, Tuning: Defaults()})
	p.OriginFrom(150*time.Millisecond, 0)
	room := Room{Members: 8, Origin: 8}
	if o := p.Next(0, room); len(o.Start) != 0 {
		t.Fatalf("asked %+v before its time", o.Start)
	}
	if wake, ok := p.NextWake(0); !ok || wake != 150*time.Millisecond {
		t.Fatalf("next wake %v %v, want 150ms", wake, ok)
	}
	if o := p.Next(150*time.Millisecond, room); len(o.Start) != 1 || o.Start[0].Member != Origin {
		t.Fatalf("got %+v, want the origin asked", o.Start)
	}
}

func TestSharesFollowRates(t *testing.T) {
	w := newWorld(t, 500, 1)
	w.member(1, 80*mb, nil)
	w.member(2, 20*mb, nil)
	took := w.run()
	if w.got[2] < 70 || w.got[2] > 130 {
		t.Errorf("the member with a fifth of the rate gave %d of 500 pieces", w.got[2])
	}
	if bound := time.Duration(float64(w.plan.size) / (100 * mb) * float64(time.Second)); took > bound*105/100 {
		t.Errorf("took %v, the bound is %v", took, bound)
	}
	if n := w.twice(); n > 4 {
		t.Errorf("%d pieces twice", n)
	}
}

func TestFrozenHolderCostsAStall(t *testing.T) {
	for name, rescue := range map[string]func(w *world){
		"another holder": func(w *world) { w.member(2, 100*mb, nil) },
		"the origin":     func(w *world) { w.origin(100 * mb) },
	} {
		w := newWorld(t, 100, 1)
		w.member(1, 100*mb, nil).freezes = 300 * time.Millisecond
		rescue(w)
		if took := w.run(); took > 2500*time.Millisecond {
			t.Errorf("%s: took %v, want the second of work and one of waiting", name, took)
		}
	}
}

func TestThawedHolderGoesOn(t *testing.T) {
	w := newWorld(t, 100, 1)
	s := w.member(1, 100*mb, nil)
	s.freezes, s.thaws = 300*time.Millisecond, 2*time.Second
	if took := w.run(); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	if w.twice() > 0 {
		t.Errorf("%d pieces twice although the requests woke up", w.twice())
	}
}

func TestSlowSwarmIsLeft(t *testing.T) {
	w := newWorld(t, 100, 1)
	w.origin(25 * mb)
	w.member(1, 0.2*mb, nil) // trickles
	if took := w.run(); took > 7*time.Second {
		t.Errorf("took %v; the origin alone takes 4.2 s, finding out 2 s", took)
	}
}

// TestBusyNodeKeepsToTheSwarm: a fill that gets nothing because others of the
// node get all from members is not let down by the swarm.
func TestBusyNodeKeepsToTheSwarm(t *testing.T) {
	for _, c := range []struct {
		beside, members int64
		asks            bool
	}{{mb, mb, false}, {mb, 0, true}, {0, 0, true}} {
		p := New(Config{Size: 100 * testPiece, PieceSize: testPiece, Tuning: Defaults()})
		p.OriginFrom(0, 0)
		p.Join(1, 1, false)
		p.Told(0, 1, State{Whole: true})
		asked, live := false, []ID{}
		for now := time.Duration(0); now < 5*time.Second; now += 100 * time.Millisecond {
			p.Beside(now, c.beside, c.members)
			for _, r := range p.Next(now, Room{Members: 8, Origin: 8}).Start {
				asked = asked || r.Member == Origin
				live = append(live, r.ID)
			}
			bytes := int64(1) // hardly more than a sign of life
			if now < time.Second {
				bytes = mb // it was in no doubt at first
			}
			for _, id := range live {
				p.Progress(now, id, bytes)
			}
		}
		if asked != c.asks {
			t.Errorf("the origin was asked: %v, while other fills got %d bytes at a time, %d of them from members", asked, c.beside, c.members)
		}
	}
}

func TestSwarmFasterThanTheOriginIsKept(t *testing.T) {
	w := newWorld(t, 60, 1)
	w.origin(0.3 * mb)
	w.member(1, 0.9*mb, nil) // slow enough to ask, yet the better one
	w.run()
	if w.got[Origin] != 0 {
		t.Errorf("%d pieces from the slower origin: what it is asked for, which tells its rate, the member is to bring first", w.got[Origin])
	}
}

func TestKnownOriginRateAsksAgain(t *testing.T) {
	w := newWorld(t, 100, 1)
	w.origin(50 * mb)
	w.plan.OriginFrom(0, 50*mb)
	w.member(1, 5*mb, nil)
	if took := w.run(); took > 5*time.Second {
		t.Errorf("took %v with an origin known to give it in 2 s", took)
	}
}

func TestAuditedPieces(t *testing.T) {
	w := newWorld(t, 50, 1)
	w.origin(25 * mb)
	w.member(1, 100*mb, nil).lies = map[int]bool{7: true, 30: true}
	w.run()
	if w.got[Origin] != 2 || w.got[1] != 50 {
		t.Errorf("origin gave %d, member %d; want the two false pieces from the origin", w.got[Origin], w.got[1])
	}
}

func TestAuditWithoutOriginAsksSomebodyElse(t *testing.T) {
	w := newWorld(t, 50, 1)
	w.member(1, 100*mb, nil).lies = map[int]bool{7: true}
	w.at(time.Second, func() { w.member(2, 100*mb, nil) })
	w.run()
	for _, r := range w.asked {
		if r.Member == 2 && (r.First != 7 || r.Count != 1) {
			t.Errorf("asked the second for %+v, want piece 7 alone", r)
		}
	}
	// Nobody else had it for a second, so the first was asked again.
	if w.got[1] <= 50 || w.got[2] != 1 {
		t.Errorf("members gave %d and %d, want over 50 and 1", w.got[1], w.got[2])
	}
}

func TestFailuresBackOff(t *testing.T) {
	p := New(Config{Size: 100 * testPiece, PieceSize: testPiece, Tuning: Defaults()})
	p.Join(1, 1, false)
	p.Told(0, 1, State{Whole: true})
	var pauses []time.Duration
	now, room := time.Duration(0), Room{Members: 1}
	for range 8 {
		o := p.Next(now, room)
		if len(o.Start) != 1 {
			t.Fatalf("at %v: %+v", now, o)
		}
		p.Failed(now, o.Start[0].ID, true)
		wake, ok := p.NextWake(now)
		if !ok || len(p.Next(wake-1, room).Start) != 0 {
			t.Fatalf("asked before %v", wake)
		}
		pauses, now = append(pauses, wake-now), wake
	}
	for i, want := range []int64{250, 500, 1000, 2000, 4000, 8000, 8000, 8000} {
		if pauses[i].Milliseconds() != want {
			t.Errorf("pause %d is %v, want %v ms", i, pauses[i], want)
		}
	}
}

func TestRarestFirst(t *testing.T) {
	// A reader at the start takes care of pieces 0 to 31; of the others 70 is
	// the rarest.
	w := newWorld(t, 100, 1)
	for m := range Member(3) {
		has := bitset.New(100).SetRange(32, 100)
		if m > 0 {
			has.Clear(70)
		}
		w.member(m+1, 10*mb, has)
	}
	o := w.plan.Next(0, Room{Members: 12})
	for _, r := range o.Start {
		if r.Member == 1 {
			if r.First != 70 {
				t.Errorf("first asked %+v, want piece 70", r)
			}
			break
		}
	}
}

func TestTiesFallDifferently(t *testing.T) {
	firsts := map[int]bool{}
	for seed := range uint64(20) {
		w := newWorld(t, 200, seed)
		w.member(1, 10*mb, bitset.New(200).SetRange(32, 200))
		firsts[w.plan.Next(0, Room{Members: 1}).Start[0].First] = true
	}
	if len(firsts) < 10 {
		t.Errorf("20 nodes began with only %d different pieces", len(firsts))
	}
}

func TestHeadComesFirst(t *testing.T) {
	here := bitset.New(200).SetRange(0, 120)
	p := New(Config{Size: 200 * testPiece, PieceSize: testPiece, Here: here, Tuning: Defaults()})
	p.Join(1, 1, false)
	p.Told(0, 1, State{Has: bitset.New(200).SetRange(100, 200)})
	for i, r := range p.Next(0, Room{Members: 4}).Start {
		if r.First != 120+i {
			t.Errorf("asked %+v, the reader is at 120", r)
		}
	}
}

func TestOwnZoneFirst(t *testing.T) {
	p := New(Config{Size: 100 * testPiece, PieceSize: testPiece, Tuning: Defaults()})
	p.Join(1, 1, true)
	p.Told(0, 1, State{Whole: true})
	p.Join(2, 2, false)
	p.Told(0, 2, State{Has: bitset.New(100).SetRange(0, 50)})
	for _, r := range p.Next(0, Room{Members: 100}).Start {
		if r.Member == 1 && r.First < 50 {
			t.Errorf("asked another zone for %+v, which the own has", r)
		}
	}
}

func TestGoneMemberIsForgotten(t *testing.T) {
	w := newWorld(t, 100, 1)
	w.member(1, 100*mb, nil)
	w.member(2, 10*mb, nil)
	w.at(200*time.Millisecond, func() {
		w.plan.Gone(w.now, 1)
		for id, tr := range w.open {
			if tr.Member == 1 {
				delete(w.open, id)
			}
		}
	})
	w.run()
	if w.plan.near.wholes != 1 || len(w.plan.order) != 1 {
		t.Errorf("%d members counted, %d known; want 1, 1", w.plan.near.wholes, len(w.plan.order))
	}
}

// Whatever the members do, the fill ends; and no piece is asked for twice
// unless something went wrong.
func TestEndsWhateverHappens(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w := newWorld(t, 1+rng.IntN(200), seed)
		w.limit = 10 * time.Minute
		healthy := true
		if rng.IntN(2) == 0 {
			s := w.origin(1*mb + rng.Float64()*50*mb)
			// A stream passes what members gave, too.
			s.unranged = rng.IntN(3) == 0
			healthy = !s.unranged
		} else {
			w.member(1000, 1*mb+rng.Float64()*50*mb, nil) // one who stays
		}
		for m := range Member(rng.IntN(12)) {
			s := w.member(m+1, 0.05*mb+rng.Float64()*100*mb, some(rng, w.pieces, rng.Float64()))
			switch when := time.Duration(1 + rng.IntN(3000)*int(time.Millisecond)); rng.IntN(6) {
			case 0:
				s.dies, healthy = when, false
			case 1:
				s.freezes, healthy = when, false
			case 2:
				s.freezes, s.thaws, healthy = when, when+time.Duration(rng.IntN(5000))*time.Millisecond, false
			case 3:
				s.lies, healthy = map[int]bool{rng.IntN(w.pieces): true}, false
			default:
				healthy = healthy && s.rate > 20*mb
			}
		}
		w.run()
		if healthy && w.twice() > w.pieces/10+8 {
			t.Errorf("seed %d: %d of %d pieces came twice among healthy members", seed, w.twice(), w.pieces)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestEqualMembersNeverFetchTwice(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, 50+rng.IntN(300), seed)
		for m := range Member(2 + rng.IntN(8)) {
			w.member(m+1, 50*mb, nil)
		}
		w.run()
		if w.twice() != 0 {
			t.Errorf("seed %d: %d pieces twice", seed, w.twice())
		}
	}
}

func TestCarriesACrowd(t *testing.T) {
	w := newWorld(t, 1000, 1)
	rng := rand.New(rand.NewPCG(1, 2))
	for m := range Member(10_000) {
		w.member(m+1, 10*mb, some(rng, 1000, 0.05))
	}
	w.enough = 100 // the rest takes long with the race detector
	w.run()
	seen := map[int]bool{}
	for _, i := range w.arrived {
		if seen[i] {
			t.Errorf("piece %d came twice", i)
		}
		seen[i] = true
	}
	if len(w.asked) != 1000 {
		t.Errorf("%d requests to 10,000 members, want every piece in somebody's hands", len(w.asked))
	}
}

func TestMeter(t *testing.T) {
	m := newMeter(2 * time.Second)
	if _, ok := m.rate(0); ok {
		t.Error("a rate out of nothing")
	}
	// A run that is over at once leaves a rate, too.
	m.start(time.Second)
	m.add(time.Second+time.Millisecond, 1000)
	m.stop(time.Second + time.Millisecond)
	if r, ok := m.rate(2 * time.Second); !ok || r != 1000/minSpan.Seconds() {
		t.Errorf("%v %v", r, ok)
	}
	m.start(3 * time.Second)
	for i := range 40 {
		m.add(3*time.Second+time.Duration(i)*100*time.Millisecond, 100)
	}
	if r, ok := m.rate(7 * time.Second); !ok || r < 900 || r > 1100 {
		t.Errorf("%v %v, want 1000 bytes a second", r, ok)
	}
	if r, ok := m.rate(8 * time.Second); !ok || r > 600 {
		t.Errorf("%v %v after a second of silence", r, ok)
	}
	if r, ok := m.rate(20 * time.Second); !ok || r != 0 {
		t.Errorf("%v %v after a long silence", r, ok)
	}
}

func TestFastMemberTakesOver(t *testing.T) {
	for _, c := range []struct {
		slow float64
		most time.Duration
	}{
		{6 * mb, 550 * time.Millisecond}, // its four pieces would take 0.7 s: in the endgame
		{0.5 * mb, time.Second},          // eight seconds: as soon as they are at the head
	} {
		w := newWorld(t, 40, 1)
		w.member(1, 100*mb, nil)
		w.member(2, c.slow, nil)
		if took := w.run(); took > c.most {
			t.Errorf("took %v beside a member of %v bytes a second, the fast one alone takes 0.42 s", took, c.slow)
		}
		if w.twice() > 4 {
			t.Errorf("%d pieces twice", w.twice())
		}
	}
}

func TestMemberOnTrial(t *testing.T) {
	p := New(Config{Size: 20 * testPiece, PieceSize: testPiece, Tuning: Defaults()})
	p.OriginFrom(0, 0)
	p.Join(1, 1, false)
	p.Told(0, 1, State{Whole: true})
	room := Room{Members: 8, Origin: 8}
	for _, r := range p.Next(0, room).Start {
		p.Failed(0, r.ID, true)
	}
	// Its pause is over: it gets one piece that nobody waits for, and the
	// origin is asked as if it were not there.
	now := Defaults().Backoff
	got := p.Next(now, room).Start
	if len(got) != 2 || got[0].Member != Origin || got[0].First != 0 || got[1].Member != 1 || got[1].First != 19 || got[1].Count != 1 {
		t.Fatalf("%+v", got)
	}
	if again := p.Next(now, room).Start; len(again) != 0 {
		t.Errorf("a second trial: %+v", again)
	}
	p.Progress(now, got[1].ID, testPiece)
	p.Delivered(now, got[1].ID)
	if got := p.Next(now, room).Start; len(got) != 4 || got[0].Member != 1 {
		t.Errorf("after a good one: %+v", got)
	}
}

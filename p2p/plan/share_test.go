package plan

import (
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// What a node brought when it was the only one to ask is not what it would get
// beside eleven others.
func TestOwnTimeIsAShare(t *testing.T) {
	p := New(Config{Size: 64 * testPiece, PieceSize: testPiece, Key: 1, Volunteer: true, Tuning: Defaults()})
	p.KnowsOrigin(Ranged)
	p.OriginFrom(0, 0)
	r := p.Next(0, Room{Origin: 1}).Start[0]
	burst := 12 * time.Millisecond
	for range r.Count {
		p.Progress(burst, r.ID, testPiece)
		p.Delivered(burst, r.ID)
	}
	const others = 11
	claims := bitset.New(64).Set(63)
	for m := Member(1); m <= others; m++ {
		p.Join(m, uint64(m), false)
	}
	now := burst
	for progress := int64(0); now < 2*time.Second; now += 100 * time.Millisecond {
		for m := Member(1); m <= others; m++ {
			p.Told(now, m, State{Volunteer: true, Claims: claims, Progress: progress})
		}
		progress += 2 * mb / 10
	}
	want := lasts(int64(p.runLength())*testPiece, others*2*mb/(others+1))
	if got := p.ownTime(now); got < want*8/10 || got > want*12/10 {
		t.Errorf("%v for a run, want about %v", got, want)
	}
}

// A node takes over what another has claimed and brings too late, but not while
// it uses its own part of what the origin gives.
func TestStuckClaimsWaitForAnIdleNode(t *testing.T) {
	const pieces = 16
	p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Key: 1, Volunteer: true, Tuning: Defaults()})
	p.KnowsOrigin(Ranged)
	p.Join(1, 1, false)
	p.Told(0, 1, State{Volunteer: true})
	mine := p.own().mine.Clone()
	claims := bitset.New(pieces).SetAll().Difference(mine)
	p.OriginFrom(0, 0)
	var r Request // in flight
	now, left := time.Duration(0), testPiece
	for begun := uint(0); ; now += 100 * time.Millisecond {
		p.Told(now, 1, State{Volunteer: true, Claims: claims, Progress: now.Milliseconds()})
		if r.Count > 0 {
			p.Progress(now, r.ID, testPiece/4)
			left -= testPiece / 4
		}
		room := Room{Origin: 1}
		switch {
		case left > 0 && begun > 0 && begun < mine.Count():
			room.Origin = 0 // one at a time, until there is no more
		case left == 0:
			p.Delivered(now, r.ID)
			left = testPiece
		}
		if left == testPiece && begun == mine.Count() {
			break
		}
		for _, r = range p.Next(now, room).Start {
			if !mine.Test(uint(r.First)) {
				t.Fatalf("at %v piece %d is asked for while this node brings its part", now, r.First)
			}
			begun++
		}
	}
	for end := now + time.Second; now < end; now += 50 * time.Millisecond {
		for _, s := range p.Next(now, Room{Origin: 1}).Start {
			if claims.Test(uint(s.First)) && !p.origin.first {
				return
			}
		}
	}
	t.Error("nobody takes over what would come in an hour")
}

// Requests that begin together take their time to get going: a rate of the first
// moments is no reason to fetch what somebody else has claimed, and a slow
// member no reason to ask the origin for what it has just been asked for.
func TestYoungRequestsAreNotTakenOver(t *testing.T) {
	const pieces, begun = 16, 2 * time.Second
	for name, claimed := range map[string]bool{"claimed": true, "asked for": false} {
		t.Run(name, func(t *testing.T) {
			here := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Key: 1, Volunteer: true, Tuning: Defaults()})
			here.Join(1, 1, false)
			here.Told(0, 1, State{Volunteer: true})
			p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Here: here.own().mine, Key: 1, Volunteer: true, Tuning: Defaults()})
			p.KnowsOrigin(Ranged)
			p.Join(1, 1, false)
			p.OriginFrom(0, 0)
			p.origin.rate.start(0) // 1,000 pieces a second, once
			p.origin.rate.add(time.Second, 1000*testPiece)
			p.origin.rate.stop(time.Second)
			theirs := p.open.Clone()
			said := State{Volunteer: true}
			p.Told(0, 1, said)
			var asked []Request
			for now := begun; now < begun+4*time.Second; now += 50 * time.Millisecond {
				said.Progress += 10
				if said.Claims = theirs; !claimed {
					said.Claims, said.Has = nil, theirs
				}
				p.Told(now, 1, said)
				for _, r := range asked {
					p.Progress(now, r.ID, 10)
				}
				for _, r := range p.Next(now, Room{Members: 4, Origin: 1}).Start {
					if r.Member != Origin {
						asked = append(asked, r)
						continue
					}
					if now < begun+p.tune.StuckBy {
						t.Errorf("after %v piece %d is asked from the origin", now-begun, r.First)
					}
					return
				}
			}
			t.Error("nobody takes over what would come in an hour")
		})
	}
}

// Where many begin to ask the origin each has one request in flight; where few
// do, and later, it has two: one runs while the other's round trip passes.
func TestManyOwnersBeginWithOneRequestEach(t *testing.T) {
	const pieces = 256
	tune := Defaults()
	for _, c := range []struct{ owners, have, want int }{
		{2, 0, 2},
		{tune.Abreast - 1, 0, 2},
		{tune.Abreast, 0, 1},
		{tune.Abreast, pieces/tune.FirstPart - 2, 1},
		{tune.Abreast, pieces / tune.FirstPart, 2},
	} {
		here := bitset.New(pieces)
		for i := range c.have {
			here.Set(uint(pieces - 1 - i))
		}
		p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Here: here, Key: 1, Volunteer: true, Tuning: tune})
		p.KnowsOrigin(Ranged)
		for m := Member(1); int(m) < c.owners; m++ {
			p.Join(m, uint64(m), false)
			p.Told(0, m, State{Volunteer: true})
		}
		p.OriginFrom(0, 0)
		r := p.Next(0, Room{Origin: 4}).Start[0]
		p.Progress(time.Second, r.ID, testPiece) // the rate is known
		p.Delivered(time.Second, r.ID)
		for range 4 {
			p.Next(time.Second, Room{Origin: 4})
		}
		if got := p.origin.requests; got != c.want {
			t.Errorf("%d requests of one of %d owners that has %d pieces, want %d", got, c.owners, c.have, c.want)
		}
	}
}

// The last pieces are taken over from whoever crawls with them, sooner than
// others: everybody waits for these.
func TestLastClaimsAreTakenOverSoon(t *testing.T) {
	const pieces = 80
	for _, c := range []struct {
		left int
		had  int64 // in a moment, before it crawled
		soon bool
	}{{1, 0, true}, {1, 20 << 20, true}, {pieces / 20, 0, true}, {pieces / 2, 0, false}} {
		p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Key: 1, Volunteer: true, Tuning: Defaults()})
		p.KnowsOrigin(Ranged)
		p.Join(1, 1, false)
		p.Join(2, 2, false)
		claims, has := bitset.New(pieces), bitset.New(pieces)
		for i := range uint(pieces) {
			claims.SetTo(i, int(i) < c.left)
			has.SetTo(i, int(i) >= c.left)
		}
		p.OriginFrom(0, 0)
		p.owners.capacity = 10 * mb // what the origin gave when many asked it
		var taken time.Duration
		for now := time.Duration(0); now < 900*time.Millisecond && taken == 0; now += 20 * time.Millisecond {
			p.Told(now, 1, State{Volunteer: true, Origin: Ranged, Claims: claims, Progress: min(c.had, int64(now)) + 500*now.Milliseconds()})
			p.Told(now, 2, State{Origin: Ranged, Has: has})
			for _, r := range p.Next(now, Room{Origin: 1}).Start {
				if r.Member == Origin {
					taken = now
				}
			}
		}
		if (taken > 0) != c.soon {
			t.Errorf("%+v: taken over after %v", c, taken)
		}
	}
}

package plan

import (
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// inFlight returns how many pieces a node that has the first here ones asks from
// a crowd at once, whose members have so many each.
func inFlight(t *testing.T, here int, members ...int) int {
	t.Helper()
	const pieces = 200
	mine := bitset.New(pieces)
	if here > 0 {
		mine.SetRange(0, uint(here))
	}
	p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Here: mine, Tuning: Defaults()})
	for k, n := range members {
		m := Member(k + 1)
		p.Join(m, uint64(m), false)
		has := bitset.New(pieces)
		has.SetRange(pieces-uint(n), pieces) // what this node lacks
		p.Told(0, m, State{Has: has})
	}
	count := 0
	for _, r := range p.Next(time.Millisecond, Room{Members: 100}).Start {
		count += r.Count
	}
	return count
}

// TestWhoIsBehindAsksForMore: the last catch up, because links give each request
// the same.
func TestWhoIsBehindAsksForMore(t *testing.T) {
	tune := Defaults()
	for name, c := range map[string]struct {
		here    int
		members []int
		more    int
	}{
		"as far as others":        {50, []int{50, 50, 50, 50, 50}, 0},
		"a little behind":         {48, []int{50, 50, 50, 50, 50}, 1},
		"further":                 {46, []int{50, 50, 50, 50, 50}, 2},
		"far behind":              {10, []int{50, 50, 50, 50, 50}, tune.BehindMost},
		"a little ahead":          {52, []int{50, 50, 50, 50, 50}, -1},
		"far ahead":               {90, []int{50, 50, 50, 50, 50}, -tune.AheadMost},
		"two of five are slow":    {50, []int{50, 50, 50, 2, 3}, 0},
		"one is far ahead":        {50, []int{50, 50, 50, 50, 140}, 0},
		"among too few":           {10, []int{50, 50}, 4}, // four requests to each
		"behind, and two slow":    {46, []int{50, 50, 50, 2, 3}, 2},
		"ahead of the slow alone": {50, []int{50, 50, 50, 50, 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got, want := inFlight(t, c.here, c.members...), tune.CrowdPieces+c.more; got != want {
				t.Errorf("%d pieces are asked for, not %d", got, want)
			}
		})
	}
}

// TestLastPiecesAreWaitedForLess: everybody waits for them, and fetching them
// twice costs little. Patience ends sooner also for what was asked for before.
func TestLastPiecesAreWaitedForLess(t *testing.T) {
	tune := Defaults()
	short := time.Duration(float64(tune.StallAfter) * tune.LastPatience)
	for name, c := range map[string]struct {
		missing, delivered int
		stalls             time.Duration
	}{
		"few are missing":            {5, 0, short},
		"one too many":               {6, 0, tune.StallAfter},
		"few, after another arrived": {6, 1, short},
	} {
		t.Run(name, func(t *testing.T) {
			const pieces = 100
			here := bitset.New(pieces).SetRange(uint(c.missing), pieces)
			p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Here: here, Tuning: tune})
			p.Join(1, 1, false)
			p.Told(0, 1, State{Whole: true})
			p.Join(2, 2, false)
			p.Told(0, 2, State{})
			asked := p.Next(0, Room{Members: 100}).Start
			for k := range c.delivered {
				p.Progress(2, asked[k].ID, testPiece)
				p.Delivered(2, asked[k].ID)
				p.Next(2, Room{}) // nothing begins that would have to be looked after
			}
			p.Told(c.stalls-2, 2, State{Has: bitset.New(pieces).SetAll()})
			for _, at := range []time.Duration{c.stalls - 1, c.stalls + 2} {
				again := 0
				for _, r := range p.Next(at, Room{Members: 100}).Start {
					if r.Member == 2 && r.First < asked[len(asked)-1].First+asked[len(asked)-1].Count {
						again++
					}
				}
				if late := at > c.stalls; late != (again > 0) {
					t.Errorf("after %v without a byte %d requests are given to another member", at, again)
				}
			}
			silent := p.silentAfter(0)
			if want := time.Duration(float64(tune.SilentAfter) * tune.LastPatience); silent == want != (c.stalls == short) {
				t.Errorf("an owner counts no more after %v", silent)
			}
		})
	}
}

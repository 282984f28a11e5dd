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

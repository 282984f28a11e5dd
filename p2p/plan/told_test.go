package plan

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// Whatever members say, in whatever order, the counts are those of what they
// said last.
func TestCountsFollowWhatIsTold(t *testing.T) {
	const pieces = 130
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Tuning: Defaults(), Seed: seed})
		p.OriginFrom(0, 0) // or what was refused would be forgiven
		last := map[Member]State{}
		for step := range 300 {
			now := time.Duration(step) * time.Millisecond
			m := Member(1 + rng.IntN(6))
			switch rng.IntN(8) {
			case 0:
				p.Gone(now, m)
				delete(last, m)
			case 1:
				p.Lost(rng.IntN(pieces), m, false)
			default:
				s := State{Has: some(rng, pieces, rng.Float64()), Claims: some(rng, pieces, 0.1), Whole: rng.IntN(10) == 0}
				s.Inbound = some(rng, pieces, 0.1)
				if rng.IntN(5) == 0 {
					s.Claims, s.Inbound = nil, nil
				}
				p.Join(m, uint64(m), m > 3)
				p.Told(now, m, s)
				last[m] = s
			}
			p.reap(now)
			check(t, p, last)
		}
	}
}

func check(t *testing.T, p *Plan, last map[Member]State) {
	t.Helper()
	var near, far, claimed, coming [130]int32
	wholes := 0
	for m, s := range last {
		mem := p.members[m]
		of := &near
		if mem.far {
			of = &far
		}
		if mem.has == nil {
			wholes++
		} else if mem.held != int(mem.has.Count()) {
			t.Fatalf("member %d holds %d pieces, not %d", m, mem.has.Count(), mem.held)
		}
		for i := range of {
			if mem.has != nil && mem.has.Test(uint(i)) {
				of[i]++
			}
			if s.Claims != nil && s.Claims.Test(uint(i)) {
				claimed[i]++
				if !mem.far {
					coming[i]++
				}
			}
			if s.Inbound != nil && s.Inbound.Test(uint(i)) && !mem.far {
				coming[i]++
			}
			if refused := mem.refused != nil && mem.refused.Test(uint(i)); mem.offers(i) != ((s.Whole || s.Has.Test(uint(i))) && !refused) {
				t.Fatalf("member %d offers piece %d: %v, refused %v", m, i, mem.offers(i), refused)
			}
		}
	}
	for name, c := range map[string]struct {
		got  counts
		want []int32
	}{"near": {p.near.counts, near[:]}, "far": {p.far.counts, far[:]}, "claimed": {p.claimed, claimed[:]}, "coming": {p.coming, coming[:]}} {
		if !slices.Equal(c.got.of, c.want) {
			t.Fatalf("%s: %v, want %v", name, c.got.of, c.want)
		}
		for i, n := range c.want {
			if c.got.some.Test(uint(i)) != (n > 0) {
				t.Fatalf("%s: piece %d is marked as %v", name, i, n == 0)
			}
		}
	}
	if p.wholes() != wholes {
		t.Fatalf("%d members with the whole, want %d", p.wholes(), wholes)
	}
}

// A set from the network may be longer or shorter than the blob.
func TestToldSetsOfOtherLengths(t *testing.T) {
	p := New(Config{Size: 70 * testPiece, PieceSize: testPiece, Tuning: Defaults()})
	p.Join(1, 1, false)
	p.Told(0, 1, State{Has: bitset.New(500).SetRange(60, 500), Claims: bitset.New(3).Set(2)})
	p.reap(0)
	if n := p.near.some.Count(); n != 10 || p.near.some.Len() != 70 || p.claimed.some.Count() != 1 {
		t.Errorf("%d pieces offered of %d, %d claimed", n, p.near.some.Len(), p.claimed.some.Count())
	}
}

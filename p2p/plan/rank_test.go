package plan

import "testing"

func TestRank(t *testing.T) {
	nodes := []uint64{3, 1, 4, 1 << 60, 5}
	for key := range uint64(50) {
		ranks := map[int]bool{}
		for _, self := range nodes {
			var others []uint64
			for _, o := range nodes {
				if o != self {
					others = append(others, o)
				}
			}
			ranks[Rank(key, self, others...)] = true
		}
		if len(ranks) != len(nodes) || !ranks[0] || !ranks[len(nodes)-1] {
			t.Fatalf("blob %d: nodes do not agree who is first: %v", key, ranks)
		}
	}
}

// Whoever's turn it is asks, also for what it does not own.
func TestTurnOfANodeThatOwnsNothing(t *testing.T) {
	const size = 1 << 20
	for key := range uint64(20) {
		asked := 0
		for self := range uint64(4) {
			p := New(Config{Size: size, PieceSize: size, Self: self, Key: key, Volunteer: true, Tuning: Defaults()})
			for other := range uint64(4) {
				if other != self {
					p.Join(Member(other+1), other, false)
					p.Told(0, Member(other+1), State{Volunteer: true})
				}
			}
			p.OriginFrom(0, 0)
			asked += len(p.Next(0, Room{Members: 8, Origin: 2}).Start)
		}
		if asked != 1 {
			t.Fatalf("blob %d: %d of 4 nodes ask at once", key, asked)
		}
	}
}

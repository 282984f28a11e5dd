package plan

import (
	"testing"
	"time"
)

// BenchmarkFill plans all of a blob of a thousand pieces that eight members
// have, each of which answers a request in a millisecond.
func BenchmarkFill(b *testing.B) {
	const pieces, members = 1000, 8
	b.ReportAllocs()
	for b.Loop() {
		p := New(Config{Size: pieces * testPiece, PieceSize: testPiece, Seed: 1, Tuning: Defaults()})
		for m := range Member(members) {
			p.Join(m+1, uint64(m), false)
			p.Told(0, m+1, State{Whole: true})
		}
		var now time.Duration
		var open []Request
		for !p.Done() {
			open = append(open, p.Next(now, Room{Members: 1000, Origin: 1000}).Start...)
			if len(open) == 0 {
				b.Fatalf("nothing is asked for, and %d pieces are missing", p.Missing())
			}
			now += time.Millisecond
			r := open[0]
			open = open[1:]
			for i := range r.Count {
				p.Progress(now, r.ID, testPiece)
				p.Delivered(now, r.ID)
				p.Stored(r.First + i)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pieces, "ns/piece")
}

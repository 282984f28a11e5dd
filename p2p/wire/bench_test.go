package wire

import (
	"testing"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
)

// BenchmarkInfo prints and parses what a node says of a blob of which it has
// every other of 4,096 pieces.
func BenchmarkInfo(b *testing.B) {
	const pieces = 4096
	have := bitset.New(pieces)
	for i := uint(0); i < pieces; i += 2 {
		have.Set(i)
	}
	info := Info{Size: pieces * blob.PieceSize, Have: have, Proven: have}
	b.Run("marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			info.Marshal()
		}
	})
	text := info.Marshal()
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseInfo(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkParseRequest reads the path of a request for pieces.
func BenchmarkParseRequest(b *testing.B) {
	path := Request{Kind: KindPieces, Digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000", Size: 64 << 20, First: 8, Count: MaxRun}.Path()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRequest(path); err != nil {
			b.Fatal(err)
		}
	}
}

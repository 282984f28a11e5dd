package blobcache

import (
	"bytes"
	"crypto/sha256"
	"runtime"
	"testing"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// Blocks are hashed in their order, whether others are hashed at the time or not,
// and blocks that wait are not written over.
func TestHashing(t *testing.T) {
	memory := new([blob.PieceSize]byte)
	data := newSample(3*blob.PieceSize+5, 1).data
	for _, others := range [][]int{{0}, {1}, {0, 0, 0, 1}, {0, 1, 1}} {
		to := proof.NewHasher()
		h := newHashing(to, memory)
		block, rest := <-h.free, bytes.NewReader(data)
		for i := 0; rest.Len() > 0; i++ {
			n, err := rest.Read(block)
			if err != nil {
				t.Fatal(err)
			}
			block = h.add(block, n, 1+others[i%len(others)]*runtime.GOMAXPROCS(0))
		}
		h.end()
		if _, ok := to.Chain(); !ok || to.Len() != int64(len(data)) || to.Sum() != sha256.Sum256(data) {
			t.Errorf("with others: %v: %d bytes, chain %t, another sum or not all", others, to.Len(), ok)
		}
	}
}

package blobcache

import (
	"bytes"
	"crypto/sha256"
	"runtime"
	"sync"
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

// Blobs that are hashed by who reads them take turns, piece by piece, where there
// are fewer processors than blobs.
func TestHashingTakesTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const each = 32
	var mu sync.Mutex
	var turns []int
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			h := newHashing(proof.NewHasher(), new([blob.PieceSize]byte))
			defer h.end()
			block := <-h.free
			for n := range each * blob.PieceSize / hashBlock {
				if n%(blob.PieceSize/hashBlock) == 0 {
					mu.Lock()
					turns = append(turns, i)
					mu.Unlock()
				}
				block = h.add(block, hashBlock, 2)
			}
		})
	}
	all.Wait()
	changes := 0
	for i := range turns[1:] {
		if turns[i] != turns[i+1] {
			changes++
		}
	}
	if changes < each { // by the runtime alone, every 10 ms
		t.Errorf("%d changes between two blobs of %d pieces each", changes, each)
	}
}

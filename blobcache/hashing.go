package blobcache

import (
	"runtime"
	"sync"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// hashBlock is how much is read, written and hashed at a time, in bytes: what one
// processor has read stays in its cache until it is hashed there. With smaller ones
// an import to ext4 took longer, with larger ones one to tmpfs
// (benchmarks/results/import-20261127.txt).
const hashBlock = 128 << 10

// hashing hashes the blocks of a blob, in their order, on a goroutine of its own or
// on the caller's.
type hashing struct {
	to      *proof.Hasher
	n       int64 // bytes that were added
	full    chan []byte
	free    chan []byte    // of hashBlock bytes each
	pending sync.WaitGroup // blocks that the goroutine has not hashed
	running sync.WaitGroup // the goroutine
}

// newHashing begins; the caller must call end. Blocks are parts of memory.
func newHashing(to *proof.Hasher, memory *[blob.PieceSize]byte) *hashing {
	n := blob.PieceSize / hashBlock
	h := &hashing{to: to, full: make(chan []byte, n), free: make(chan []byte, n)}
	for i := range n {
		h.free <- memory[i*hashBlock : (i+1)*hashBlock]
	}
	h.running.Go(h.run)
	return h
}

func (h *hashing) run() {
	for block := range h.full {
		h.to.Write(block)
		h.free <- block[:hashBlock]
		h.pending.Done()
	}
}

// add hashes the first n bytes of block, beside what the caller does next if a
// processor is likely to be idle, and returns the block to use next. blobs is how
// many are being hashed: to wake another processor costs about as much as hashing a
// block, and is worth it only for one that has nothing else to do.
//
// After each piece others have their turn. From who runs for 10 ms the Go runtime
// takes the processor away, within a system call too, and then its monitor is awake
// for a while: it cost an import a sixth (benchmarks/results/import-20261127.txt).
func (h *hashing) add(block []byte, n, blobs int) []byte {
	if 2*blobs > runtime.GOMAXPROCS(0) {
		h.pending.Wait()
		h.to.Write(block[:n])
	} else {
		h.pending.Add(1)
		h.full <- block[:n]
		block = <-h.free
	}
	if h.n += int64(n); h.n%blob.PieceSize == 0 {
		runtime.Gosched()
	}
	return block
}

// end returns when all is hashed.
func (h *hashing) end() {
	close(h.full)
	h.running.Wait()
}

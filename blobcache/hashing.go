package blobcache

import (
	"sync"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// hashAhead is how many pieces may wait to be hashed: reading and writing take
// about as long as hashing, but not evenly.
const hashAhead = 4

// hashing hashes pieces on a goroutine of its own, in the order of full.
type hashing struct {
	to      *proof.Hasher
	pool    *sync.Pool
	full    chan hashed
	free    chan *[blob.PieceSize]byte
	taken   int // buffers of pool
	running sync.WaitGroup
}

// hashed are the first n bytes of a buffer.
type hashed struct {
	buf *[blob.PieceSize]byte
	n   int
}

func (h *hashing) run() {
	for p := range h.full {
		h.to.Write(p.buf[:p.n])
		h.free <- p.buf
	}
}

// buffer returns one that is free; the pool is asked only while all are in use.
func (h *hashing) buffer() *[blob.PieceSize]byte {
	select {
	case buf := <-h.free:
		return buf
	default:
	}
	if h.taken < hashAhead {
		h.taken++
		return h.pool.Get().(*[blob.PieceSize]byte)
	}
	return <-h.free
}

// end returns when all is hashed.
func (h *hashing) end() {
	close(h.full)
	h.running.Wait()
	close(h.free)
	for buf := range h.free {
		h.pool.Put(buf)
	}
}

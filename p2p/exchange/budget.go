package exchange

import (
	"sync"
	"time"

	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
)

// The pieces in memory, over all fills: each request in flight holds one. 64
// MiB in all; members and the origin have their own, so that silent members
// cannot keep the origin from being asked.
const (
	memberPieces = 48
	originPieces = 16
)

// What starts says.
const (
	limitedTime  = 4 * time.Second
	leastLimited = 8
)

// budget bounds the pieces in memory.
type budget struct {
	free chan struct{}
	pool *sync.Pool // of *[blob.PieceSize]byte
}

func newBudget(pieces int, pool *sync.Pool) *budget {
	b := &budget{free: make(chan struct{}, pieces), pool: pool}
	for range pieces {
		b.free <- struct{}{}
	}
	return b
}

func newPool() *sync.Pool {
	return &sync.Pool{New: func() any { return new([blob.PieceSize]byte) }}
}

// take reserves at most n pieces and returns how many it got.
func (b *budget) take(n int) int {
	for i := range n {
		select {
		case <-b.free:
		default:
			return i
		}
	}
	return n
}

// used returns how many pieces are reserved.
func (b *budget) used() int { return cap(b.free) - len(b.free) }

// starts returns how many requests to members may begin now. Under a limit there
// are as many in flight as it lets end within limitedTime, and leastLimited at
// least: more would only keep members waiting, who cut off who takes too little.
func (x *Exchange) starts() int {
	rate := x.download.Rate()
	if rate == pace.Unlimited {
		return maxStarts
	}
	most := max(leastLimited, int(float64(rate)*limitedTime.Seconds()/blob.PieceSize))
	return max(0, min(maxStarts, most-x.members.used()))
}

// give returns n reserved pieces.
func (b *budget) give(n int) {
	for range n {
		b.free <- struct{}{}
	}
}

// buffer returns the memory for a reserved piece.
func (b *budget) buffer() *[blob.PieceSize]byte { return b.pool.Get().(*[blob.PieceSize]byte) }

// done gives memory and reservation back.
func (b *budget) done(p *[blob.PieceSize]byte) {
	b.pool.Put(p)
	b.give(1)
}

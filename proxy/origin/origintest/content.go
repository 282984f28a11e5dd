package origintest

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
)

// content is the body of a blob or manifest, wherever its bytes come from.
type content interface {
	io.ReaderAt
	Size() int64
}

// bytesContent is content that is held whole.
type bytesContent []byte

func (b bytesContent) Size() int64 { return int64(len(b)) }

func (b bytesContent) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Filler is cut from a pool of random bytes in blocks of fillerBlock bytes, in
// an order that follows from the seed; each block begins with a stamp of seed
// and position, so that no two blocks are equal. Reading it costs little more
// than a copy, and a blob of any size costs no memory.
const (
	fillerBlock = 4 << 10
	poolBlocks  = 256
	stampSize   = 16
)

// randomPool returns the bytes that every filler is cut from. They are the
// same in every process.
func randomPool() []byte {
	pool := make([]byte, poolBlocks*fillerBlock)
	// Read of a ChaCha8 never fails.
	_, _ = rand.NewChaCha8([32]byte([]byte("origintest: filler of the layers"))).Read(pool)
	return pool
}

// filler is size bytes that look random.
type filler struct {
	pool []byte
	seed uint64
	size int64
}

// readAt fills p, which must lie within the filler, from off on.
func (f filler) readAt(p []byte, off int64) {
	for len(p) > 0 {
		k, in := uint64(off/fillerBlock), int(off%fillerBlock)
		from := int(mix(f.seed+k)%poolBlocks) * fillerBlock
		n := copy(p, f.pool[from+in:from+fillerBlock])
		if in < stampSize {
			var stamp [stampSize]byte
			binary.LittleEndian.PutUint64(stamp[:], mix(f.seed))
			binary.LittleEndian.PutUint64(stamp[8:], mix(f.seed^k))
			copy(p[:n], stamp[in:])
		}
		p, off = p[n:], off+int64(n)
	}
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable
// pseudorandom number generators, OOPSLA 2014). It is a bijection.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

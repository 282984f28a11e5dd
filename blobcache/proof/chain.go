package proof

import (
	"fmt"

	"shoal/blobcache/blob"
)

// Chain holds the states at the inner boundaries 1 to n-1 of a blob of n
// pieces; it is empty for n <= 1. The state before the first piece is Initial,
// and the last piece leads to the digest.
type Chain []State

// Fits tells whether c has the length of a chain for a blob of size bytes.
func (c Chain) Fits(size int64) bool { return len(c) == inner(size) }

// Before returns the state before piece i.
func (c Chain) Before(i int) State {
	if i == 0 {
		return Initial()
	}
	return c[i-1]
}

// Check tells whether data leads from the state before piece i to the one
// behind it, or, for the last piece, to the digest of d. It says no more than
// that data and c agree; see the package comment for what that proves. The
// chain must fit d.Size.
func (c Chain) Check(d blob.Descriptor, i int, data []byte) (bool, error) {
	if i < len(c) {
		s, err := Next(c.Before(i), data, int64(i)*blob.PieceSize)
		return s == c[i], err
	}
	sum, err := Sum(c.Before(i), data, d.Size)
	return sum == d.Hash(), err
}

// Bytes returns the states of c one behind the other, StateSize bytes each.
func (c Chain) Bytes() []byte {
	b := make([]byte, 0, len(c)*StateSize)
	for i := range c {
		b = append(b, c[i][:]...)
	}
	return b
}

// ParseChain reads what Bytes wrote for a blob of size bytes. Any other length
// is an error.
func ParseChain(b []byte, size int64) (Chain, error) {
	if len(b) != inner(size)*StateSize {
		return nil, fmt.Errorf("proof: a chain of %d bytes for a blob of %d, want %d", len(b), size, inner(size)*StateSize)
	}
	c := make(Chain, inner(size))
	for i := range c {
		copy(c[i][:], b[i*StateSize:])
	}
	return c, nil
}

// inner returns how many inner boundaries a blob of size bytes has.
func inner(size int64) int { return max(0, blob.PieceCount(size)-1) }

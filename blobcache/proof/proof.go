// Package proof makes every piece of a blob checkable on its own against the
// blob's SHA-256 digest, without trust and without a second hash.
//
// SHA-256 is sequential: its whole memory after any number of 64-byte blocks
// is a 32-byte chaining value (FIPS 180-4, section 6.2.2). The chain of a blob
// is the list of these values at the boundaries of its pieces. If the first
// piece leads from the initial value to the first state, every further piece
// from its state to the next, and the last piece with its padding to the
// digest, then that is the SHA-256 computation itself, cut at its seams: the
// chain has closed. The pieces may be checked in any order, on all cores.
//
// A chain that has not closed is a hint and proves nothing: whoever forged it
// may have forged pieces to fit. Only the digest decides, and a forged chain
// cannot reach it.
//
// The package does no I/O and starts no goroutines. It reads and sets the
// state of crypto/sha256 through its binary marshalling, whose layout is not
// documented; Supported tells whether the layout is the expected one. Where it
// is not, blobs are still hashed (Hasher), from front to back and without
// chains.
package proof

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"

	"shoal/blobcache/blob"
)

// ErrUnsupported tells that this Go runtime's crypto/sha256 does not give its
// state away in the expected layout, so that there are no chains.
var ErrUnsupported = errors.New("states of crypto/sha256 are not accessible")

// StateSize is the length of a State in bytes.
const StateSize = sha256.Size

// State is a SHA-256 chaining value at the boundary of two pieces: H0 to H7 of
// FIPS 180-4, each big-endian.
type State [StateSize]byte

// Initial returns the value that SHA-256 starts from (FIPS 180-4, 5.3.3).
func Initial() State {
	return State{
		0x6a, 0x09, 0xe6, 0x67, 0xbb, 0x67, 0xae, 0x85,
		0x3c, 0x6e, 0xf3, 0x72, 0xa5, 0x4f, 0xf5, 0x3a,
		0x51, 0x0e, 0x52, 0x7f, 0x9b, 0x05, 0x68, 0x8c,
		0x1f, 0x83, 0xd9, 0xab, 0x5b, 0xe0, 0xcd, 0x19,
	}
}

// Next returns the state after a whole piece that starts at byte off of its
// blob, where the state is s. The piece must be blob.PieceSize long and off a
// multiple of it.
func Next(s State, piece []byte, off int64) (State, error) {
	if len(piece) != blob.PieceSize || off%blob.PieceSize != 0 {
		return State{}, fmt.Errorf("proof: %d bytes at offset %d are not a whole piece", len(piece), off)
	}
	h, err := resume(s, off)
	if err != nil {
		return State{}, err
	}
	h.Write(piece)
	return stateOf(h)
}

// Sum returns the digest of a blob of total bytes whose last piece is tail and
// whose state before that piece is s. A blob of one piece, or none, starts
// from Initial.
func Sum(s State, tail []byte, total int64) ([sha256.Size]byte, error) {
	off := total - int64(len(tail))
	if off < 0 || off%blob.PieceSize != 0 || len(tail) > blob.PieceSize {
		return [sha256.Size]byte{}, fmt.Errorf("proof: %d bytes are not the last piece of %d", len(tail), total)
	}
	if off == 0 && s == Initial() {
		return sha256.Sum256(tail), nil // needs no access to states
	}
	h, err := resume(s, off)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	h.Write(tail)
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Supported tells whether states can be read and set on this runtime. It is
// found out once, with the published intermediate value of a FIPS example.
func Supported() bool { return supported() }

//nolint:gochecknoglobals // found out once, and never changes
var supported = sync.OnceValue(func() bool { return selfCheck(sha256.New) })

// selfCheck hashes the two-block example of FIPS 180-2, appendix B.2, whose
// value between the blocks is published, and looks for it; then it goes on
// from it and compares with the plain way.
func selfCheck(newHash func() hash.Hash) bool {
	between := State{
		0x85, 0xe6, 0x55, 0xd6, 0x41, 0x7a, 0x17, 0x95,
		0x33, 0x63, 0x37, 0x6a, 0x62, 0x4c, 0xde, 0x5c,
		0x76, 0xe0, 0x95, 0x89, 0xca, 0xc5, 0xf8, 0x11,
		0xcc, 0x4b, 0x32, 0xc1, 0xf2, 0x0e, 0x53, 0x3a,
	}
	var block [sha256.BlockSize]byte // the message and the start of its padding
	copy(block[:], "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq\x80")
	h := newHash()
	h.Write(block[:])
	if s, err := stateOf(h); err != nil || s != between {
		return false
	}
	const tail = "and on it goes"
	resumed := newHash()
	if err := setState(resumed, between, sha256.BlockSize); err != nil {
		return false
	}
	resumed.Write([]byte(tail))
	want := sha256.Sum256(append(block[:], tail...))
	return bytes.Equal(resumed.Sum(nil), want[:])
}

// The layout in which crypto/sha256 marshals itself: magic, state, the block
// that is not full yet, and the number of bytes so far (big-endian).
const (
	magic      = "sha\x03"
	stateStart = len(magic)
	blockStart = stateStart + StateSize
	countStart = blockStart + sha256.BlockSize
	layoutSize = countStart + 8
)

func resume(s State, off int64) (hash.Hash, error) {
	if !Supported() {
		return nil, ErrUnsupported
	}
	h := sha256.New()
	return h, setState(h, s, off)
}

func setState(h hash.Hash, s State, off int64) error {
	u, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return ErrUnsupported
	}
	var b [layoutSize]byte
	copy(b[:], magic)
	copy(b[stateStart:], s[:])
	binary.BigEndian.PutUint64(b[countStart:], uint64(off))
	return u.UnmarshalBinary(b[:])
}

// stateOf returns the state of h, which must stand at a multiple of the block
// size.
func stateOf(h hash.Hash) (State, error) {
	m, ok := h.(encoding.BinaryAppender)
	if !ok {
		return State{}, ErrUnsupported
	}
	b, err := m.AppendBinary(make([]byte, 0, layoutSize))
	if err != nil {
		return State{}, err
	}
	if len(b) != layoutSize {
		return State{}, ErrUnsupported
	}
	return State(b[stateStart:blockStart]), nil
}

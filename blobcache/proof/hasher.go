package proof

import (
	"crypto/sha256"
	"hash"

	"shoal/blobcache/blob"
)

// Hasher computes the SHA-256 sum of a blob from front to back and keeps the
// chain on the way, which costs nothing extra. It is an io.Writer that never
// fails. Where chains are not supported it still hashes.
type Hasher struct {
	h     hash.Hash
	n     int64
	chain Chain // states at the boundaries passed so far, a final one included
	plain bool  // no states on this runtime
}

// NewHasher returns a Hasher at the start of a blob.
func NewHasher() *Hasher {
	return &Hasher{h: sha256.New(), plain: !Supported()}
}

// Write adds p. It always returns len(p) and nil.
func (h *Hasher) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part := rest[:min(int64(len(rest)), blob.PieceSize-h.n%blob.PieceSize)]
		rest = rest[len(part):]
		h.h.Write(part)
		h.n += int64(len(part))
		if h.n%blob.PieceSize == 0 && !h.plain {
			s, err := stateOf(h.h)
			if err != nil { // the self-check has seen this very call work
				panic("proof: " + err.Error())
			}
			h.chain = append(h.chain, s)
		}
	}
	return len(p), nil
}

// Skip passes over the next whole piece, of which the caller knows that it
// leads from the present state to s. The Hasher must stand at a boundary, and
// chains must be supported.
func (h *Hasher) Skip(s State) error {
	if h.plain {
		return ErrUnsupported
	}
	if err := setState(h.h, s, h.n+blob.PieceSize); err != nil {
		return err
	}
	h.n += blob.PieceSize
	h.chain = append(h.chain, s)
	return nil
}

// Reset brings h back to the start of a blob.
func (h *Hasher) Reset() {
	h.h.Reset()
	h.n = 0
	h.chain = nil
}

// State returns the state at the boundary where h stands; false if it does not
// stand at one, or if chains are not supported.
func (h *Hasher) State() (State, bool) {
	if h.plain || h.n%blob.PieceSize != 0 {
		return State{}, false
	}
	if h.n == 0 {
		return Initial(), true
	}
	return h.chain[len(h.chain)-1], true
}

// Len returns the number of bytes so far.
func (h *Hasher) Len() int64 { return h.n }

// Sum returns the SHA-256 sum of the bytes so far.
func (h *Hasher) Sum() [sha256.Size]byte { return [sha256.Size]byte(h.h.Sum(nil)) }

// Chain returns the chain of a blob that ends here, and false if chains are
// not supported. It shares memory with h.
func (h *Hasher) Chain() (Chain, bool) { return h.ChainOf(h.n) }

// ChainOf returns the chain of a blob of size bytes of which at most the last
// piece is still to come, and false if more is, or chains are not supported.
func (h *Hasher) ChainOf(size int64) (Chain, bool) {
	if h.plain || len(h.chain) < inner(size) {
		return nil, false
	}
	return h.chain[:inner(size)], true
}

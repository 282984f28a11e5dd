// Package forge makes lies about what stands for pieces: answers to requests
// for pieces as a member gives them that wants to pass wrong bytes, or right
// ones with a false word, for good. It is for tests only. It knows the formats
// of packages wire and statement, and nothing of how they are checked.
package forge

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"net/http"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/statement"
	"shoal/p2p/wire"
)

// Lie is what an answer says that is not so.
type Lie string

// The lies. Those about vouchers come with the right bytes, except where it is
// said: it is the word alone that is false.
const (
	// Signature: a voucher that its signer did not sign.
	Signature Lie = "voucher that nobody signed"
	// Signer: a voucher of this member in the name of another.
	Signer Lie = "voucher in another's name"
	// Index: a voucher of another piece.
	Index Lie = "voucher of another piece"
	// Blob: a voucher of another blob.
	Blob Lie = "voucher of another blob"
	// Size: a voucher of the same digest at another size.
	Size Lie = "voucher of another size"
	// Sum: a good voucher of the piece, and other bytes than it says.
	Sum Lie = "voucher of other bytes"
	// Chain: a good voucher of a chain, and bytes that do not agree with it.
	Chain Lie = "bytes that are not of the chain"
	// ChainSignature: a voucher of a chain that its signer did not sign.
	ChainSignature Lie = "voucher of a chain that nobody signed"
	// Garbage: wrong bytes, and a good voucher for them.
	Garbage Lie = "vouched garbage"
	// Stranger: the same, by somebody whom nobody has met.
	Stranger Lie = "garbage that a stranger vouched for"
	// Proven: wrong bytes, said to be proven.
	Proven Lie = "garbage that is said to be proven"
)

// AtOnce are the lies that can be seen in the answer.
func AtOnce() []Lie {
	return []Lie{Signature, Signer, Index, Blob, Size, Sum, Chain, ChainSignature}
}

// Later are those that only come out when the blob is proven.
func Later() []Lie { return []Lie{Garbage, Stranger, Proven} }

// Forger is a member that lies.
type Forger struct {
	Lie    Lie
	Signer *statement.Signer // with its own key
	Chain  [sha256.Size]byte // SHA-256 of the right chain
}

// Answer makes the answer to a request for pieces out of the right bytes,
// which it may change.
func (f Forger) Answer(r wire.Request, h http.Header, body []byte) {
	d := blob.Descriptor{Digest: r.Digest, Size: r.Size}
	pledges := make([]wire.Pledge, r.Count)
	for k := range pledges {
		i := r.First + k
		offset := blob.Piece(i, r.Size).Offset - blob.Piece(r.First, r.Size).Offset
		pledges[k] = f.pledge(d, i, body[offset:offset+blob.Piece(i, r.Size).Length])
	}
	h.Set(wire.VouchersHeader, wire.PrintPledges(pledges))
	if f.Lie == Chain || f.Lie == ChainSignature {
		v := f.Signer.Chain(d, f.Chain)
		if f.Lie == ChainSignature {
			v.Sum[0] ^= 1
		}
		h.Set(wire.ChainHeader, wire.PrintVoucher(v))
	}
}

// pledge says something about piece i of d, which it may change.
func (f Forger) pledge(d blob.Descriptor, i int, piece []byte) wire.Pledge {
	sum := sha256.Sum256(piece)
	signer := f.Signer
	switch f.Lie {
	case Index:
		i++
	case Blob:
		d.Digest = digest.FromString("another blob")
	case Size:
		d.Size++
	case Sum:
		piece[0] ^= 1
	case Chain, ChainSignature:
		if f.Lie == Chain {
			piece[0] ^= 1
		}
		return wire.Pledge{Linked: true}
	case Stranger:
		signer = stranger()
		fallthrough
	case Garbage:
		piece[0] ^= 1
		sum = sha256.Sum256(piece)
	case Proven:
		piece[0] ^= 1
		return wire.Pledge{}
	}
	v := signer.Piece(d, i, sum)
	switch f.Lie {
	case Signature:
		v.Sum[0] ^= 1
	case Signer:
		v.Signer = stranger().Piece(d, i, sum).Signer
	}
	return wire.Pledge{Voucher: &v}
}

// stranger returns the signer of a key that was never seen before.
func stranger() *statement.Signer {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // there is no randomness
	}
	s, err := statement.NewSigner(private)
	if err != nil {
		panic(err) // the key is of the right length
	}
	return s
}

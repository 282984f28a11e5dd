// Package statement is what is signed in a swarm, and the check of such a
// signature. Members sign about blobs that nobody can prove yet, operators what
// is to be done everywhere, and seeders what others may believe who trust them:
//
//	piece voucher  "I took this piece from the origin, and its SHA-256 is SUM"
//	chain voucher  "I have this blob, and the SHA-256 of its chain is SUM"
//	endorsement    "The SHA-256 of the chain of this blob is SUM"
//	lease          "A registry told me at TIME that TAG is this manifest; believe it until TIME"
//	invalidation   "Forget what you know of IMAGE; it was TIME when I said so"
//	preheat        "Fetch IMAGE for PLATFORMS if you are one of TO; it was TIME when I said so"
//
// A voucher proves nothing about the bytes. It makes one member answer for
// them, whoever passes them on: whatever does not match its voucher is the
// fault of who sent it, and whatever matches and is wrong, of who signed.
//
// An endorsement, and a lease, proves nothing to those who do not trust its
// signer's key. Those who do let bytes out on the one (package blobcache), and
// answer what a tag is by the other (package proxy); that is why they are signed
// with a key that an operator has made for that, and never with a member's own.
//
// Vouchers and endorsements are meant to stand beside what they are about, so
// that they name neither blob nor piece: the checker says what they are, and the
// signature of another blob, size, piece or kind does not pass. Invalidations,
// leases and preheats stand alone and are good for a while only, so that they
// cannot be said again later. What is signed begins with the name of the kind and
// a version, and has one form for one meaning, so that no other use of the same
// key, in a TLS certificate or a record of libp2p, can be taken for it. Keys are
// Ed25519 keys (RFC 8032): those in the peer IDs of members, and those that
// operators make for themselves. Of any other kind there are no statements.
//
// What always holds: parsing looks at no more than Size, EndorsementSize,
// MaxLeaseSize, MaxInvalidation or MaxPreheat bytes and accepts one form only. The
// package does no I/O, keeps no state and starts no goroutines.
package statement

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"shoal/blobcache/blob"
)

// Errors of statements.
var (
	// ErrMalformed: no statement, or one of a version that is not known here.
	ErrMalformed = errors.New("malformed statement")
	// ErrSignature: the signer has not said that, or not of this blob and piece.
	ErrSignature = errors.New("statement is not signed by its signer")
)

// Key is the public key of a signer. It need not be a good one unless it comes
// from ParseKey: keys of small order exist, for which anybody can sign. Who is a
// member is for the caller to know.
type Key [ed25519.PublicKeySize]byte

// Signer makes statements. It may be used from any goroutine.
type Signer struct {
	private ed25519.PrivateKey
	public  Key
}

// NewSigner returns the signer with that private key, of
// ed25519.PrivateKeySize bytes.
func NewSigner(private ed25519.PrivateKey) (*Signer, error) {
	if len(private) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("statement: an Ed25519 key of %d bytes", len(private))
	}
	s := &Signer{private: private}
	copy(s.public[:], private[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
	return s, nil
}

// Piece vouches for piece i of d, whose SHA-256 is sum.
func (s *Signer) Piece(d blob.Descriptor, i int, sum [sha256.Size]byte) Voucher {
	return s.sign(pieceText(d, i, sum), sum)
}

// Chain vouches for the chain of d; sum is the SHA-256 of its bytes.
func (s *Signer) Chain(d blob.Descriptor, sum [sha256.Size]byte) Voucher {
	return s.sign(chainText(d, sum), sum)
}

func (s *Signer) sign(text []byte, sum [sha256.Size]byte) Voucher {
	v := Voucher{Signer: s.public, Sum: sum}
	copy(v.signature[:], ed25519.Sign(s.private, text))
	return v
}

// Voucher is a signed statement. Until it was checked it is anybody's word.
type Voucher struct {
	Signer    Key
	Sum       [sha256.Size]byte // of the piece, or of the chain's bytes
	signature [ed25519.SignatureSize]byte
}

// CheckPiece returns nil if the signer has vouched for piece i of d, with v.Sum,
// and ErrSignature if not. Digest and size of d are looked at.
func (v Voucher) CheckPiece(d blob.Descriptor, i int) error { return v.check(pieceText(d, i, v.Sum)) }

// CheckChain returns nil if the signer has vouched for the chain of d, with
// v.Sum, and ErrSignature if not.
func (v Voucher) CheckChain(d blob.Descriptor) error { return v.check(chainText(d, v.Sum)) }

func (v Voucher) check(text []byte) error {
	if !ed25519.Verify(v.Signer[:], text, v.signature[:]) {
		return ErrSignature
	}
	return nil
}

// What is signed: the name of the kind with its version, the digest (32 bytes),
// the size and, of a piece, its number (8 bytes each, big endian), and the sum.
const (
	pieceName = "shoal piece voucher 1\x00"
	chainName = "shoal chain voucher 1\x00"
)

func pieceText(d blob.Descriptor, i int, sum [sha256.Size]byte) []byte {
	b := blobText(pieceName, d)
	b = binary.BigEndian.AppendUint64(b, uint64(i))
	return append(b, sum[:]...)
}

func chainText(d blob.Descriptor, sum [sha256.Size]byte) []byte {
	return append(blobText(chainName, d), sum[:]...)
}

func blobText(name string, d blob.Descriptor) []byte {
	hash := d.Hash()
	b := append([]byte(name), hash[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(d.Size))
}

// The form of a voucher: the version, the signer's key, the sum, the signature.
const (
	version = 1
	// Size is the length of a voucher in bytes.
	Size = 1 + ed25519.PublicKeySize + sha256.Size + ed25519.SignatureSize
)

// Marshal prints v.
func (v Voucher) Marshal() []byte {
	b := append(make([]byte, 0, Size), version)
	b = append(b, v.Signer[:]...)
	b = append(b, v.Sum[:]...)
	return append(b, v.signature[:]...)
}

// Parse is the inverse of Marshal. Anything else is ErrMalformed. It does not
// check the signature.
func Parse(b []byte) (Voucher, error) {
	if len(b) != Size {
		return Voucher{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	if b[0] != version {
		return Voucher{}, fmt.Errorf("%w: version %d", ErrMalformed, b[0])
	}
	var v Voucher
	rest := b[1:]
	rest = rest[copy(v.Signer[:], rest):]
	rest = rest[copy(v.Sum[:], rest):]
	copy(v.signature[:], rest)
	return v, nil
}

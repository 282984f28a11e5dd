package statement

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"shoal/blobcache/blob"
)

// Endorsement says which chain a blob has. Whoever trusts the signer may let
// bytes out that agree with the chain, before it has closed. It does not age: a
// digest has one chain for ever, so that saying it again later is no lie. The
// time is that of the signing, for people and for clocks that are wrong. Until
// it was checked it is anybody's word.
type Endorsement struct {
	Signer    Key
	Issued    time.Time         // in milliseconds
	Sum       [sha256.Size]byte // of the chain's bytes
	pieceSize uint32            // in bytes
	signature [ed25519.SignatureSize]byte
}

// Endorse says now that the chain of d is the one whose bytes have that SHA-256.
func (s *Signer) Endorse(d blob.Descriptor, sum [sha256.Size]byte, now time.Time) Endorsement {
	e := Endorsement{Signer: s.public, Issued: time.UnixMilli(now.UnixMilli()), Sum: sum, pieceSize: blob.PieceSize}
	copy(e.signature[:], ed25519.Sign(s.private, e.text(d)))
	return e
}

// Check returns nil if the signer has said that of the blob d, of which digest
// and size are looked at. Errors: ErrMalformed if it is about pieces of another
// size than blob.PieceSize, ErrTime if it was signed later than now, ErrSignature.
func (e Endorsement) Check(d blob.Descriptor, now time.Time) error {
	switch early := e.Issued.Sub(now); {
	case e.pieceSize != blob.PieceSize:
		return fmt.Errorf("%w: pieces of %d bytes", ErrMalformed, e.pieceSize)
	case early > Skew:
		return fmt.Errorf("%w: it comes %v too early: look at the clocks", ErrTime, early.Round(time.Second))
	case !ed25519.Verify(e.Signer[:], e.text(d), e.signature[:]):
		return ErrSignature
	}
	return nil
}

// text is what is signed: the name of the kind with its version, digest and size
// as in a voucher, the size of a piece in bytes (4 bytes, big endian), the sum,
// and the time in milliseconds since 1970 (8 bytes, big endian).
func (e Endorsement) text(d blob.Descriptor) []byte {
	b := blobText("shoal chain endorsement 1\x00", d)
	b = binary.BigEndian.AppendUint32(b, e.pieceSize)
	b = append(b, e.Sum[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(e.Issued.UnixMilli()))
}

// The form of an endorsement: the version, the signer's key, time, size of a
// piece and sum as they are signed, the signature.
const (
	endorsementVersion = 1
	// EndorsementSize is the length of an endorsement in bytes.
	EndorsementSize = 1 + ed25519.PublicKeySize + 8 + 4 + sha256.Size + ed25519.SignatureSize
)

// Marshal prints e.
func (e Endorsement) Marshal() []byte {
	b := append(make([]byte, 0, EndorsementSize), endorsementVersion)
	b = append(b, e.Signer[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Issued.UnixMilli()))
	b = binary.BigEndian.AppendUint32(b, e.pieceSize)
	b = append(b, e.Sum[:]...)
	return append(b, e.signature[:]...)
}

// ParseEndorsement is the inverse of Marshal. Anything else is ErrMalformed. It
// does not check the signature.
func ParseEndorsement(b []byte) (Endorsement, error) {
	if len(b) != EndorsementSize {
		return Endorsement{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	if b[0] != endorsementVersion {
		return Endorsement{}, fmt.Errorf("%w: version %d", ErrMalformed, b[0])
	}
	var e Endorsement
	rest := b[1:]
	rest = rest[copy(e.Signer[:], rest):]
	e.Issued = time.UnixMilli(int64(binary.BigEndian.Uint64(rest)))
	e.pieceSize = binary.BigEndian.Uint32(rest[8:])
	rest = rest[12:]
	rest = rest[copy(e.Sum[:], rest):]
	copy(e.signature[:], rest)
	return e, nil
}

package statement

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// Validity is how long an order (an invalidation, a preheat) is good: a swarm hears of it within
	// seconds, and what is not good any more need not be remembered against
	// being said again.
	Validity = 10 * time.Minute
	// Skew is how far clocks may differ: as much as Kerberos allows (RFC 4120,
	// section 5.2.6: five minutes).
	Skew = 5 * time.Minute
	// MaxImage bounds the name of an image, in bytes: registry and repository
	// have at most 255 each, a tag 128, and two characters stand between.
	MaxImage = 2*255 + 128 + 2
)

// ErrTime means that an order is not good any more, or not yet.
var ErrTime = errors.New("statement is not of this time")

// Invalidation asks whoever trusts its signer to forget what is known of an
// image. Until it was checked it is anybody's word.
type Invalidation struct {
	Signer Key
	Issued time.Time // in milliseconds
	// Image is a tag, a digest or a whole repository, as REGISTRY/NAME[:TAG] or
	// REGISTRY/NAME@DIGEST: printable ASCII without spaces, at most MaxImage
	// bytes. Whether it is the name of an image is for the reader to see.
	Image     string
	signature [ed25519.SignatureSize]byte
}

// Invalidate says now that image is to be forgotten.
func (s *Signer) Invalidate(image string, now time.Time) (Invalidation, error) {
	if err := checkImage(image); err != nil {
		return Invalidation{}, err
	}
	i := Invalidation{Signer: s.public, Issued: time.UnixMilli(now.UnixMilli()), Image: image}
	copy(i.signature[:], ed25519.Sign(s.private, i.text()))
	return i, nil
}

func checkImage(image string) error {
	if image == "" || len(image) > MaxImage || strings.ContainsFunc(image, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%w: no name of an image", ErrMalformed)
	}
	return nil
}

// Check returns nil if the signer has said that, and it is good at the time now.
// Errors: ErrTime, ErrSignature.
func (i Invalidation) Check(now time.Time) error {
	if err := timely(i.Issued, now); err != nil {
		return err
	}
	if !ed25519.Verify(i.Signer[:], i.text(), i.signature[:]) {
		return ErrSignature
	}
	return nil
}

// timely returns nil if what was said at the time issued is good at the time now.
// Error: ErrTime.
func timely(issued, now time.Time) error {
	switch age := now.Sub(issued); {
	case age < -Skew:
		return fmt.Errorf("%w: it comes %v too early: look at the clocks", ErrTime, -age.Round(time.Second))
	case age > Validity+Skew:
		return fmt.Errorf("%w: it is %v old", ErrTime, age.Round(time.Second))
	}
	return nil
}

// text is what is signed: the name of the kind with its version, the time in
// milliseconds since 1970 (8 bytes, big endian), and the image.
func (i Invalidation) text() []byte {
	b := binary.BigEndian.AppendUint64([]byte("shoal invalidation 1\x00"), uint64(i.Issued.UnixMilli()))
	return append(b, i.Image...)
}

// The form of an invalidation: the version, the signer's key, the time as it is
// signed, the image, the signature.
const (
	invalidationVersion = 1
	invalidationHead    = 1 + ed25519.PublicKeySize + 8
	// MaxInvalidation is the largest length of an invalidation in bytes.
	MaxInvalidation = invalidationHead + MaxImage + ed25519.SignatureSize
)

// Marshal prints i.
func (i Invalidation) Marshal() []byte {
	b := append(make([]byte, 0, MaxInvalidation), invalidationVersion)
	b = append(b, i.Signer[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(i.Issued.UnixMilli()))
	b = append(b, i.Image...)
	return append(b, i.signature[:]...)
}

// ParseInvalidation is the inverse of Marshal. Anything else is ErrMalformed. It
// does not check the signature.
func ParseInvalidation(b []byte) (Invalidation, error) {
	if len(b) < invalidationHead+ed25519.SignatureSize || len(b) > MaxInvalidation {
		return Invalidation{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	if b[0] != invalidationVersion {
		return Invalidation{}, fmt.Errorf("%w: version %d", ErrMalformed, b[0])
	}
	var i Invalidation
	copy(i.Signer[:], b[1:])
	i.Issued = time.UnixMilli(int64(binary.BigEndian.Uint64(b[invalidationHead-8:])))
	end := len(b) - ed25519.SignatureSize
	i.Image = string(b[invalidationHead:end])
	copy(i.signature[:], b[end:])
	return i, checkImage(i.Image)
}

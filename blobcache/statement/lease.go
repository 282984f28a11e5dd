package statement

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

const (
	// MaxLease bounds for how long a lease may be good: a node that cannot ask a
	// registry is held at what a seeder saw for no longer.
	MaxLease = time.Hour
	// LeaseSkew is how far clocks may differ where leases are concerned: less than
	// Skew, because a lease is good for minutes, and NTP keeps clocks within less.
	LeaseSkew = 30 * time.Second
	// maxMediaType bounds the length of a media type, in bytes: each of its two
	// parts has at most 127 (RFC 6838, section 4.2).
	maxMediaType = 255
)

// Lease says what a registry told the signer that a tag is, and until when whoever
// trusts the signer may take its word for that. Until it was checked it is
// anybody's word.
type Lease struct {
	Signer Key
	// Tag is REGISTRY/NAME:TAG: printable ASCII without spaces, at most MaxImage
	// bytes. Whether it is the name of a tag is for the reader to see.
	Tag           string
	Manifest      blob.Descriptor // with size and media type
	Issued, Until time.Time       // in milliseconds
	signature     [ed25519.SignatureSize]byte
}

// Lease says that at the time now tag is the manifest, and may be believed to be
// for as long as validity.
func (s *Signer) Lease(tag string, manifest blob.Descriptor, now time.Time, validity time.Duration) (Lease, error) {
	l := Lease{
		Signer: s.public, Tag: tag, Manifest: manifest,
		Issued: time.UnixMilli(now.UnixMilli()), Until: time.UnixMilli(now.Add(validity).UnixMilli()),
	}
	if err := l.check(); err != nil {
		return Lease{}, err
	}
	copy(l.signature[:], ed25519.Sign(s.private, l.text()))
	return l, nil
}

// check returns why l cannot be a lease of anybody, or nil.
func (l Lease) check() error {
	if err := checkImage(l.Tag); err != nil {
		return err
	}
	if _, err := blob.ParseDigest(l.Manifest.Digest.String()); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	validity := l.Until.Sub(l.Issued)
	unprintable := func(r rune) bool { return r <= ' ' || r > '~' }
	switch t := l.Manifest.MediaType; {
	case l.Manifest.Size < 0 || l.Manifest.Size > blob.MaxSize:
		return fmt.Errorf("%w: a manifest of %d bytes", ErrMalformed, l.Manifest.Size)
	case t == "" || len(t) > maxMediaType || strings.ContainsFunc(t, unprintable):
		return fmt.Errorf("%w: no media type", ErrMalformed)
	case validity <= 0 || validity > MaxLease:
		return fmt.Errorf("%w: a lease of %v", ErrMalformed, validity)
	}
	return nil
}

// Check returns nil if the signer has said that, and it is good at the time now.
// Errors: ErrTime, ErrSignature.
func (l Lease) Check(now time.Time) error {
	if err := l.Good(now); err != nil {
		return err
	}
	if !ed25519.Verify(l.Signer[:], l.text(), l.signature[:]) {
		return ErrSignature
	}
	return nil
}

// Good is Check of a lease that was checked before: only time has passed.
func (l Lease) Good(now time.Time) error {
	switch early, late := l.Issued.Sub(now), now.Sub(l.Until); {
	case early > LeaseSkew:
		return fmt.Errorf("%w: it comes %v too early: look at the clocks", ErrTime, early.Round(time.Second))
	case late > LeaseSkew:
		return fmt.Errorf("%w: it ended %v ago", ErrTime, late.Round(time.Second))
	}
	return nil
}

// text is what is signed: the name of the kind with its version, and what stands
// in a printed lease between the signer's key and the signature.
func (l Lease) text() []byte { return l.appendBody([]byte("shoal tag lease 1\x00")) }

// appendBody appends the times in milliseconds since 1970 and the size of the
// manifest (8 bytes each, big endian), its digest (32 bytes), the length of its
// media type (1 byte), the media type, and the tag.
func (l Lease) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(l.Issued.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Until.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Manifest.Size))
	hash := l.Manifest.Hash()
	b = append(b, hash[:]...)
	b = append(b, byte(len(l.Manifest.MediaType)))
	b = append(b, l.Manifest.MediaType...)
	return append(b, l.Tag...)
}

// The form of a lease: the version, the signer's key, the body, the signature.
const (
	leaseVersion = 1
	leaseHead    = 1 + ed25519.PublicKeySize
	leaseFixed   = 3*8 + 32 + 1 // of the body
	// MaxLeaseSize is the largest length of a lease in bytes.
	MaxLeaseSize = leaseHead + leaseFixed + maxMediaType + MaxImage + ed25519.SignatureSize
)

// Marshal prints l.
func (l Lease) Marshal() []byte {
	b := append(make([]byte, 0, MaxLeaseSize), leaseVersion)
	b = append(b, l.Signer[:]...)
	b = l.appendBody(b)
	return append(b, l.signature[:]...)
}

// ParseLease is the inverse of Marshal. Anything else is ErrMalformed. It does not
// check the signature, nor whether the lease is of this time.
func ParseLease(b []byte) (Lease, error) {
	if len(b) < leaseHead+leaseFixed+ed25519.SignatureSize || len(b) > MaxLeaseSize {
		return Lease{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	if b[0] != leaseVersion {
		return Lease{}, fmt.Errorf("%w: version %d", ErrMalformed, b[0])
	}
	var l Lease
	copy(l.Signer[:], b[1:])
	end := len(b) - ed25519.SignatureSize
	copy(l.signature[:], b[end:])
	body := b[leaseHead:end]
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(body[8*i:])) }
	l.Issued, l.Until, l.Manifest.Size = time.UnixMilli(number(0)), time.UnixMilli(number(1)), number(2)
	l.Manifest.Digest = digest.NewDigestFromBytes(digest.SHA256, body[3*8:3*8+32])
	text, length := body[leaseFixed:], int(body[leaseFixed-1])
	if length > len(text) {
		return Lease{}, fmt.Errorf("%w: a cut media type", ErrMalformed)
	}
	l.Manifest.MediaType, l.Tag = string(text[:length]), string(text[length:])
	return l, l.check()
}

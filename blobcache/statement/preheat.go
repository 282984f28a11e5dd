package statement

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Who is to fetch what a preheat names.
const (
	ToAll     = "all"      // whoever is asked
	toZone    = "zone:"    // whoever is asked and in the zone
	toMembers = "members:" // those of the IDs, with commas between
	// MaxMembers bounds the IDs: a preheat must fit into a push of members.
	MaxMembers = 40
	maxTo      = 2560
	// maxPlatforms bounds the platforms of a preheat, in bytes.
	maxPlatforms = 512
)

// ToZone is everybody in a zone.
func ToZone(zone string) string { return toZone + zone }

// ToMembers is those members, by peer ID.
func ToMembers(ids ...string) string { return toMembers + strings.Join(ids, ",") }

// Preheat asks members that trust its signer to fetch an image. Until it was
// checked it is anybody's word.
type Preheat struct {
	Signer Key
	Issued time.Time // in milliseconds
	Image  string    // as in an Invalidation, with a tag or a digest
	// Platforms are OS/ARCHITECTURE[/VARIANT] with commas between; empty is each
	// member's own.
	Platforms string
	To        string // ToAll, ToZone or ToMembers
	signature [ed25519.SignatureSize]byte
}

// Preheat says now that p, of which Image, Platforms and To count, is to be done.
func (s *Signer) Preheat(p Preheat, now time.Time) (Preheat, error) {
	p.Signer, p.Issued = s.public, time.UnixMilli(now.UnixMilli())
	if err := p.check(); err != nil {
		return Preheat{}, err
	}
	copy(p.signature[:], ed25519.Sign(s.private, p.text()))
	return p, nil
}

func (p Preheat) check() error {
	if err := checkImage(p.Image); err != nil {
		return err
	}
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	members, byID := strings.CutPrefix(p.To, toMembers)
	switch {
	case len(p.Platforms) > maxPlatforms || strings.ContainsFunc(p.Platforms, odd):
		return fmt.Errorf("%w: no platforms", ErrMalformed)
	case len(p.To) > maxTo || strings.ContainsFunc(p.To, odd),
		p.To != ToAll && !strings.HasPrefix(p.To, toZone) && !byID,
		byID && strings.Count(members, ",") >= MaxMembers:
		return fmt.Errorf("%w: it says not who is meant", ErrMalformed)
	}
	return nil
}

// For tells whether a member is meant.
func (p Preheat) For(id, zone string) bool {
	if members, ok := strings.CutPrefix(p.To, toMembers); ok {
		return slices.Contains(strings.Split(members, ","), id)
	}
	return p.To == ToAll || p.To == ToZone(zone)
}

// Check returns nil if the signer has said that, and it is good at the time now.
// Errors: ErrTime, ErrSignature.
func (p Preheat) Check(now time.Time) error {
	if err := timely(p.Issued, now); err != nil {
		return err
	}
	if !ed25519.Verify(p.Signer[:], p.text(), p.signature[:]) {
		return ErrSignature
	}
	return nil
}

// text is what is signed: the name of the kind with its version, the time in
// milliseconds since 1970 (8 bytes, big endian), and lines, none of which has a
// line break in it: image, platforms, to.
func (p Preheat) text() []byte {
	return append([]byte("shoal preheat 1\x00"), p.said()...)
}

func (p Preheat) said() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.Issued.UnixMilli()))
	return append(b, p.Image+"\n"+p.Platforms+"\n"+p.To...)
}

// The form of a preheat: the version, the signer's key, what is signed behind the
// name, the signature.
const (
	preheatVersion = 1
	preheatHead    = 1 + ed25519.PublicKeySize + 8
	// MaxPreheat is the largest length of a preheat in bytes.
	MaxPreheat = preheatHead + MaxImage + maxPlatforms + maxTo + 2 + ed25519.SignatureSize
)

// Marshal prints p.
func (p Preheat) Marshal() []byte {
	b := append([]byte{preheatVersion}, p.Signer[:]...)
	b = append(b, p.said()...)
	return append(b, p.signature[:]...)
}

// ParsePreheat is the inverse of Marshal. Anything else is ErrMalformed. It does
// not check the signature.
func ParsePreheat(b []byte) (Preheat, error) {
	if len(b) < preheatHead+ed25519.SignatureSize || len(b) > MaxPreheat {
		return Preheat{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	if b[0] != preheatVersion {
		return Preheat{}, fmt.Errorf("%w: version %d", ErrMalformed, b[0])
	}
	var p Preheat
	copy(p.Signer[:], b[1:])
	p.Issued = time.UnixMilli(int64(binary.BigEndian.Uint64(b[preheatHead-8:])))
	end := len(b) - ed25519.SignatureSize
	lines := strings.Split(string(b[preheatHead:end]), "\n")
	if len(lines) != 3 {
		return Preheat{}, fmt.Errorf("%w: %d lines", ErrMalformed, len(lines))
	}
	p.Image, p.Platforms, p.To = lines[0], lines[1], lines[2]
	copy(p.signature[:], b[end:])
	return p, p.check()
}

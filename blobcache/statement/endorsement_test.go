package statement

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

func TestEndorsement(t *testing.T) {
	d, sum := sample()
	e := signer(t, 1).Endorse(d, sum, issued)
	if e.Sum != sum || !e.Issued.Equal(issued) || e.Signer != signer(t, 1).public || e.Check(d, issued) != nil {
		t.Errorf("%+v, %v", e, e.Check(d, issued))
	}
	d.MediaType = "application/octet-stream"
	if err := e.Check(d, issued); err != nil {
		t.Errorf("the media type is no part of it: %v", err)
	}
	got, err := ParseEndorsement(e.Marshal())
	if err != nil || !bytes.Equal(got.Marshal(), e.Marshal()) || got.Check(d, issued) != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// It is good from a bit before, for clocks that differ, and for ever.
func TestTimeOfEndorsements(t *testing.T) {
	d, sum := sample()
	e := signer(t, 1).Endorse(d, sum, issued)
	for after, good := range map[time.Duration]bool{
		-Skew - time.Millisecond: false, -Skew: true, 0: true, 20 * 365 * 24 * time.Hour: true, math.MinInt64: false,
	} {
		if err := e.Check(d, issued.Add(after)); (err == nil) != good || err != nil && !errors.Is(err, ErrTime) {
			t.Errorf("%v after: %v", after, err)
		}
	}
}

// With any part of it changed, by whomever, and of another blob, it says nothing.
func TestTamperingWithEndorsements(t *testing.T) {
	d, sum := sample()
	s := signer(t, 1)
	other := blob.Descriptor{Digest: digest.FromString("another"), Size: d.Size}
	longer := blob.Descriptor{Digest: d.Digest, Size: d.Size + 1}
	e := s.Endorse(d, sum, issued)
	forged := func(change func(*Endorsement)) error {
		f := e
		change(&f)
		return f.Check(d, issued)
	}
	for name, err := range map[string]error{
		"said again of another blob": e.Check(other, issued),
		"of another size":            e.Check(longer, issued),
		"sum":                        forged(func(e *Endorsement) { e.Sum[0] ^= 1 }),
		"time":                       forged(func(e *Endorsement) { e.Issued = e.Issued.Add(time.Millisecond) }),
		"signer":                     forged(func(e *Endorsement) { e.Signer = signer(t, 2).public }),
		"signature":                  forged(func(e *Endorsement) { e.signature[0] ^= 1 }),
		"a voucher's signature":      forged(func(e *Endorsement) { e.signature = s.Chain(d, sum).signature }),
		"none":                       forged(func(e *Endorsement) { e.signature = [64]byte{} }),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := forged(func(e *Endorsement) { e.pieceSize *= 2 }); !errors.Is(err, ErrMalformed) {
		t.Errorf("other pieces: %v", err)
	}
	b := e.Marshal()
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		e, err := ParseEndorsement(b)
		if err == nil {
			err = e.Check(d, issued)
		}
		if err == nil {
			t.Errorf("bit %d is of no account", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// What is signed and sent is part of the protocol: this is a vector, not a
// round trip.
func TestFormOfEndorsements(t *testing.T) {
	d, sum := sample()
	b := signer(t, 1).Endorse(d, sum, issued).Marshal()
	const when = "\x00\x00\x01\x9b\x7c\xa9\x8f\x2e"
	hash := d.Hash()
	if len(b) != EndorsementSize || EndorsementSize != 141 || b[0] != 1 || string(b[33:41]) != when || hex.EncodeToString(b[41:45]) != "00100000" || !bytes.Equal(b[45:77], sum[:]) {
		t.Errorf("an endorsement has another form: %s", hex.EncodeToString(b))
	}
	text := "shoal chain endorsement 1\x00" + string(hash[:]) + "\x00\x00\x00\x00\x00\x70\x00\x00" + "\x00\x10\x00\x00" + string(sum[:]) + when
	if !ed25519.Verify(b[1:33], []byte(text), b[77:]) {
		t.Errorf("an endorsement has another form: %s", hex.EncodeToString(b))
	}
}

func TestParseEndorsement(t *testing.T) {
	d, sum := sample()
	b := signer(t, 1).Endorse(d, sum, issued).Marshal()
	for name, b := range map[string][]byte{"nothing": nil, "short": b[1:], "long": append(b[:len(b):len(b)], 0), "a newer version": append([]byte{2}, b[1:]...)} {
		if _, err := ParseEndorsement(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever comes in, what parses prints as it came, and passes as the word of a
// signer only if that one gave it.
func FuzzParseEndorsement(f *testing.F) {
	d, sum := sample()
	s := signer(f, 1)
	f.Add(s.Endorse(d, sum, issued).Marshal())
	f.Add([]byte{endorsementVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEndorsement(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%x: %v", b, err)
			}
			return
		}
		if !bytes.Equal(e.Marshal(), b) {
			t.Errorf("%x prints as %x", b, e.Marshal())
		}
		if e.Signer == s.public && e.Check(d, issued) == nil && e != s.Endorse(d, e.Sum, e.Issued) {
			t.Errorf("%x passes", b)
		}
	})
}

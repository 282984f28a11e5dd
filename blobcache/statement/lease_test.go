package statement

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

func leased() blob.Descriptor {
	return blob.Descriptor{Digest: digest.FromString("a manifest"), Size: 1234, MediaType: "application/vnd.oci.image.index.v1+json"}
}

func lease(tb testing.TB) Lease {
	tb.Helper()
	l, err := signer(tb, 1).Lease(image, leased(), issued, 5*time.Minute)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func TestLease(t *testing.T) {
	l := lease(t)
	if l.Tag != image || l.Manifest != leased() || !l.Issued.Equal(issued) || !l.Until.Equal(issued.Add(5*time.Minute)) || l.Check(issued) != nil {
		t.Errorf("%+v, %v", l, l.Check(issued))
	}
	got, err := ParseLease(l.Marshal())
	if err != nil || !bytes.Equal(got.Marshal(), l.Marshal()) || got.Manifest != leased() || got.Check(issued) != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// It is good from a bit before, for clocks that differ, to a bit after its end.
func TestTimeOfLeases(t *testing.T) {
	l := lease(t)
	for after, good := range map[time.Duration]bool{
		-LeaseSkew - time.Millisecond: false, -LeaseSkew: true, 0: true, 5 * time.Minute: true,
		5*time.Minute + LeaseSkew: true, 5*time.Minute + LeaseSkew + time.Millisecond: false,
		24 * time.Hour: false, -24 * time.Hour: false, math.MaxInt64: false, math.MinInt64: false,
	} {
		if err := l.Check(issued.Add(after)); (err == nil) != good || err != nil && !errors.Is(err, ErrTime) {
			t.Errorf("%v after: %v", after, err)
		}
	}
}

// With any part of it changed, by whomever, it says nothing.
func TestTamperingWithLeases(t *testing.T) {
	forged := func(change func(*Lease)) error {
		l := lease(t)
		change(&l)
		return l.Check(issued)
	}
	for name, err := range map[string]error{
		"tag":        forged(func(l *Lease) { l.Tag += "0" }),
		"digest":     forged(func(l *Lease) { l.Manifest.Digest = digest.FromString("another") }),
		"size":       forged(func(l *Lease) { l.Manifest.Size++ }),
		"media type": forged(func(l *Lease) { l.Manifest.MediaType += "x" }),
		"moved":      forged(func(l *Lease) { l.Manifest.MediaType += "d"; l.Tag = l.Tag[1:] }),
		"issued":     forged(func(l *Lease) { l.Issued = l.Issued.Add(time.Millisecond) }),
		"longer":     forged(func(l *Lease) { l.Until = l.Until.Add(time.Millisecond) }),
		"signer":     forged(func(l *Lease) { l.Signer = signer(t, 2).public }),
		"signature":  forged(func(l *Lease) { l.signature[0] ^= 1 }),
		"none":       forged(func(l *Lease) { l.signature = [64]byte{} }),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := lease(t).Marshal()
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		l, err := ParseLease(b)
		if err == nil {
			err = l.Check(issued)
		}
		if err == nil {
			t.Errorf("bit %d is of no account", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// What is signed and sent is part of the protocol: this is a vector, not a
// round trip.
func TestFormOfLeases(t *testing.T) {
	b := lease(t).Marshal()
	hash := leased().Hash()
	body := "\x00\x00\x01\x9b\x7c\xa9\x8f\x2e" + "\x00\x00\x01\x9b\x7c\xae\x23\x0e" + "\x00\x00\x00\x00\x00\x00\x04\xd2" +
		string(hash[:]) + "\x27application/vnd.oci.image.index.v1+json" + image
	if end := len(b) - 64; b[0] != 1 || string(b[33:end]) != body || !ed25519.Verify(b[1:33], []byte("shoal tag lease 1\x00"+body), b[end:]) {
		t.Errorf("a lease has another form: %x", b)
	}
}

func TestNoLeases(t *testing.T) {
	s := signer(t, 1)
	type change func(tag *string, d *blob.Descriptor, validity *time.Duration)
	for name, change := range map[string]change{
		"no tag":        func(tag *string, _ *blob.Descriptor, _ *time.Duration) { *tag = "" },
		"a long tag":    func(tag *string, _ *blob.Descriptor, _ *time.Duration) { *tag = strings.Repeat("a", MaxImage+1) },
		"a line break":  func(tag *string, _ *blob.Descriptor, _ *time.Duration) { *tag = "a\nb" },
		"no digest":     func(_ *string, d *blob.Descriptor, _ *time.Duration) { d.Digest = "" },
		"no size":       func(_ *string, d *blob.Descriptor, _ *time.Duration) { d.Size = blob.UnknownSize },
		"no media type": func(_ *string, d *blob.Descriptor, _ *time.Duration) { d.MediaType = "" },
		"a long one":    func(_ *string, d *blob.Descriptor, _ *time.Duration) { d.MediaType = strings.Repeat("a", 256) },
		"no time":       func(_ *string, _ *blob.Descriptor, v *time.Duration) { *v = 0 },
		"too long":      func(_ *string, _ *blob.Descriptor, v *time.Duration) { *v = MaxLease + time.Millisecond },
	} {
		tag, d, validity := image, leased(), MaxLease
		change(&tag, &d, &validity)
		if l, err := s.Lease(tag, d, issued, validity); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	b := lease(t).Marshal()
	for name, b := range map[string][]byte{
		"nothing": nil, "short": b[:150], "long": append(bytes.Clone(b), make([]byte, MaxLeaseSize)...), "a newer version": append([]byte{2}, b[1:]...),
		"a cut media type": append(append(bytes.Clone(b[:leaseHead+leaseFixed-1]), 255), b[leaseHead+leaseFixed:]...),
	} {
		if _, err := ParseLease(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever comes in, what parses prints as it came, and passes as the word of a
// signer only if that one gave it.
func FuzzParseLease(f *testing.F) {
	s := signer(f, 1)
	f.Add(lease(f).Marshal())
	f.Add([]byte{leaseVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLease(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%x: %v", b, err)
			}
			return
		}
		if !bytes.Equal(l.Marshal(), b) {
			t.Errorf("%x prints as %x", b, l.Marshal())
		}
		if again, err := s.Lease(l.Tag, l.Manifest, l.Issued, l.Until.Sub(l.Issued)); l.Signer == s.public && l.Check(l.Issued) == nil && (err != nil || again != l) {
			t.Errorf("%x passes", b)
		}
	})
}

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

const image = "docker.io/library/nginx:1.27"

var issued = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

func invalidation(tb testing.TB) Invalidation {
	tb.Helper()
	i, err := signer(tb, 1).Invalidate(image, issued)
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

func TestInvalidation(t *testing.T) {
	i := invalidation(t)
	if i.Image != image || !i.Issued.Equal(issued) || i.Signer != signer(t, 1).public || i.Check(issued) != nil {
		t.Errorf("%+v, %v", i, i.Check(issued))
	}
	got, err := ParseInvalidation(i.Marshal())
	if err != nil || !bytes.Equal(got.Marshal(), i.Marshal()) || got.Check(issued) != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// It is good from a bit before, for clocks that differ, to ten minutes and a bit
// after.
func TestTimeOfInvalidations(t *testing.T) {
	i := invalidation(t)
	for after, good := range map[time.Duration]bool{
		-Skew - time.Millisecond: false, -Skew: true, 0: true, Validity: true, Validity + Skew: true, Validity + Skew + time.Millisecond: false,
		24 * time.Hour: false, -24 * time.Hour: false, math.MaxInt64: false, math.MinInt64: false,
	} {
		if err := i.Check(issued.Add(after)); (err == nil) != good || err != nil && !errors.Is(err, ErrTime) {
			t.Errorf("%v after: %v", after, err)
		}
	}
}

// With any part of it changed, by whomever, it says nothing.
func TestTamperingWithInvalidations(t *testing.T) {
	forged := func(change func(*Invalidation)) error {
		i := invalidation(t)
		change(&i)
		return i.Check(issued)
	}
	for name, err := range map[string]error{
		"image":     forged(func(i *Invalidation) { i.Image = "docker.io/library/nginx:1.28" }),
		"longer":    forged(func(i *Invalidation) { i.Image += "7" }),
		"time":      forged(func(i *Invalidation) { i.Issued = i.Issued.Add(time.Millisecond) }),
		"signer":    forged(func(i *Invalidation) { i.Signer = signer(t, 2).public }),
		"signature": forged(func(i *Invalidation) { i.signature[0] ^= 1 }),
		"none":      forged(func(i *Invalidation) { i.signature = [64]byte{} }),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := invalidation(t).Marshal()
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		i, err := ParseInvalidation(b)
		if err == nil {
			err = i.Check(issued)
		}
		if err == nil {
			t.Errorf("bit %d is of no account", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	// What the same key signed of a blob is no invalidation, nor the reverse.
	d := blob.Descriptor{Digest: digest.FromString("a blob"), Size: 10}
	v := signer(t, 1).Piece(d, 0, [32]byte{})
	i := invalidation(t)
	i.signature = v.signature
	v.signature = invalidation(t).signature
	if i.Check(issued) == nil || v.CheckPiece(d, 0) == nil || v.CheckChain(d) == nil {
		t.Error("one statement passes for another")
	}
}

// What is signed and sent is part of the protocol: this is a vector, not a
// round trip.
func TestFormOfInvalidations(t *testing.T) {
	b := invalidation(t).Marshal()
	stamp := "\x00\x00\x01\x9b\x7c\xa9\x8f\x2e"
	if want := "\x01" + string(signer(t, 1).public[:]) + stamp + image; string(b[:len(b)-64]) != want {
		t.Errorf("%x, want %x", b[:len(b)-64], want)
	}
	if !ed25519.Verify(b[1:33], []byte("shoal invalidation 1\x00"+stamp+image), b[len(b)-64:]) {
		t.Errorf("an invalidation has another form: %x", b)
	}
}

func TestMalformedInvalidations(t *testing.T) {
	b := invalidation(t).Marshal()
	newer := append([]byte{2}, b[1:]...)
	spaced := bytes.Replace(b, []byte("nginx:"), []byte("nginx "), 1)
	broken := bytes.Replace(b, []byte("nginx:"), []byte("nginx\n"), 1)
	for name, b := range map[string][]byte{
		"nothing": nil, "a newer version": newer, "no image": append(bytes.Clone(b[:invalidationHead]), b[len(b)-64:]...),
		"short": b[:invalidationHead+10], "long": append(bytes.Clone(b), make([]byte, MaxImage)...), "a space": spaced, "a line break": broken,
	} {
		if i, err := ParseInvalidation(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
	for _, image := range []string{"", "a b", "a\n", "ä", strings.Repeat("a", MaxImage+1)} {
		if _, err := signer(t, 1).Invalidate(image, issued); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.20q: %v", image, err)
		}
	}
	i, err := signer(t, 1).Invalidate(strings.Repeat("a", MaxImage), issued)
	if _, errParse := ParseInvalidation(i.Marshal()); err != nil || errParse != nil || len(i.Marshal()) != MaxInvalidation {
		t.Errorf("the largest has %d bytes: %v, %v", len(i.Marshal()), err, errParse)
	}
}

// Whatever comes in, what parses prints as it came, can go into a log line, and
// passes as a statement of a signer only if that one made it.
func FuzzParseInvalidation(f *testing.F) {
	s := signer(f, 1)
	f.Add(invalidation(f).Marshal())
	f.Add([]byte{invalidationVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := ParseInvalidation(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%x: %v", b, err)
			}
			return
		}
		if !bytes.Equal(i.Marshal(), b) || len(i.Image) > MaxImage || strings.ContainsAny(i.Image, "\n\r\x1b ") {
			t.Errorf("%x prints as %x", b, i.Marshal())
		}
		if i.Signer == s.public && i.Check(i.Issued) == nil {
			if made, err := s.Invalidate(i.Image, i.Issued); err != nil || !bytes.Equal(made.Marshal(), b) {
				t.Errorf("%x passes", b)
			}
		}
	})
}

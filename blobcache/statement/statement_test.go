package statement

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// signer returns the same signer for the same seed.
func signer(tb testing.TB, seed byte) *Signer {
	tb.Helper()
	s, err := NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func sample() (d blob.Descriptor, sum [sha256.Size]byte) {
	return blob.Descriptor{Digest: digest.FromString("a blob"), Size: 7 * blob.PieceSize}, sha256.Sum256([]byte("a piece"))
}

func TestVouchers(t *testing.T) {
	s := signer(t, 1)
	d, sum := sample()
	piece, chain := s.Piece(d, 3, sum), s.Chain(d, sum)
	if err := piece.CheckPiece(d, 3); err != nil {
		t.Errorf("piece: %v", err)
	}
	if err := chain.CheckChain(d); err != nil {
		t.Errorf("chain: %v", err)
	}
	d.MediaType = "application/octet-stream"
	if err := errors.Join(piece.CheckPiece(d, 3), chain.CheckChain(d)); err != nil {
		t.Errorf("the media type is no part of it: %v", err)
	}
	if piece.Sum != sum || piece.Signer != chain.Signer || piece.Signer == signer(t, 2).Piece(d, 3, sum).Signer {
		t.Error("sum or signer is not what it should be")
	}
}

// A voucher says one thing: with any part of it changed, by whomever, it says
// nothing.
func TestTampering(t *testing.T) {
	s := signer(t, 1)
	d, sum := sample()
	other := blob.Descriptor{Digest: digest.FromString("another"), Size: d.Size}
	longer := blob.Descriptor{Digest: d.Digest, Size: d.Size + 1}
	forged := func(v Voucher, change func(*Voucher)) Voucher { change(&v); return v }
	piece, chain := s.Piece(d, 3, sum), s.Chain(d, sum)
	for name, err := range map[string]error{
		"piece: digest":    piece.CheckPiece(other, 3),
		"piece: size":      piece.CheckPiece(longer, 3),
		"piece: index":     piece.CheckPiece(d, 4),
		"piece: no index":  piece.CheckPiece(d, -1),
		"piece: sum":       forged(piece, func(v *Voucher) { v.Sum[31] ^= 1 }).CheckPiece(d, 3),
		"piece: signer":    forged(piece, func(v *Voucher) { v.Signer = signer(t, 2).public }).CheckPiece(d, 3),
		"piece: no key":    forged(piece, func(v *Voucher) { v.Signer = Key{} }).CheckPiece(d, 3),
		"piece: signature": forged(piece, func(v *Voucher) { v.signature[0] ^= 1 }).CheckPiece(d, 3),
		"piece: as chain":  piece.CheckChain(d),
		"chain: digest":    chain.CheckChain(other),
		"chain: size":      chain.CheckChain(longer),
		"chain: sum":       forged(chain, func(v *Voucher) { v.Sum[0] ^= 1 }).CheckChain(d),
		"chain: signer":    forged(chain, func(v *Voucher) { v.Signer = signer(t, 2).public }).CheckChain(d),
		"chain: signature": forged(chain, func(v *Voucher) { v.signature[63] ^= 1 }).CheckChain(d),
		"chain: as piece":  chain.CheckPiece(d, 0),
		"none":             Voucher{}.CheckPiece(d, 3),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every bit of the printed form counts.
func TestEveryBitCounts(t *testing.T) {
	d, sum := sample()
	b := signer(t, 1).Piece(d, 0, sum).Marshal()
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		v, err := Parse(b)
		if err == nil {
			err = v.CheckPiece(d, 0)
		}
		if err == nil {
			t.Errorf("bit %d is of no account", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// What is signed and sent is part of the protocol: this is a vector, not a
// round trip.
func TestForm(t *testing.T) {
	d, sum := sample()
	b := signer(t, 1).Piece(d, 3, sum).Marshal()
	if len(b) != Size || Size != 129 || b[0] != 1 {
		t.Errorf("%d bytes, version %d", len(b), b[0])
	}
	hash := d.Hash()
	text := "shoal piece voucher 1\x00" + string(hash[:]) + "\x00\x00\x00\x00\x00\x70\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x03" + string(sum[:])
	if !ed25519.Verify(b[1:33], []byte(text), b[65:]) || !bytes.Equal(b[33:65], sum[:]) {
		t.Errorf("a piece voucher has another form: %s", hex.EncodeToString(b))
	}
	c := signer(t, 1).Chain(d, sum).Marshal()
	text = "shoal chain voucher 1\x00" + string(hash[:]) + "\x00\x00\x00\x00\x00\x70\x00\x00" + string(sum[:])
	if !ed25519.Verify(c[1:33], []byte(text), c[65:]) {
		t.Errorf("a chain voucher has another form: %s", hex.EncodeToString(c))
	}
}

func TestParse(t *testing.T) {
	d, sum := sample()
	want := signer(t, 1).Chain(d, sum)
	got, err := Parse(want.Marshal())
	if err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	b := want.Marshal()
	newer := append([]byte{2}, b[1:]...)
	for name, b := range map[string][]byte{"nothing": nil, "short": b[1:], "long": append(b, 0), "a newer version": newer} {
		if _, err := Parse(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewSigner(t *testing.T) {
	for _, n := range []int{0, ed25519.SeedSize, ed25519.PrivateKeySize + 1} {
		if _, err := NewSigner(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes", n)
		}
	}
}

// Whatever comes in, what parses prints as it came, and passes as a statement
// of a signer only if that one made it. (A key of small order has no owner:
// all zeros are one, and some signatures pass for it.)
func FuzzParse(f *testing.F) {
	d, sum := sample()
	s := signer(f, 1)
	f.Add(s.Piece(d, 3, sum).Marshal())
	f.Add(s.Chain(d, sum).Marshal())
	f.Add([]byte{version})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%x: %v", b, err)
			}
			return
		}
		if !bytes.Equal(v.Marshal(), b) {
			t.Errorf("%x prints as %x", b, v.Marshal())
		}
		if v.Signer == s.public && v.CheckPiece(d, 3) == nil && v != s.Piece(d, 3, v.Sum) {
			t.Errorf("%x passes", b)
		}
		if v.Signer == s.public && v.CheckChain(d) == nil && v != s.Chain(d, v.Sum) {
			t.Errorf("%x passes as a chain voucher", b)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	d, sum := sample()
	v := signer(b, 1).Piece(d, 3, sum)
	b.ReportAllocs()
	for b.Loop() {
		if err := v.CheckPiece(d, 3); err != nil {
			b.Fatal(err)
		}
	}
}

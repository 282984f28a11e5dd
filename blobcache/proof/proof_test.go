package proof

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

const mib = blob.PieceSize

// sizes are where the padding of SHA-256 or the cut into pieces changes.
func sizes() []int {
	s := []int{0, 1}
	for n := 55; n <= 64; n++ {
		s = append(s, n)
	}
	for k := 1; k <= 3; k++ {
		s = append(s, k*mib-1, k*mib, k*mib+1)
	}
	return s
}

func random(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func describe(content []byte) blob.Descriptor {
	return blob.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func piece(content []byte, i int) []byte {
	r := blob.Piece(i, int64(len(content)))
	return content[r.Offset : r.Offset+r.Length]
}

func chainOf(t *testing.T, content []byte) Chain {
	t.Helper()
	h := NewHasher()
	h.Write(content)
	c, ok := h.Chain()
	if !ok {
		t.Fatal("chains are not supported")
	}
	return c
}

func TestChainsAreSupportedHere(t *testing.T) {
	if !Supported() {
		t.Fatal("the layout of crypto/sha256's state has changed")
	}
}

// The states of blobs of one repeated byte, by an implementation that is not
// this one, so that both cannot be wrong in the same way.
func TestVectors(t *testing.T) {
	for _, v := range vectors {
		content := bytes.Repeat([]byte{v.fill}, v.size)
		c := chainOf(t, content)
		var got []string
		for _, s := range c {
			got = append(got, hex.EncodeToString(s[:]))
		}
		if !slices.Equal(got, v.states) {
			t.Errorf("%d bytes of %#x: states %v, want %v", v.size, v.fill, got, v.states)
		}
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != v.sum {
			t.Errorf("%d bytes of %#x: sum %x, want %s", v.size, v.fill, sum, v.sum)
		}
	}
}

// Walking the chain with Next and Sum is SHA-256.
func TestNextAndSumLeadToTheDigest(t *testing.T) {
	for _, size := range sizes() {
		content := random(size, 1)
		n := blob.PieceCount(int64(size))
		s := Initial()
		chain := chainOf(t, content)
		if !chain.Fits(int64(size)) || len(chain) != max(0, n-1) {
			t.Errorf("size %d: %d states", size, len(chain))
		}
		for i := range n - 1 {
			if s != chain.Before(i) {
				t.Errorf("size %d: state before piece %d differs", size, i)
			}
			var err error
			if s, err = Next(s, piece(content, i), int64(i)*mib); err != nil {
				t.Fatal(err)
			}
		}
		tail := []byte{}
		if n > 0 {
			tail = piece(content, n-1)
		}
		sum, err := Sum(s, tail, int64(size))
		if err != nil || sum != sha256.Sum256(content) {
			t.Errorf("size %d: sum %x, error %v", size, sum, err)
		}
	}
}

// However the bytes come, the Hasher ends at the same chain and sum.
func TestHasherTakesAnyCuts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range sizes() {
		content := random(size, 2)
		want := chainOf(t, content)
		h := NewHasher()
		for rest := content; len(rest) > 0; {
			n := min(len(rest), 1+rng.IntN(mib+mib/2))
			if m, err := h.Write(rest[:n]); m != n || err != nil {
				t.Fatalf("Write: %d, %v", m, err)
			}
			rest = rest[n:]
		}
		got, ok := h.Chain()
		if !ok || !slices.Equal(got, want) || h.Sum() != sha256.Sum256(content) || h.Len() != int64(size) {
			t.Errorf("size %d: chain or sum differs", size)
		}
	}
}

// Skipping a piece by its state is as good as hashing it.
func TestHasherSkips(t *testing.T) {
	content := random(4*mib+77, 3)
	chain := chainOf(t, content)
	h := NewHasher()
	h.Write(content[:mib])
	if s, ok := h.State(); !ok || s != chain[0] {
		t.Error("state at the first boundary differs")
	}
	for _, s := range chain[1:3] {
		if err := h.Skip(s); err != nil {
			t.Fatal(err)
		}
	}
	h.Write(content[3*mib:])
	if got, _ := h.Chain(); h.Sum() != sha256.Sum256(content) || !slices.Equal(got, chain) {
		t.Error("sum or chain differs")
	}
	if _, ok := h.State(); ok {
		t.Error("a state between boundaries")
	}
	h.Reset()
	h.Write(content[:4*mib])
	if got, ok := h.ChainOf(4*mib + 77); !ok || !slices.Equal(got, chain) {
		t.Error("the chain is not there before the last piece")
	}
	if _, ok := h.ChainOf(5*mib + 1); ok {
		t.Error("a chain with a state missing")
	}
	h.Reset()
	if s, ok := h.State(); !ok || s != Initial() || h.Sum() != sha256.Sum256(nil) || h.Len() != 0 {
		t.Error("Reset does not lead back to the start")
	}
}

// Any flipped bit anywhere is found, in its piece and in no other.
func TestFlippedBitIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, size := range sizes() {
		content := random(size, 4)
		d, chain := describe(content), chainOf(t, content)
		positions := []int{0, size / 2, size - 1}
		for range 4 {
			positions = append(positions, rng.IntN(size+1))
		}
		for _, at := range positions {
			if at < 0 || at >= size {
				continue
			}
			content[at] ^= 1 << rng.IntN(8)
			for i := range blob.PieceCount(d.Size) {
				ok, err := chain.Check(d, i, piece(content, i))
				if err != nil || ok != (i != at/mib) {
					t.Errorf("size %d, bit in byte %d: piece %d passes: %v, error %v", size, at, i, ok, err)
				}
			}
			copy(content, random(size, 4))
		}
	}
}

// A chain with any bit flipped does not close: the piece before the state or
// the one behind it fails.
func TestForgedChainDoesNotClose(t *testing.T) {
	content := random(3*mib+5, 5)
	d := describe(content)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 16 {
		chain := slices.Clone(chainOf(t, content))
		k := rng.IntN(len(chain))
		chain[k][rng.IntN(StateSize)] ^= 1 << rng.IntN(8)
		for _, i := range []int{k, k + 1} {
			if ok, err := chain.Check(d, i, piece(content, i)); ok || err != nil {
				t.Errorf("state %d forged: piece %d passes, error %v", k, i, err)
			}
		}
	}
	// A chain of other content fits that content's pieces, but the last one
	// has to give the digest.
	other := random(3*mib+5, 6)
	forged := chainOf(t, other)
	for i := range 4 {
		if ok, err := forged.Check(d, i, piece(other, i)); err != nil || ok != (i < 3) {
			t.Errorf("piece %d of the forgery passes: %v, error %v", i, ok, err)
		}
	}
}

func TestWrongUseIsAnError(t *testing.T) {
	for name, f := range map[string]func() error{
		"short piece":      func() error { _, err := Next(Initial(), make([]byte, mib-1), 0); return err },
		"offset inside":    func() error { _, err := Next(Initial(), make([]byte, mib), 64); return err },
		"tail too long":    func() error { _, err := Sum(Initial(), make([]byte, mib+1), mib+1); return err },
		"tail too short":   func() error { _, err := Sum(Initial(), make([]byte, 1), mib); return err },
		"negative offset":  func() error { _, err := Sum(Initial(), make([]byte, 2), 1); return err },
		"chain too short":  func() error { _, err := ParseChain(make([]byte, 31), 2*mib); return err },
		"chain too long":   func() error { _, err := ParseChain(make([]byte, 64), 2*mib); return err },
		"chain of nothing": func() error { _, err := ParseChain(make([]byte, 32), mib); return err },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestBytesOfAChain(t *testing.T) {
	for _, size := range sizes() {
		want := chainOf(t, random(size, 7))
		got, err := ParseChain(want.Bytes(), int64(size))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

// odd is a SHA-256 whose state looks different from what we know.
type odd struct {
	hash.Hash
	marshal func([]byte) ([]byte, error)
	refuse  error
}

func (o odd) AppendBinary(b []byte) ([]byte, error) { return o.marshal(b) }
func (o odd) UnmarshalBinary([]byte) error          { return o.refuse }

// A runtime with another layout is recognised, however it differs.
func TestSelfCheckSeesOtherLayouts(t *testing.T) {
	real := func(b []byte) ([]byte, error) {
		h := sha256.New()
		h.Write([]byte("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq\x80\x00\x00\x00\x00\x00\x00\x00"))
		return h.(interface {
			AppendBinary([]byte) ([]byte, error)
		}).AppendBinary(b)
	}
	for name, newHash := range map[string]func() hash.Hash{
		"no access":   func() hash.Hash { return struct{ hash.Hash }{sha256.New()} },
		"another sum": sha512.New,
		"refuses": func() hash.Hash {
			return odd{Hash: sha256.New(), marshal: func([]byte) ([]byte, error) { return nil, errors.New("no") }}
		},
		"longer": func() hash.Hash {
			return odd{Hash: sha256.New(), marshal: func(b []byte) ([]byte, error) { b, err := real(b); return append(b, 0), err }}
		},
		"other magic": func() hash.Hash {
			return odd{Hash: sha256.New(), marshal: func(b []byte) ([]byte, error) { b, err := real(b); b[3]++; return b, err }}
		},
		"other order": func() hash.Hash {
			return odd{Hash: sha256.New(), marshal: func(b []byte) ([]byte, error) {
				b, err := real(b)
				slices.Reverse(b[4:36])
				return b, err
			}}
		},
		"takes no state":    func() hash.Hash { return odd{Hash: sha256.New(), marshal: real, refuse: errors.New("no")} },
		"ignores the state": func() hash.Hash { return odd{Hash: sha256.New(), marshal: real} },
	} {
		if selfCheck(newHash) {
			t.Errorf("%s: taken for the known layout", name)
		}
	}
	if !selfCheck(sha256.New) {
		t.Error("crypto/sha256 fails")
	}
}

// Without access to states blobs are hashed all the same, and there is no
// chain to go wrong with.
func TestHasherWithoutStates(t *testing.T) {
	h := NewHasher()
	h.plain = true
	content := random(2*mib+1, 8)
	h.Write(content[:mib])
	if _, ok := h.State(); ok {
		t.Error("a state")
	}
	if err := h.Skip(Initial()); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Skip: %v", err)
	}
	h.Write(content[mib:])
	if _, ok := h.Chain(); ok || h.Sum() != sha256.Sum256(content) {
		t.Error("a chain, or a wrong sum")
	}
}

func ExampleChain_Check() {
	content := bytes.Repeat([]byte("shoal "), 500_000)
	d := blob.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	h := NewHasher()
	h.Write(content)
	chain, _ := h.Chain()
	ok, _ := chain.Check(d, 1, content[blob.PieceSize:2*blob.PieceSize])
	fmt.Println(len(chain), ok)
	// Output: 2 true
}

// FuzzParseChain: what is read fits the size that it was read for, and prints as
// the same bytes.
func FuzzParseChain(f *testing.F) {
	f.Add([]byte{}, int64(0))
	f.Add(make([]byte, StateSize), int64(blob.PieceSize+1))
	f.Add(make([]byte, 2*StateSize), int64(3*blob.PieceSize))
	f.Add(make([]byte, StateSize-1), int64(2*blob.PieceSize))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if size < 0 || size > blob.MaxSize {
			return // nobody has such a blob
		}
		c, err := ParseChain(b, size)
		if err != nil {
			return
		}
		if !c.Fits(size) || !bytes.Equal(c.Bytes(), b) {
			t.Errorf("%d states for %d bytes print as %x", len(c), size, c.Bytes())
		}
	})
}

// BenchmarkCheck compares a piece with a chain, and hashes one in order.
func BenchmarkCheck(b *testing.B) {
	content := random(3*mib, 9)
	h := NewHasher()
	h.Write(content)
	chain, _ := h.Chain()
	d := describe(content)
	b.Run("chain", func(b *testing.B) {
		b.SetBytes(mib)
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := chain.Check(d, 1, piece(content, 1)); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("in order", func(b *testing.B) {
		b.SetBytes(mib)
		b.ReportAllocs()
		for b.Loop() {
			h := NewHasher()
			h.Write(content[:mib])
		}
	})
}

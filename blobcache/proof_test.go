package blobcache

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"shoal/blobcache/blob"
)

// checked returns what checkFile says of the blob s in a file with such content.
func checked(t *testing.T, c *Cache, s sample, content []byte) error {
	t.Helper()
	path := t.TempDir() + "/file"
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return c.checkFile(file, s.Descriptor, s.chain)
}

// Whichever piece is wrong, or missing, a proof by the chain finds it.
func TestProofByChainReadsEachPiece(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	for _, size := range []int{0, 1, mib - 1, mib, mib + 1, 5 * mib, 5*mib + 7} {
		s := newSample(size, 20)
		if err := checked(t, c, s, s.data); err != nil {
			t.Errorf("%d bytes that are right: %v", size, err)
		}
		if err := checked(t, c, s, append(bytes.Clone(s.data), 0)); !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("%d bytes and one more: %v", size, err)
		}
		for i := range s.n() {
			bad := slices.Concat(s.data[:i*mib], s.wrong(i), s.data[i*mib+len(s.piece(i)):])
			if err := checked(t, c, s, bad); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("%d bytes, piece %d wrong: %v", size, i, err)
			}
		}
	}
}

// A chain in the records proves nothing by itself: bytes that agree with it and
// do not lead to the digest are wrong, and right ones are right whatever it says.
func TestWrongChainInTheRecords(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s, other := newSample(3*mib, 21), newSample(3*mib, 22)
	put(t, c, s)
	c.meta.PutChain(s.Descriptor, other.chain)
	if err := os.WriteFile(c.blobPath(s.Digest), s.data, 0o600); err != nil { // touched
		t.Fatal(err)
	}
	has(t, c, s)
	if chain, ok := c.Chain(s.Descriptor); !ok || !slices.Equal(chain, s.chain) {
		t.Error("the wrong chain is still there")
	}
	c.meta.PutChain(s.Descriptor, other.chain)
	if err := os.WriteFile(c.blobPath(s.Digest), other.data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), s.Digest); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("bytes of another blob, with its chain: %v", err)
	}
}

// BenchmarkProof proves a blob of 64 MiB that is in the page cache, by its chain
// and from front to back.
func BenchmarkProof(b *testing.B) {
	s := newSample(64*mib, 23)
	c, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if err := c.Put(b.Context(), s.Descriptor, bytes.NewReader(s.data)); err != nil {
		b.Fatal(err)
	}
	file, err := os.Open(c.blobPath(s.Digest))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	for name, prove := range map[string]func() error{
		"chain":         func() error { return c.checkFile(file, s.Descriptor, s.chain) },
		"front-to-back": func() error { _, err := c.hashFile(file, s.Descriptor); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(s.Size)
			b.ReportAllocs()
			for b.Loop() {
				if err := prove(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGet opens a whole blob that need not be proven again.
func BenchmarkGet(b *testing.B) {
	s := newSample(10, 24)
	c, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if err := c.Put(b.Context(), s.Descriptor, bytes.NewReader(s.data)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		whole, err := c.Get(b.Context(), s.Digest)
		if err != nil {
			b.Fatal(err)
		}
		whole.Close()
	}
}

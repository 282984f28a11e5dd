package blobcache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
)

// FuzzDecodeBitmap: what is read fits the blob and survives being written.
func FuzzDecodeBitmap(f *testing.F) {
	for _, n := range []uint{1, 63, 64, 65, 200} {
		size := int64(n) * mib
		good := encodeBitmap(size, progress{have: bitset.New(n).Set(0).Set(n - 1), flowed: 1})
		f.Add(good, size)
		rotten := bytes.Clone(good)
		rotten[bitmapHeader] ^= 2
		f.Add(rotten, size)
	}
	f.Add([]byte(bitmapMagic), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if size < 0 || size > blob.MaxSize {
			return
		}
		// With a checksum that is right, or nothing behind it would be reached.
		sealed := b
		if body := len(b) - sha256.Size; body >= 0 {
			sum := sha256.Sum256(b[:body])
			sealed = append(bytes.Clone(b[:body]), sum[:]...)
		}
		if _, err := decodeBitmap(b, size); err == nil && !bytes.Equal(b, sealed) {
			t.Errorf("%x passes with a wrong checksum", b)
		}
		p, err := decodeBitmap(sealed, size)
		if err != nil {
			if !errors.Is(err, errBitmap) {
				t.Errorf("error %v", err)
			}
			return
		}
		n := uint(blob.PieceCount(size))
		if p.have.Len() != n || p.have.Count() > n || p.flowed < 0 || p.flowed > int(n) {
			t.Errorf("%d bits of %d, %d flowed", p.have.Count(), n, p.flowed)
		}
		again, err := decodeBitmap(encodeBitmap(size, p), size)
		if err != nil || !again.have.Equal(p.have) || again.flowed != p.flowed {
			t.Errorf("does not survive: %v", err)
		}
	})
}

// BenchmarkBitmap prints and parses the bitmap of a partial blob of 4 GiB.
func BenchmarkBitmap(b *testing.B) {
	const pieces = 4096
	p := progress{have: bitset.New(pieces).Set(7).Set(pieces - 1)}
	text := encodeBitmap(pieces*blob.PieceSize, p)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			encodeBitmap(pieces*blob.PieceSize, p)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeBitmap(text, pieces*blob.PieceSize); err != nil {
				b.Fatal(err)
			}
		}
	})
}

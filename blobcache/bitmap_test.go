package blobcache

import (
	"errors"
	"testing"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
)

func FuzzDecodeBitmap(f *testing.F) {
	for _, n := range []uint{1, 63, 64, 65, 200} {
		size := int64(n) * mib
		f.Add(encodeBitmap(size, progress{have: bitset.New(n).Set(0).Set(n - 1), flowed: 1}), size)
	}
	f.Add([]byte(bitmapMagic), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if size < 0 || size > blob.MaxSize {
			return
		}
		p, err := decodeBitmap(b, size)
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

package blobcache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
)

// The names of the files of a partial blob.
const (
	dataName   = "data"
	bitmapName = "pieces"
	bitmapNext = "pieces.next" // the next version: room for it is taken in advance
)

// The file "pieces" says which pieces of "data" are on disk: magic with the
// version, size of the blob, size of a piece, number of pieces that may have
// gone to clients before they were proven, the bitmap in words of 64 bits
// (piece 0 is the lowest bit of the first), all little-endian, and the SHA-256
// of what stands before it. It is written after the data that it speaks of
// has reached the disk, and replaced as a whole.
const (
	bitmapMagic  = "shoal pieces 1\n\x00"
	bitmapHeader = len(bitmapMagic) + 8 + 8 + 8
)

// progress is what the file says.
type progress struct {
	have   *bitset.BitSet
	flowed int // see Fill.flowed
}

var errBitmap = errors.New("bitmap is broken")

func encodeBitmap(size int64, p progress) []byte {
	have := p.have
	b := make([]byte, 0, bitmapHeader+8*len(have.Words())+sha256.Size)
	b = append(b, bitmapMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	b = binary.LittleEndian.AppendUint64(b, blob.PieceSize)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.flowed))
	for _, w := range have.Words() {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decodeBitmap reads what encodeBitmap wrote for a blob of size bytes.
func decodeBitmap(b []byte, size int64) (progress, error) {
	n := uint(blob.PieceCount(size))
	words := make([]uint64, (n+63)/64)
	if len(b) != bitmapSize(size) {
		return progress{}, fmt.Errorf("%w: %d bytes", errBitmap, len(b))
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		return progress{}, fmt.Errorf("%w: checksum", errBitmap)
	}
	numbers := body[len(bitmapMagic):]
	if string(body[:len(bitmapMagic)]) != bitmapMagic ||
		int64(binary.LittleEndian.Uint64(numbers)) != size ||
		binary.LittleEndian.Uint64(numbers[8:]) != blob.PieceSize {
		return progress{}, fmt.Errorf("%w: of another version or blob", errBitmap)
	}
	flowed := binary.LittleEndian.Uint64(numbers[16:])
	if flowed > uint64(n) {
		return progress{}, fmt.Errorf("%w: %d of %d pieces went out", errBitmap, flowed, n)
	}
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(body[bitmapHeader+8*i:])
	}
	if rest := n % 64; rest != 0 {
		words[len(words)-1] &= 1<<rest - 1 // no bits behind the last piece
	}
	return progress{have: bitset.FromWithLength(n, words), flowed: int(flowed)}, nil
}

// writeBitmap replaces the bitmap in dir. The data must be on disk. When the
// disk gets full, one more bitmap can still be written: what is there by then
// is not lost.
func (d disk) writeBitmap(dir string, size int64, p progress) error {
	next := filepath.Join(dir, bitmapNext)
	if err := d.overwrite(next, encodeBitmap(size, p)); err != nil {
		return err
	}
	if err := d.rename(next, filepath.Join(dir, bitmapName)); err != nil {
		return err
	}
	if err := d.syncDir(dir); err != nil {
		return err
	}
	if err := reserveBitmap(dir, size); !noSpace(err) {
		return err
	}
	return nil
}

// overwrite writes a file in place and brings it to the disk.
func (d disk) overwrite(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = d.sync(f)
	}
	return errors.Join(err, f.Close())
}

// reserveBitmap takes the room that the next bitmap in dir needs.
func reserveBitmap(dir string, size int64) error {
	return os.WriteFile(filepath.Join(dir, bitmapNext), make([]byte, bitmapSize(size)), 0o600)
}

// bitmapSize is the length of the file in bytes.
func bitmapSize(size int64) int {
	return bitmapHeader + (blob.PieceCount(size)+63)/64*8 + sha256.Size
}

// readBitmap returns the pieces that are on disk in dir. Bits of pieces that
// data is too short for are left out.
func readBitmap(dir string, size, dataSize int64) (progress, error) {
	f, err := os.Open(filepath.Join(dir, bitmapName))
	if err != nil {
		return progress{}, err
	}
	defer f.Close()
	// One byte more than it should have, so that a longer file is noticed.
	b, err := io.ReadAll(io.LimitReader(f, int64(bitmapSize(size))+1))
	if err != nil {
		return progress{}, err
	}
	p, err := decodeBitmap(b, size)
	if err != nil {
		return progress{}, err
	}
	for i, ok := p.have.NextSet(0); ok; i, ok = p.have.NextSet(i + 1) {
		if r := blob.Piece(int(i), size); r.Offset+r.Length > dataSize {
			p.have.Clear(i)
		}
	}
	return p, nil
}

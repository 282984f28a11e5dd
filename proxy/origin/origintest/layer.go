package origintest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

// The frame of a gzip file of stored blocks (RFC 1951, 3.2.4; RFC 1952).
const (
	storedMax    = 65535 // bytes in one stored block
	storedHeader = 5
	gzipHeader   = 10
	gzipTrailer  = 8
	extraHeader  = 6 // XLEN, and the header of one subfield
	tarBlock     = 512
	tarEnd       = 2 * tarBlock
)

// layerContent is a gzip file of stored blocks around a tar: declared files
// first, then one file of filler that brings the gzip file to its size. Only
// the declared files are held in memory.
type layerContent struct {
	front   []byte // gzip header
	head    []byte // tar: declared files, and the header of the filler
	filler  filler
	tarSize int64
	trailer [gzipTrailer]byte
	size    int64

	digest digest.Digest // of the gzip file
	diffID digest.Digest // of the tar
}

// newLayer makes the layer that l declares.
func newLayer(l Layer, seed uint64, pool []byte) *layerContent {
	files := tarFiles(l.Files)
	// The largest filler that fits, in whole tar blocks: what is left over is
	// padded in the gzip header, which takes 0 bytes or extraHeader and more.
	room := l.Size - gzipHeader - gzipTrailer - int64(len(files)) - tarBlock - tarEnd
	n := max(room-room/storedMax*storedHeader, 0) / tarBlock * tarBlock
	tarSize := func() int64 { return int64(len(files)) + tarBlock + n + tarEnd }
	for {
		rest := l.Size - gzipSize(tarSize())
		if n == 0 || rest == 0 || rest >= extraHeader {
			break
		}
		n -= tarBlock
	}
	c := &layerContent{
		front:   gzipFront(l.Size - gzipSize(tarSize())),
		head:    append(files, tarHeader("filler", n, 0o644)...),
		filler:  filler{pool: pool, seed: seed, size: n},
		tarSize: tarSize(),
	}
	c.size = gzipSize(c.tarSize) + int64(len(c.front)) - gzipHeader
	c.sum()
	return c
}

// gzipSize returns the size of a gzip file of stored blocks around n bytes.
func gzipSize(n int64) int64 {
	return gzipHeader + n + (n+storedMax-1)/storedMax*storedHeader + gzipTrailer
}

// gzipFront returns a gzip header that is pad bytes longer than the shortest.
func gzipFront(pad int64) []byte {
	front := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}
	if pad < extraHeader {
		return front
	}
	front[3] = 1 << 2 // FEXTRA
	front = binary.LittleEndian.AppendUint16(front, uint16(pad-2))
	front = append(front, 'S', 'h')
	front = binary.LittleEndian.AppendUint16(front, uint16(pad-extraHeader))
	return append(front, make([]byte, pad-extraHeader)...)
}

// sum computes digests and trailer by reading the content once.
func (c *layerContent) sum() {
	tarSum, crc := sha256.New(), crc32.NewIEEE()
	// A hash and a layer never fail.
	_, _ = io.Copy(io.MultiWriter(tarSum, crc), io.NewSectionReader(tarOf{c}, 0, c.tarSize))
	binary.LittleEndian.PutUint32(c.trailer[:], crc.Sum32())
	binary.LittleEndian.PutUint32(c.trailer[4:], uint32(c.tarSize))
	sum := sha256.New()
	_, _ = io.Copy(sum, io.NewSectionReader(c, 0, c.size))
	c.diffID = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(tarSum.Sum(nil)))
	c.digest = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum.Sum(nil)))
}

// Size returns the length of the gzip file in bytes.
func (c *layerContent) Size() int64 { return c.size }

// ReadAt reads the gzip file.
func (c *layerContent) ReadAt(p []byte, off int64) (int, error) {
	return readParts(p, off, c.size, c.readSome)
}

// readSome reads at least one byte of the gzip file, up to the next seam.
func (c *layerContent) readSome(p []byte, off int64) int {
	if off < int64(len(c.front)) {
		return copy(p, c.front[off:])
	}
	off -= int64(len(c.front))
	body := c.size - int64(len(c.front)) - gzipTrailer
	if off >= body {
		return copy(p, c.trailer[off-body:])
	}
	block, in := off/(storedMax+storedHeader), off%(storedMax+storedHeader)
	begin := block * storedMax
	n := min(storedMax, c.tarSize-begin)
	if in < storedHeader {
		h := [storedHeader]byte{}
		if begin+n == c.tarSize {
			h[0] = 1 // the final block
		}
		binary.LittleEndian.PutUint16(h[1:], uint16(n))
		binary.LittleEndian.PutUint16(h[3:], ^uint16(n))
		return copy(p, h[in:])
	}
	in -= storedHeader
	return tarOf{c}.readSome(p[:min(int64(len(p)), n-in)], begin+in)
}

// tarOf reads the tar within a layer.
type tarOf struct{ *layerContent }

func (t tarOf) ReadAt(p []byte, off int64) (int, error) {
	return readParts(p, off, t.tarSize, t.readSome)
}

func (t tarOf) readSome(p []byte, off int64) int {
	if off < int64(len(t.head)) {
		return copy(p, t.head[off:])
	}
	off -= int64(len(t.head))
	if left := t.filler.size - off; left > 0 {
		p = p[:min(int64(len(p)), left)]
		t.filler.readAt(p, off)
		return len(p)
	}
	p = p[:min(int64(len(p)), t.filler.size+tarEnd-off)]
	clear(p)
	return len(p)
}

// readParts is io.ReaderAt over a function that reads up to the next seam.
func readParts(p []byte, off, size int64, some func([]byte, int64) int) (int, error) {
	n := 0
	for n < len(p) && off < size {
		m := some(p[n:], off)
		n, off = n+m, off+int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// tarFiles returns files as tar entries without the end of the archive.
func tarFiles(files []File) []byte {
	var out bytes.Buffer
	for _, f := range files {
		out.Write(tarHeader(f.Name, int64(len(f.Data)), f.Mode))
		out.Write(f.Data)
		out.Write(make([]byte, -len(f.Data)&(tarBlock-1)))
	}
	return out.Bytes()
}

// tarHeader returns the header of one entry; a name that ends in a slash is a
// folder.
func tarHeader(name string, size, mode int64) []byte {
	h := &tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Size:     size,
		Mode:     mode,
		ModTime:  time.Unix(0, 0),
		Format:   tar.FormatGNU, // USTAR ends at 8 GiB
	}
	if name[len(name)-1] == '/' {
		h.Typeflag = tar.TypeDir
	}
	var out bytes.Buffer
	// Writing a header to memory fails only for one that cannot be encoded,
	// which no GNU header of these fields is.
	_ = tar.NewWriter(&out).WriteHeader(h)
	return out.Bytes()
}

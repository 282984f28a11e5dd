package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
)

const (
	// maxEntries bounds the files of an archive: a hundred large images.
	maxEntries = 1 << 14
	// maxText bounds index.json and oci-layout, in bytes.
	maxText = 4 << 20
	// maxRatio is how much larger than the compressed archive what is in it may
	// be, beyond the first ratioFree bytes. Layers are compressed already, and raw
	// ones shrink to a tenth; zeros shrink to a ten-thousandth.
	maxRatio  = 100
	ratioFree = 64 << 20
	// maxWindow bounds the memory of the decompressor, in bytes: what "zstd
	// --ultra" needs.
	maxWindow = 128 << 20
	// readAhead is how much is read from the file or the network at least. Larger
	// reads, as of blobs, are not copied through it.
	readAhead = 64 << 10
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// Read reads an archive, which may be compressed by gzip or zstd, and calls put
// with each blob, in the order of the archive. The bytes are unproven; put reads
// all of them, or returns an error, which is returned. Of a file that is not
// compressed a blob is an *io.SectionReader, which may be read after put has
// returned, beside others, and ends early where the file does. most bounds the
// blobs together, in bytes. Errors: ErrInvalid, wrapped, if the archive is at
// fault.
func Read(r io.Reader, most int64, put func(blob.Descriptor, io.Reader) error) ([]Named, error) {
	a := reader{file: seekable(r), left: most, put: put}
	if a.file != nil {
		a.tar = tar.NewReader(a.file)
	} else {
		plain, end, err := decompress(bufio.NewReaderSize(r, readAhead))
		if err != nil {
			return nil, err
		}
		defer end()
		a.tar = tar.NewReader(plain)
	}
	for n := 0; ; n++ {
		h, err := a.tar.Next()
		switch {
		case errors.Is(err, io.EOF):
			return a.named()
		case err != nil:
			return nil, cut(err)
		case n == maxEntries:
			return nil, invalid("more than %d files", maxEntries)
		}
		if err := a.entry(h); err != nil {
			return nil, err
		}
	}
}

// cut is an error of reading the tar.
func cut(err error) error {
	switch {
	case errors.Is(err, ErrInvalid):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return invalid("it is cut off")
	case errors.Is(err, tar.ErrHeader):
		return invalid("it is no tar, nor one compressed by gzip or zstd")
	}
	return invalid("read: %w", err)
}

// reader is an archive that is being read.
type reader struct {
	tar           *tar.Reader
	file          *io.SectionReader // that tar reads; nil if it reads a stream
	left          int64             // bytes of blobs that may still come
	put           func(blob.Descriptor, io.Reader) error
	layout, index []byte
	docker        bool
}

// entry takes a file. Those that no layout has are passed over: docker writes
// some for older versions of itself.
func (a *reader) entry(h *tar.Header) (err error) {
	name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if name != "" && (!isClean(name) || strings.HasPrefix(h.Name, "/")) {
		return invalid("a file is called %.80q", h.Name)
	}
	switch {
	case h.Typeflag != tar.TypeReg:
		if strings.HasPrefix(name, blobFolder) {
			return invalid("%.90s is no plain file", name)
		}
		return nil
	case sparse(h):
		return invalid("%.90s is a sparse file", name)
	case name == ocispec.ImageLayoutFile:
		a.layout, err = a.text(h)
	case name == ocispec.ImageIndexFile:
		a.index, err = a.text(h)
	case name == dockerFile:
		a.docker = true
	case strings.HasPrefix(name, blobFolder):
		return a.blob(h, strings.TrimPrefix(name, blobFolder))
	}
	return err
}

func isClean(name string) bool {
	return path.Clean(name) == name && name != ".." && !strings.HasPrefix(name, "../") && !strings.ContainsAny(name, "\\\x00")
}

// sparse tells whether a file has holes, which take no bytes of the archive.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (a *reader) text(h *tar.Header) ([]byte, error) {
	if h.Size > maxText {
		return nil, invalid("%s has %d bytes", h.Name, h.Size)
	}
	text, err := io.ReadAll(a.tar)
	if err != nil {
		return nil, cut(err)
	}
	return text, nil
}

func (a *reader) blob(h *tar.Header, hex string) error {
	d, err := blob.ParseDigest("sha256:" + hex)
	if err != nil {
		return invalid("%s%.80q is no name of a blob", blobFolder, hex)
	}
	if a.left -= h.Size; h.Size < 0 || a.left < 0 {
		return invalid("its blobs have more bytes than the cache may take: the one that is too much is %s, of %d", d, h.Size)
	}
	desc := blob.Descriptor{Digest: d, Size: h.Size}
	if a.file != nil {
		at, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if _, err := a.file.ReadAt(make([]byte, 1), at+h.Size-1); err != nil && h.Size > 0 {
			return cut(err)
		}
		return a.put(desc, io.NewSectionReader(a.file, at, h.Size))
	}
	body := &body{r: a.tar}
	err = a.put(desc, body)
	if body.err != nil {
		return cut(body.err)
	}
	return err
}

// body remembers why a blob could not be read, and has room for large reads.
type body struct {
	r   io.Reader
	err error
}

// Read is of io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// named is what all of it came to.
func (a *reader) named() ([]Named, error) {
	switch {
	case a.index == nil && a.docker:
		return nil, invalid("it is one of \"docker save\" without an OCI layout, which lacks the manifests: copy the image by \"skopeo copy docker-archive:FILE oci-archive:FILE:NAME\"")
	case a.index == nil:
		return nil, invalid("there is no index.json in it")
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(a.layout, &layout); err != nil || !strings.HasPrefix(layout.Version, "1.") {
		return nil, invalid("oci-layout is missing, or of a version that is not known: %.40q", layout.Version)
	}
	return named(a.index)
}

// seekable returns the rest of r if it is a file and not compressed, else nil.
func seekable(r io.Reader) *io.SectionReader {
	file, ok := r.(interface {
		io.ReaderAt
		io.Seeker
	})
	if !ok {
		return nil
	}
	at, err := file.Seek(0, io.SeekCurrent)
	magic := make([]byte, magicLen)
	if err == nil {
		_, err = file.ReadAt(magic, at)
	}
	if err != nil || isZstd(magic) || isGzip(magic) {
		return nil
	}
	return io.NewSectionReader(file, at, math.MaxInt64-at)
}

const magicLen = 4

func isZstd(magic []byte) bool { return bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) } // RFC 8878
func isGzip(magic []byte) bool { return bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) }         // RFC 1952

// decompress returns the tar that r holds, and what releases it.
func decompress(r *bufio.Reader) (plain io.Reader, end func(), err error) {
	magic, err := r.Peek(magicLen)
	if err != nil {
		return nil, nil, invalid("it is empty, or cut off")
	}
	packed := &counter{r: r}
	switch {
	case isZstd(magic):
		z, err := zstd.NewReader(packed, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, invalid("zstd: %w", err)
		}
		return &bounded{r: z, packed: packed}, z.Close, nil
	case isGzip(magic):
		z, err := gzip.NewReader(packed)
		if err != nil {
			return nil, nil, invalid("gzip: %w", err)
		}
		return &bounded{r: z, packed: packed}, func() {}, nil
	}
	return r, func() {}, nil
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

// Read is of io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// bounded fails when what comes out of a decompressor is far more than what went
// in.
type bounded struct {
	r      io.Reader
	packed *counter
	n      int64
}

// Read is of io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.n += int64(n); b.n > ratioFree+maxRatio*b.packed.n {
		return 0, invalid("it expands to more than %d times its size", maxRatio)
	}
	return n, err
}

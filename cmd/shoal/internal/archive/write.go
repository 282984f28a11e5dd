package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
)

// Content is a blob and the file that has its bytes, from offset 0.
type Content struct {
	blob.Descriptor
	File *os.File
}

// Layout is what is written: the same one gives the same bytes.
type Layout struct {
	Index  Index
	Docker []DockerImage
	Blobs  []Content // each once
}

// part is a file of the tar.
type part struct {
	name string
	size int64
	from io.Reader
}

func (l Layout) parts() []part {
	l.Index.list.Versioned = specs.Versioned{SchemaVersion: 2}
	l.Index.list.MediaType = ocispec.MediaTypeImageIndex
	text := func(name string, body []byte) part { return part{name, int64(len(body)), bytes.NewReader(body)} }
	all := []part{
		text(ocispec.ImageLayoutFile, encode(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})),
		text(ocispec.ImageIndexFile, encode(l.Index.list)),
	}
	if len(l.Docker) > 0 {
		all = append(all, text(dockerFile, encode(l.Docker)))
	}
	for _, b := range l.Blobs {
		all = append(all, part{BlobPath(b.Descriptor), b.Size, b.File})
	}
	return all
}

const block = 512 // of a tar

// header is what stands before a part.
func (p part) header() ([]byte, error) {
	var b bytes.Buffer
	h := &tar.Header{Typeflag: tar.TypeReg, Name: p.name, Size: p.size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// padding is what follows n bytes up to the next block.
func padding(n int64) []byte { return make([]byte, (block-n%block)%block) }

// Size returns how many bytes Write writes.
func (l Layout) Size() (int64, error) {
	n := int64(2 * block)
	for _, p := range l.parts() {
		h, err := p.header()
		if err != nil {
			return 0, err
		}
		n += int64(len(h)) + p.size + int64(len(padding(p.size)))
	}
	return n, nil
}

// Write writes the tar. Files go to w by its ReadFrom, if it has one, so that the
// kernel can move them. It reads the files to their ends.
func (l Layout) Write(w io.Writer) error {
	for _, p := range l.parts() {
		h, err := p.header()
		if err != nil {
			return err
		}
		if _, err := w.Write(h); err != nil {
			return err
		}
		if _, err := io.CopyN(w, p.from, p.size); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if _, err := w.Write(padding(p.size)); err != nil {
			return err
		}
	}
	_, err := w.Write(make([]byte, 2*block))
	return err
}

//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"shoal/benchmarks/scenario"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// tag is that of every image.
const tag = "latest"

// image is what a scenario's nodes want. Its files lie in the origin's folder.
type image struct {
	repository string
	manifest   blobFile
	blobs      []blobFile // the config, then the layers
	parallel   int        // how many a client asks for at once
	meter      blobFile   // no part of it, but what the plain download gets
}

// blobFile is a blob at the origin.
type blobFile struct {
	file string
	hex  string // its SHA-256 sum
	size int64
}

func (b blobFile) digest() string { return "sha256:" + b.hex }

// layers returns the blobs without the config.
func (i *image) layers() []blobFile { return i.blobs[1:] }

// bytes returns the size of all blobs.
func (i *image) bytes() int64 {
	var sum int64
	for _, b := range i.blobs {
		sum += b.size
	}
	return sum
}

// path returns where a registry has a manifest or blob.
func (i *image) path(kind, reference string) string {
	return fmt.Sprintf("/v2/%s/%s/%s", i.repository, kind, reference)
}

// meterTime is how long the plain download takes where the image is large: long
// enough that what a link lets through at once (128 KiB) is no matter, and
// within the time for which the nodes are idle.
const meterTime = 4 * time.Second

// boundLink returns the rate of the link that the bound comes from.
func boundLink(s *scenario.Scenario) scenario.Rate {
	if s.Nodes.Seeded > 0 {
		return s.Nodes.Link
	}
	if s.Nodes.Zones.Count > 0 {
		return min(s.Origin.Link, s.Nodes.Zones.Link)
	}
	return s.Origin.Link
}

// store makes the files of images in a folder. Layers of equal sizes and places
// in their images are the same.
type store struct {
	dir  string
	made map[layerKey]blobFile
}

type layerKey struct {
	number int
	size   int64
}

// image makes the image of a scenario.
func (s *store) image(sc *scenario.Scenario) (*image, error) {
	img := &image{repository: "lab/" + sc.Name, parallel: sc.Image.Parallel}
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	var layers []blobFile
	for n, size := range sc.Image.Layers {
		b, err := s.layer(layerKey{number: n, size: int64(size)})
		if err != nil {
			return nil, fmt.Errorf("image of %s: %w", sc.Name, err)
		}
		layers = append(layers, b)
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: digest.Digest(b.digest()), Size: b.size})
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.Digest(b.digest()))
	}
	configFile, err := s.document(config)
	if err != nil {
		return nil, fmt.Errorf("config of %s: %w", sc.Name, err)
	}
	img.blobs = append([]blobFile{configFile}, layers...)
	manifest.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.Digest(configFile.digest()), Size: configFile.size}
	if img.manifest, err = s.document(manifest); err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", sc.Name, err)
	}
	img.meter, err = s.layer(layerKey{number: -1, size: min(sc.Bytes(), int64(meterTime.Seconds()*float64(boundLink(sc))/8))})
	if err != nil {
		return nil, fmt.Errorf("plain download for %s: %w", sc.Name, err)
	}
	return img, nil
}

// layer makes a file of random bytes.
func (s *store) layer(key layerKey) (blobFile, error) {
	if b, ok := s.made[key]; ok {
		return b, nil
	}
	seed := sha256.Sum256(fmt.Appendf(nil, "layer %d of %d bytes", key.number, key.size))
	b, err := s.put(io.LimitReader(rand.NewChaCha8(seed), key.size))
	if err == nil {
		s.made[key] = b
	}
	return b, err
}

// document makes a file of JSON.
func (s *store) document(v any) (blobFile, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return blobFile{}, err
	}
	return s.put(bytes.NewReader(text))
}

// put makes a file that is named by the SHA-256 sum of what it holds.
func (s *store) put(content io.Reader) (blobFile, error) {
	file, err := os.CreateTemp(s.dir, "new-")
	if err != nil {
		return blobFile{}, err
	}
	defer file.Close()
	sum := sha256.New()
	out := bufio.NewWriterSize(file, 1<<20)
	size, err := io.Copy(io.MultiWriter(out, sum), content)
	if err != nil {
		return blobFile{}, err
	}
	if err := out.Flush(); err != nil {
		return blobFile{}, err
	}
	b := blobFile{hex: hex.EncodeToString(sum.Sum(nil)), size: size}
	b.file = filepath.Join(s.dir, b.hex)
	return b, os.Rename(file.Name(), b.file)
}

// check reads a file and compares its SHA-256 sum with the blob's.
func (b blobFile) check(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != b.hex {
		return fmt.Errorf("%s has the digest %s, not %s", file, got, b.hex)
	}
	return nil
}

//go:build linux

package program

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"

	"shoal/cmd/shoal/e2e/testhost"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an image at the origin: an index of this machine's platform and a
// foreign one. It holds Debian's static busybox and, in each further layer,
// one file that does not compress.
type Image struct {
	// Repository and Tag, as in docker.io/REPOSITORY:TAG.
	Repository, Tag string

	Index    v1.Hash       // digest of the index
	Manifest v1.Descriptor // of this machine's platform
	Config   v1.Descriptor
	Layers   []v1.Descriptor
	// Foreign are the digests of the other platform's manifest, config and
	// layers, which nobody asked for.
	Foreign []v1.Hash
	native  v1.Image
	// Files are the SHA-256 sums (hexadecimal) of the files in the image, by path.
	Files map[string]string
}

// Ref returns the image's name with its tag, as users write it.
func (i *Image) Ref() string { return i.Repository + ":" + i.Tag }

// DigestRef returns the image's name with the digest of its index.
func (i *Image) DigestRef() string { return i.Repository + "@" + i.Index.String() }

// Blobs returns the descriptors of the config and the layers.
func (i *Image) Blobs() []v1.Descriptor { return append([]v1.Descriptor{i.Config}, i.Layers...) }

// BlobBytes returns the size of config and layers together.
func (i *Image) BlobBytes() int64 {
	var sum int64
	for _, b := range i.Blobs() {
		sum += b.Size
	}
	return sum
}

// Push makes an image with a layer of about each of the sizes in bytes, behind
// the one with busybox, and pushes it to the registry past the counting front.
// The same seed makes the same image.
func (o *Origin) Push(ctx context.Context, repository string, seed byte, layerSizes ...int) (*Image, error) {
	img := &Image{Repository: repository, Tag: "latest", Files: map[string]string{}}
	index, err := img.build(seed, layerSizes)
	if err != nil {
		return nil, fmt.Errorf("make image %s: %w", repository, err)
	}
	return img, o.push(ctx, img.Ref(), func(tag name.Tag, options ...remote.Option) error {
		return remote.WriteIndex(tag, index, options...)
	})
}

// PushImage pushes an image that was made elsewhere to the registry past the
// counting front. ref is its name with a tag.
func (o *Origin) PushImage(ctx context.Context, ref string, img v1.Image) error {
	return o.push(ctx, ref, func(tag name.Tag, options ...remote.Option) error {
		return remote.Write(tag, img, options...)
	})
}

// PushUncompressed pushes this machine's platform of an image with layers that
// are plain tar archives. ref is its name with a tag.
func (o *Origin) PushUncompressed(ctx context.Context, ref string, img *Image) error {
	plain := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	config, err := img.native.ConfigFile()
	if err != nil {
		return err
	}
	if plain, err = mutate.ConfigFile(plain, &v1.ConfigFile{OS: config.OS, Architecture: config.Architecture, Config: config.Config}); err != nil {
		return err
	}
	layers, err := img.native.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		r, err := layer.Uncompressed()
		if err != nil {
			return err
		}
		content, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		if plain, err = mutate.AppendLayers(plain, static.NewLayer(content, types.OCIUncompressedLayer)); err != nil {
			return err
		}
	}
	return o.PushImage(ctx, ref, plain)
}

// push lets write push to the registry.
func (o *Origin) push(ctx context.Context, ref string, write func(name.Tag, ...remote.Option) error) error {
	tag, err := name.NewTag(fmt.Sprintf("127.0.0.1:%d/%s", registryPort, ref))
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: o.Host.DialContext}
	defer transport.CloseIdleConnections()
	if err := write(tag, remote.WithTransport(transport), remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

// build makes the index and fills in what i says of it.
func (i *Image) build(seed byte, layerSizes []int) (v1.ImageIndex, error) {
	native, err := i.buildNative(seed, layerSizes)
	if err != nil {
		return nil, err
	}
	foreign, err := i.buildForeign(seed)
	if err != nil {
		return nil, err
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: foreign, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: foreignArchitecture}}},
		mutate.IndexAddendum{Add: native, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}},
	)
	manifests, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	i.native, i.Manifest = native, manifests.Manifests[1]
	i.Index, err = index.Digest()
	return index, err
}

func (i *Image) buildNative(seed byte, layerSizes []int) (v1.Image, error) {
	busybox, err := testhost.Program("busybox")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	// The seed in it makes the first layer another one in every image.
	layers := [][]file{{{"bin/busybox", program}, {"etc/image", random([]byte{seed}, 64)}}}
	for n, size := range layerSizes {
		layers = append(layers, []file{{fmt.Sprintf("data/%d", n), random([]byte{seed, byte(n)}, size)}})
	}
	img, err := image(runtime.GOARCH, layers)
	if err != nil {
		return nil, err
	}
	for _, files := range layers {
		for _, f := range files {
			sum := sha256.Sum256(f.content)
			i.Files["/"+f.path] = hex.EncodeToString(sum[:])
		}
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	i.Config, i.Layers = manifest.Config, manifest.Layers
	return img, nil
}

func (i *Image) buildForeign(seed byte) (v1.Image, error) {
	img, err := image(foreignArchitecture, [][]file{{{"data/foreign", random([]byte{seed, 0xff}, 3<<20)}}})
	if err != nil {
		return nil, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	i.Foreign = []v1.Hash{digest, manifest.Config.Digest, manifest.Layers[0].Digest}
	return img, nil
}

// file is an executable file in a layer.
type file struct {
	path    string
	content []byte
}

// foreignArchitecture is one that the tests do not run on.
const foreignArchitecture = "s390x"

// image returns an OCI image with a gzip layer for each of the lists of files.
func image(architecture string, layers [][]file) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: architecture, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Cmd: []string{"/bin/busybox", "cat", "/etc/image"}},
	})
	if err != nil {
		return nil, err
	}
	for _, files := range layers {
		content, err := archive(files)
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(
			func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
			tarball.WithCompressionLevel(gzip.NoCompression), tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// archive returns the files as a tar archive.
func archive(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.path, Mode: 0o755, Size: int64(len(f.content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// random returns size bytes that follow from the seed and do not compress.
func random(seed []byte, size int) []byte {
	content := make([]byte, size)
	// It never fails (math/rand/v2).
	_, _ = rand.NewChaCha8(sha256.Sum256(seed)).Read(content)
	return content
}

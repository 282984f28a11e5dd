package proxy

import (
	"encoding/json"
	"runtime"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
	"shoal/proxy/origin/origintest"
)

// thing is a blob or manifest with its bytes.
type thing struct {
	blob.Descriptor
	bytes []byte
}

func (d thing) ref() string { return d.Digest.String() }

// testImage is an index of this machine's platform and of another one.
type testImage struct {
	index  thing
	mine   platform
	theirs platform
}

type platform struct {
	manifest thing
	blobs    []thing // the config first
}

// addImage puts an image of two layers for each platform, of 2.5 and 1.2
// pieces, into a repository.
func addImage(t *testing.T, registry *origintest.Registry, name, tag string) testImage {
	t.Helper()
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	img := testImage{
		mine:   addPlatform(t, registry, name, runtime.GOARCH),
		theirs: addPlatform(t, registry, name, other),
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for arch, p := range map[string]platform{runtime.GOARCH: img.mine, other: img.theirs} {
		d := descriptor(p.manifest)
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, d)
	}
	img.index = addManifest(t, registry, name, tag, ocispec.MediaTypeImageIndex, index)
	return img
}

func addPlatform(t *testing.T, registry *origintest.Registry, name, arch string) platform {
	t.Helper()
	var p platform
	seed := arch[1] + arch[2] // tells amd64 from arm64
	for i, size := range []int{600, 5 * blob.PieceSize / 2, 6 * blob.PieceSize / 5} {
		p.blobs = append(p.blobs, addBlob(registry, name, random(seed+byte(i), size)))
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: descriptor(p.blobs[0]), Layers: []ocispec.Descriptor{descriptor(p.blobs[1]), descriptor(p.blobs[2])},
	}
	p.manifest = addManifest(t, registry, name, "", ocispec.MediaTypeImageManifest, m)
	return p
}

func addBlob(registry *origintest.Registry, name string, data []byte) thing {
	return thing{registry.AddBlob(name, data), data}
}

func addManifest(t *testing.T, registry *origintest.Registry, name, tag, mediaType string, doc any) thing {
	t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return thing{registry.AddManifest(name, tag, mediaType, data), data}
}

func descriptor(d thing) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

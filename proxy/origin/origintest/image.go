package origintest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
)

// Image declares an image: an OCI index of one manifest for each platform.
type Image struct {
	// Seed decides all content; images with different seeds share no layer.
	Seed uint64
	// Platforms are named like "linux/amd64"; nil is linux/amd64 and
	// linux/arm64. Every platform has layers of its own.
	Platforms []string
	// Layers declare the layers of every platform, lowest first.
	Layers []Layer
	// Cmd is what a container of the image runs.
	Cmd []string
}

// Layer declares one gzip layer: a tar of Files and of one file named filler,
// which cannot be compressed.
type Layer struct {
	// Size is the exact length of the gzip file in bytes. A size that is too
	// small for Files gives the smallest layer that holds them.
	Size  int64
	Files []File
}

// File is one file of a layer; a Name with a slash at its end is a folder.
type File struct {
	Name string
	Mode int64 // permission bits
	Data []byte
}

// Layers is a short way to declare layers of the given sizes in bytes.
func Layers(sizes ...int64) []Layer {
	layers := make([]Layer, len(sizes))
	for i, size := range sizes {
		layers[i].Size = size
	}
	return layers
}

// Added tells what AddImage put into the registry.
type Added struct {
	Index     blob.Descriptor
	Platforms []Platform
}

// Platform is one manifest of an image with what it refers to.
type Platform struct {
	Name     string // such as "linux/amd64"
	Manifest blob.Descriptor
	Config   blob.Descriptor
	Layers   []blob.Descriptor
}

// Platform returns the platform with that name, or panics.
func (a *Added) Platform(name string) Platform {
	for _, p := range a.Platforms {
		if p.Name == name {
			return p
		}
	}
	panic(fmt.Sprintf("origintest: image has no platform %q", name))
}

// Bytes returns what one whole pull of the platform moves: manifest, config
// and layers, without the index.
func (p Platform) Bytes() int64 {
	n := p.Manifest.Size + p.Config.Size
	for _, l := range p.Layers {
		n += l.Size
	}
	return n
}

// AddImage makes the declared image and puts it into the repository name under
// tag. Making it takes about two seconds for every gigabyte.
func (r *Registry) AddImage(name, tag string, img Image) *Added {
	platforms := img.Platforms
	if platforms == nil {
		platforms = []string{"linux/amd64", "linux/arm64"}
	}
	added := &Added{}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for i, platform := range platforms {
		p := r.addPlatform(name, platform, img, mix(img.Seed)+uint64(i)<<32)
		added.Platforms = append(added.Platforms, p)
		os, arch, _ := strings.Cut(platform, "/")
		d := descriptor(p.Manifest)
		d.Platform = &v1.Platform{OS: os, Architecture: arch}
		index.Manifests = append(index.Manifests, d)
	}
	added.Index = r.AddManifest(name, tag, index.MediaType, encode(index))
	return added
}

func (r *Registry) addPlatform(name, platform string, img Image, seed uint64) Platform {
	os, arch, _ := strings.Cut(platform, "/")
	config := v1.Image{
		Platform: v1.Platform{OS: os, Architecture: arch},
		Config:   v1.ImageConfig{Cmd: img.Cmd},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	manifest := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Layers:    []v1.Descriptor{},
	}
	p := Platform{Name: platform}
	for i, l := range img.Layers {
		c := newLayer(l, mix(seed+uint64(i)), r.pool)
		d := blob.Descriptor{Digest: c.digest, Size: c.size, MediaType: v1.MediaTypeImageLayerGzip}
		r.add(name, d, c)
		p.Layers = append(p.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, c.diffID)
		manifest.Layers = append(manifest.Layers, descriptor(d))
	}
	raw := encode(config)
	p.Config = blob.Descriptor{
		Digest:    digest.FromBytes(raw),
		Size:      int64(len(raw)),
		MediaType: v1.MediaTypeImageConfig,
	}
	r.add(name, p.Config, bytesContent(raw))
	manifest.Config = descriptor(p.Config)
	p.Manifest = r.AddManifest(name, "", manifest.MediaType, encode(manifest))
	return p
}

func descriptor(d blob.Descriptor) v1.Descriptor {
	return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// encode renders a manifest or config, which JSON can always express.
func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("origintest: %v", err))
	}
	return raw
}

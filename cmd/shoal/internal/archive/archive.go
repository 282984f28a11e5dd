// Package archive reads and writes images as one tar file: an OCI image layout
// (OCI image specification, "OCI Image Layout"), which skopeo, podman, buildah and
// containerd read, with the manifest.json of "docker save" beside it, for which
// the blobs of the layout are the files, so that docker load and crane read it,
// too. It knows no cache and no network, and keeps nothing on disk: the caller
// has the blobs and takes them, and it is the caller who proves them. What it
// reads is hostile: all of it is bounded, and nothing is a path. It starts no
// goroutines but those of the decompressor that Read closes.
package archive

import (
	"encoding/json"
	"errors"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
)

// ErrInvalid is for what is no archive of images, with the reason.
var ErrInvalid = errors.New("no archive of images that can be read")

const (
	blobFolder = "blobs/sha256/"
	dockerFile = "manifest.json"

	// annotationName is where containerd, buildkit and docker keep the whole name
	// of an image.
	annotationName = "io.containerd.image.name"
)

// DockerImage is an entry of manifest.json, as "docker save" writes it.
type DockerImage struct {
	Config   string   `json:"Config"` // path of the config
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"` // paths, lowest first
}

// BlobPath is where a blob lies in the archive.
func BlobPath(d blob.Descriptor) string { return blobFolder + d.Digest.Encoded() }

// Index is the index.json of an archive.
type Index struct {
	list ocispec.Index
}

// Add names a manifest: image is REGISTRY/NAME:TAG, or empty if it has no tag.
func (x *Index) Add(image string, d blob.Descriptor) {
	entry := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	if image != "" {
		entry.Annotations = map[string]string{annotationName: image, ocispec.AnnotationRefName: image[strings.LastIndexByte(image, ':')+1:]}
	}
	x.list.Manifests = append(x.list.Manifests, entry)
}

// encode renders what JSON can always express.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// Named is a manifest of an archive.
type Named struct {
	blob.Descriptor
	Image string // what it is called, in any form that people use; "" if nothing
}

// named returns what index.json says.
func named(text []byte) ([]Named, error) {
	var list ocispec.Index
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, invalid("index.json: %w", err)
	}
	if len(list.Manifests) == 0 {
		return nil, invalid("index.json names no image")
	}
	var all []Named
	for _, m := range list.Manifests {
		d, err := blob.ParseDigest(m.Digest.String())
		if err != nil || m.Size < 0 || m.Size > blob.MaxSize {
			return nil, invalid("index.json names %.80q of %d bytes", m.Digest, m.Size)
		}
		n := Named{Descriptor: blob.Descriptor{Digest: d, Size: m.Size, MediaType: m.MediaType}, Image: m.Annotations[annotationName]}
		if ref := m.Annotations[ocispec.AnnotationRefName]; n.Image == "" && strings.Contains(ref, ":") {
			n.Image = ref // of skopeo and podman; a tag alone says of nothing what it is
		}
		all = append(all, n)
	}
	return all, nil
}

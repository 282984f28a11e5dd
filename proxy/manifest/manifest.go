// Package manifest reads of an image manifest or index what a mirror needs:
// its media type and the blobs that it names. It is pure: no I/O, no state, no
// goroutines. What it reads comes from strangers, so everything is bounded and
// nothing is followed: a manifest names others, and only a client's request
// makes anybody look at those.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
)

var (
	// ErrInvalid is for what is not a manifest that a client could use.
	ErrInvalid = errors.New("invalid manifest")
	// ErrSchema1 is for Docker's image manifest version 2, schema 1: its digest
	// is not that of its bytes, which hold a signature, so that it cannot be
	// proven. It is an ErrInvalid too.
	ErrSchema1 = fmt.Errorf("%w: Docker schema 1", ErrInvalid)
)

// The manifest media types that runtimes know. The OCI ones are in image-spec.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1+" // and json or prettyjws
)

// maxBlobs is how many blobs of one manifest are looked at. Runtimes refuse
// images of more than 127 layers; artifacts can have more.
const maxBlobs = 1024

// Accept returns the media types to ask an upstream for when the client states
// none: all that runtimes know, indexes first.
func Accept() []string {
	return []string{
		ocispec.MediaTypeImageIndex, dockerList,
		ocispec.MediaTypeImageManifest, dockerManifest,
	}
}

// Manifest is what a manifest says.
type Manifest struct {
	MediaType string
	// Stated: the body itself states its media type.
	Stated bool
	// Blobs are config and layers in their order, each once; those without a
	// usable digest, of a size that cannot be, or that are to be had elsewhere
	// (urls) are left out. Empty for an index.
	Blobs []blob.Descriptor
	// Children are the manifests of an index.
	Children []Child
}

// Child is a manifest that an index names.
type Child struct {
	blob.Descriptor
	// Platform is nil if the index tells none.
	Platform *ocispec.Platform
}

// Parse reads the body of a manifest. told is the media type that upstream's
// answer or the parent's descriptor stated, or empty; the body's own word goes
// first, because the digest vouches for it. Errors: ErrInvalid and ErrSchema1,
// wrapped.
func Parse(body []byte, told string) (*Manifest, error) {
	var doc struct {
		Schema    json.Number          `json:"schemaVersion"`
		MediaType string               `json:"mediaType"`
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) { // null passes Unmarshal
		return nil, fmt.Errorf("%w: not a JSON object", ErrInvalid)
	}
	if doc.Schema == "1" || IsSchema1(doc.MediaType) || doc.MediaType == "" && IsSchema1(told) {
		return nil, ErrSchema1
	}
	m := &Manifest{MediaType: doc.MediaType, Stated: doc.MediaType != ""}
	if m.MediaType == "" {
		m.MediaType = told
	}
	if m.MediaType == "" { // OCI made the field optional
		switch {
		case doc.Manifests != nil:
			m.MediaType = ocispec.MediaTypeImageIndex
		case doc.Config != nil:
			m.MediaType = ocispec.MediaTypeImageManifest
		}
	}
	if !validMediaType(m.MediaType) {
		return nil, fmt.Errorf("%w: media type %.80q", ErrInvalid, m.MediaType)
	}
	if IsIndex(m.MediaType) {
		m.Children = children(doc.Manifests)
		return m, nil
	}
	if doc.Config != nil {
		m.Blobs = blobs(append([]ocispec.Descriptor{*doc.Config}, doc.Layers...))
	}
	return m, nil
}

// Refs returns what the manifest names, each once.
func (m *Manifest) Refs() []digest.Digest {
	var all []digest.Digest
	for _, b := range m.Blobs {
		all = append(all, b.Digest)
	}
	for _, c := range m.Children {
		if !slices.Contains(all, c.Digest) {
			all = append(all, c.Digest)
		}
	}
	return all
}

// Known says whether a media type is that of a manifest or an index.
func Known(mediaType string) bool { return slices.Contains(Accept(), mediaType) }

// IsIndex says whether a media type is that of a list of manifests.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerList
}

// IsSchema1 says whether a media type is that of what ErrSchema1 is about.
func IsSchema1(mediaType string) bool { return strings.HasPrefix(mediaType, dockerSchema1) }

// validMediaType keeps out of a header what is not a media type.
func validMediaType(s string) bool {
	parsed, params, err := mime.ParseMediaType(s)
	return err == nil && len(params) == 0 && parsed == strings.ToLower(s) && strings.Contains(s, "/")
}

func children(list []ocispec.Descriptor) []Child {
	var out []Child
	for _, d := range list[:min(len(list), maxBlobs)] {
		if b, ok := descriptor(d); ok {
			out = append(out, Child{b, d.Platform})
		}
	}
	return out
}

func blobs(list []ocispec.Descriptor) []blob.Descriptor {
	seen := make(map[string]bool)
	var out []blob.Descriptor
	for _, d := range list[:min(len(list), maxBlobs)] {
		b, ok := descriptor(d)
		if !ok || len(d.URLs) > 0 || seen[b.Digest.String()] {
			continue
		}
		seen[b.Digest.String()] = true
		out = append(out, b)
	}
	return out
}

func descriptor(d ocispec.Descriptor) (blob.Descriptor, bool) {
	dgst, err := blob.ParseDigest(d.Digest.String())
	if err != nil || d.Size < 0 || d.Size > blob.MaxSize {
		return blob.Descriptor{}, false
	}
	b := blob.Descriptor{Digest: dgst, Size: d.Size}
	if validMediaType(d.MediaType) {
		b.MediaType = d.MediaType
	}
	return b, true
}

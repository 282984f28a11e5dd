package seeder

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
)

// Mirror is the node as its clients see it. Images are named in full:
// REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@DIGEST. Errors are those of
// package blob, wrapped.
type Mirror interface {
	// Manifest brings the manifest of an image into the cache unless it is
	// there. What a tag is its registry is asked, by one HEAD.
	Manifest(ctx context.Context, image string) (Manifest, error)
	// Blobs brings blobs of the image's repository into the cache, in this
	// order, and returns when each is there or cannot be had.
	Blobs(ctx context.Context, image string, blobs []blob.Descriptor) error
}

// Manifest is what a manifest says: blobs, or children if it is an index.
type Manifest struct {
	blob.Descriptor
	Blobs    []blob.Descriptor
	Children []Child
	// Stale: the registry could not be asked, and this is what the tag was.
	Stale bool
}

// Child is a manifest that an index names.
type Child struct {
	blob.Descriptor
	Platform *ocispec.Platform // nil if the index tells none
}

// Lister tells what registries have. Errors are those of package blob, wrapped.
type Lister interface {
	// Tags returns the tags of a repository, REGISTRY/REPOSITORY.
	Tags(ctx context.Context, repository string) ([]string, error)
	// Repositories returns the repositories of a registry, without its name.
	Repositories(ctx context.Context, registry string) ([]string, error)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/archive"
	"shoal/proxy/manifest"
)

// maxExported bounds the files that an export has open.
const maxExported = 2000

// maxNesting is how deep indexes may be nested.
const maxNesting = 2

// export is what goes into an archive: blobs that are held until it is closed.
type export struct {
	s         *service
	platforms []string // empty: those that are here
	layout    archive.Layout
	seen      map[digest.Digest]bool
	held      []*blobcache.Blob
}

// exportImages collects what is to be exported. Everything is here, proven and
// held when it returns.
func (s *service) exportImages(ctx context.Context, ask admin.Export) (_ *admin.Archive, err error) {
	e := &export{s: s, platforms: ask.Platforms, seen: map[digest.Digest]bool{}}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	c := s.collect()
	added := map[string]bool{}
	for _, name := range ask.Images {
		i, found, err := c.find(name)
		if err != nil {
			return nil, err
		}
		for _, img := range found {
			tags := names(img, i)
			if err := e.root(ctx, img.Manifest.Digest, tags, added); err != nil {
				return nil, err
			}
		}
	}
	size := int64(-1)
	if !ask.Zstd {
		if size, err = e.layout.Size(); err != nil {
			return nil, err
		}
	}
	return &admin.Archive{Size: size, Close: e.close, Write: func(w io.Writer) error { return e.write(w, ask.Zstd) }}, nil
}

func (e *export) close() {
	for _, b := range e.held {
		b.Close()
	}
}

func (e *export) write(w io.Writer, packed bool) error {
	if !packed {
		return e.layout.Write(w)
	}
	z, err := zstd.NewWriter(w)
	if err != nil {
		return err
	}
	return errors.Join(e.layout.Write(z), z.Close())
}

// root adds an image by its names.
func (e *export) root(ctx context.Context, d digest.Digest, names []string, added map[string]bool) error {
	called := names[0]
	images, err := e.manifest(ctx, d, called, 0)
	if err != nil {
		return err
	}
	if len(images) == 0 {
		return fmt.Errorf("%w: %s has none of its platforms here: pull it through this node first", admin.ErrRefused, called)
	}
	known, _ := e.s.cache.Lookup(d)
	tags := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.Contains(n, "@") })
	tags = slices.DeleteFunc(tags, func(n string) bool { return added[n] })
	for _, tag := range tags {
		added[tag] = true
		e.layout.Index.Add(tag, known)
	}
	if len(tags) == 0 && !added[d.String()] {
		e.layout.Index.Add("", known)
	}
	added[d.String()] = true
	if img := images[0]; img.Config != "" {
		img.RepoTags = tags
		e.layout.Docker = append(e.layout.Docker, img)
	}
	return nil
}

// manifest adds a manifest and what it leads to, and returns what docker is to
// load of it: an entry for each image, that of this machine's platform first, an
// empty one for what is no image.
func (e *export) manifest(ctx context.Context, d digest.Digest, called string, depth int) (all []archive.DockerImage, err error) {
	m, body, err := e.s.proxy.Stored(ctx, d)
	if err != nil {
		return nil, lacking(called, d, err)
	}
	if depth > maxNesting {
		return nil, fmt.Errorf("%w: %s is an index of indexes of indexes", admin.ErrRefused, called)
	}
	if err := e.hold(ctx, d, called); err != nil {
		return nil, err
	}
	if !manifest.IsIndex(m.MediaType) {
		for _, b := range m.Blobs {
			if err := e.hold(ctx, b.Digest, called); err != nil {
				return nil, err
			}
		}
		return []archive.DockerImage{dockerImage(body)}, nil
	}
	wanted, err := e.children(m, called)
	if err != nil {
		return nil, err
	}
	for _, child := range wanted {
		images, err := e.manifest(ctx, child.Digest, called+platformText(child), depth+1)
		if err != nil {
			return nil, err
		}
		if child.Platform != nil && e.s.proxy.Wants(*child.Platform) {
			images = append(images, all...)
			all = nil
		}
		all = append(all, images...)
	}
	return all, nil
}

// children returns the manifests of an index that are wanted: those of the
// platforms that were named, or those that are here.
func (e *export) children(m *manifest.Manifest, called string) (wanted []manifest.Child, err error) {
	for _, c := range m.Children {
		if _, here := e.s.cache.Stat(c.Digest); here && len(e.platforms) == 0 {
			wanted = append(wanted, c)
		}
	}
	for _, p := range e.platforms {
		n := len(wanted)
		for _, c := range m.Children {
			if c.Platform != nil && matches(*c.Platform, p) {
				wanted = append(wanted, c)
			}
		}
		if len(wanted) == n {
			return nil, fmt.Errorf("%w: %s has no platform %s: it has %s", admin.ErrRefused, called, p, platforms(m))
		}
	}
	return wanted, nil
}

// platforms lists those of an index.
func platforms(m *manifest.Manifest) string {
	var all []string
	for _, c := range m.Children {
		if c.Platform != nil {
			all = append(all, c.Platform.OS+"/"+c.Platform.Architecture)
		}
	}
	return strings.Join(all, ", ")
}

// matches tells whether p is what people call OS/ARCH or OS/ARCH/VARIANT.
func matches(p ocispec.Platform, wanted string) bool {
	name := p.OS + "/" + p.Architecture
	return wanted == name || p.Variant != "" && wanted == name+"/"+p.Variant
}

func platformText(c manifest.Child) string {
	if c.Platform == nil {
		return ""
	}
	return " (" + c.Platform.OS + "/" + c.Platform.Architecture + ")"
}

// hold adds a blob, which stays until the export is closed.
func (e *export) hold(ctx context.Context, d digest.Digest, called string) error {
	if e.seen[d] {
		return nil
	}
	if len(e.held) == maxExported {
		return fmt.Errorf("%w: more than %d blobs: export fewer images at a time", admin.ErrRefused, maxExported)
	}
	b, err := e.s.cache.Get(ctx, d)
	if err != nil {
		return lacking(called, d, err)
	}
	e.seen[d] = true
	e.held = append(e.held, b)
	e.layout.Blobs = append(e.layout.Blobs, archive.Content{Descriptor: b.Descriptor(), File: b.File()})
	return nil
}

// lacking says what to do about a blob that is not here.
func lacking(called string, d digest.Digest, err error) error {
	if errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("%w: %s is not here in whole, it lacks %s: pull it through this node first, or name other platforms", admin.ErrRefused, called, d)
	}
	return err
}

// dockerImage is what manifest.json says of a manifest; empty if it is that of no
// image that docker could run.
func dockerImage(body []byte) (img archive.DockerImage) {
	var m ocispec.Manifest
	if err := json.Unmarshal(body, &m); err != nil || !slices.Contains([]string{ocispec.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json"}, m.Config.MediaType) {
		return img
	}
	img.Config = archive.BlobPath(blob.Descriptor{Digest: m.Config.Digest})
	for _, l := range m.Layers { // also those that are there twice
		img.Layers = append(img.Layers, archive.BlobPath(blob.Descriptor{Digest: l.Digest}))
	}
	return img
}

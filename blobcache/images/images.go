// Package images says which images the blobs of a cache are, what each of them
// takes of the disk, alone and together with others, and what goes with one that
// goes. It is pure: it works on what the caller knows of blobs and names, does
// no I/O, keeps no state and starts no goroutines.
package images

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// Blob is a blob that is here.
type Blob struct {
	blob.Descriptor
	Refs  []digest.Digest // what it names, if it is a manifest
	Used  time.Time
	InUse bool // somebody reads it
}

// Name is what people call a manifest: REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST.
type Name struct {
	Image    string
	Manifest digest.Digest
}

// byDigest tells a name that says no more than that the repository has it.
func (n Name) byDigest() bool { return strings.Contains(n.Image, "@") }

// Image is a manifest that people name, or that nothing else names, and all that
// is here of what it leads to.
type Image struct {
	// Names are the tags, or if there are none the names by digest, sorted.
	Names    []string
	Manifest blob.Descriptor
	Blobs    []digest.Digest // with the manifest, each once
	Size     int64           // bytes of Blobs
	Unique   int64           // bytes of those that no other image has
	Used     time.Time       // when any manifest of it was used last
	InUse    bool            // somebody reads a blob of it
	// Missing is how many blobs are not here that its manifests name. Of an index
	// one manifest is enough.
	Missing int
}

// Set is all that is here.
type Set struct {
	Images []Image // those first that were used last
	// Loose are the blobs of no image.
	Loose []Blob
	// Shared are the bytes that several images have, each counted once.
	Shared int64
}

// Find returns the images of blobs, of which each is there once.
func Find(blobs []Blob, names []Name) Set {
	w := world{blobs: make(map[digest.Digest]Blob, len(blobs)), named: map[digest.Digest]bool{}, tags: map[digest.Digest][]string{}, plain: map[digest.Digest][]string{}}
	for _, b := range blobs {
		w.blobs[b.Digest] = b
		for _, r := range b.Refs {
			w.named[r] = true
		}
	}
	for _, n := range names {
		if n.byDigest() {
			w.plain[n.Manifest] = append(w.plain[n.Manifest], n.Image)
		} else {
			w.tags[n.Manifest] = append(w.tags[n.Manifest], n.Image)
		}
	}
	return w.set(blobs)
}

// world is what Find knows.
type world struct {
	blobs       map[digest.Digest]Blob
	named       map[digest.Digest]bool // by a manifest that is here
	tags, plain map[digest.Digest][]string
}

func (w world) set(blobs []Blob) Set {
	var s Set
	holders := make(map[digest.Digest]int, len(blobs))
	for _, b := range blobs {
		if !w.root(b) {
			continue
		}
		img := w.image(b)
		for _, d := range img.Blobs {
			holders[d]++
		}
		s.Images = append(s.Images, img)
	}
	for i := range s.Images {
		for _, d := range s.Images[i].Blobs {
			if holders[d] == 1 {
				s.Images[i].Unique += w.blobs[d].Size
			}
		}
	}
	for _, b := range blobs {
		switch n := holders[b.Digest]; {
		case n == 0:
			s.Loose = append(s.Loose, b)
		case n > 1:
			s.Shared += b.Size
		}
	}
	slices.SortFunc(s.Images, func(a, b Image) int {
		return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.Manifest.Digest, b.Manifest.Digest))
	})
	return s
}

// root tells whether b is an image of its own: by its tag, or because it is a
// manifest that no other one names.
func (w world) root(b Blob) bool {
	if len(w.tags[b.Digest]) > 0 {
		return true
	}
	return !w.named[b.Digest] && (len(b.Refs) > 0 || len(w.plain[b.Digest]) > 0)
}

func (w world) image(root Blob) Image {
	img := Image{Names: slices.Clone(w.tags[root.Digest]), Manifest: root.Descriptor}
	if len(img.Names) == 0 {
		img.Names = slices.Clone(w.plain[root.Digest])
	}
	slices.Sort(img.Names)
	img.Blobs = reach([]digest.Digest{root.Digest}, w.refs)
	img.Blobs = slices.DeleteFunc(img.Blobs, func(d digest.Digest) bool { _, here := w.blobs[d]; return !here })
	for _, d := range img.Blobs {
		b := w.blobs[d]
		img.Size += b.Size
		img.InUse = img.InUse || b.InUse
		if len(b.Refs) > 0 || d == root.Digest {
			img.Missing += w.missing(b)
			if b.Used.After(img.Used) {
				img.Used = b.Used
			}
		}
	}
	return img
}

// missing is how many blobs that a manifest names are not here. One that names a
// manifest that is here is an index, and those for other platforms need not be.
func (w world) missing(b Blob) int {
	n := 0
	for _, d := range b.Refs {
		switch child, here := w.blobs[d]; {
		case !here:
			n++
		case len(child.Refs) > 0:
			return 0
		}
	}
	return n
}

func (w world) refs(d digest.Digest) []digest.Digest { return w.blobs[d].Refs }

// Without returns the blobs that nothing needs any more when the images go for
// which gone is true. Loose ones are not among them.
func (s Set) Without(gone func(Image) bool) []digest.Digest {
	needed := map[digest.Digest]bool{}
	var going []digest.Digest
	for _, img := range s.Images {
		if gone(img) {
			going = append(going, img.Blobs...)
			continue
		}
		for _, d := range img.Blobs {
			needed[d] = true
		}
	}
	var out []digest.Digest
	for _, d := range going {
		if !needed[d] {
			needed[d] = true // each once
			out = append(out, d)
		}
	}
	return out
}

// reach returns roots and all that refs leads to from there, each once.
func reach(roots []digest.Digest, refs func(digest.Digest) []digest.Digest) []digest.Digest {
	seen := make(map[digest.Digest]bool, len(roots))
	var out []digest.Digest
	add := func(d digest.Digest) {
		if !seen[d] {
			seen[d] = true
			out = append(out, d)
		}
	}
	for _, d := range roots {
		add(d)
	}
	for next := 0; next < len(out); next++ { //nolint:intrange // out grows meanwhile
		for _, d := range refs(out[next]) {
			add(d)
		}
	}
	return out
}

// Links are who names whom among blobs.
type Links struct {
	Refs    func(digest.Digest) []digest.Digest
	Parents func(digest.Digest) []digest.Digest // those that are here
}

// All returns root and all that it leads to, here or not.
func (l Links) All(root digest.Digest) []digest.Digest {
	return reach([]digest.Digest{root}, l.Refs)
}

// Alone returns root and all that it leads to and nothing else does: what goes
// with it.
func (l Links) Alone(root digest.Digest) []digest.Digest {
	all := l.All(root)
	in := make(map[digest.Digest]bool, len(all))
	for _, d := range all {
		in[d] = true
	}
	var stay []digest.Digest
	for _, d := range all[1:] {
		if slices.ContainsFunc(l.Parents(d), func(p digest.Digest) bool { return !in[p] }) {
			stay = append(stay, d)
		}
	}
	for _, d := range reach(stay, l.Refs) {
		in[d] = d == root // manifests cannot name themselves; links that say so are nobody's reason to stay
	}
	return slices.DeleteFunc(all, func(d digest.Digest) bool { return !in[d] })
}

package request

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// Image is what people name an image by: a tag, a digest, or with neither all of
// a repository.
type Image struct {
	Registry string
	Name     string // of the repository, with "library/" where that is left out
	Tag      string
	Digest   digest.Digest
}

// ParseImage reads [REGISTRY/]NAME, with :TAG or @DIGEST behind it or nothing,
// as runtimes do: nginx:1.27 is docker.io/library/nginx:1.27. Errors:
// ErrNameInvalid, ErrTagInvalid, blob.ErrDigestInvalid.
func ParseImage(s string) (i Image, err error) {
	name, dgst, byDigest := strings.Cut(s, "@")
	slash := strings.LastIndexByte(name, '/')
	if colon := strings.LastIndexByte(name, ':'); colon > slash {
		if name, i.Tag = name[:colon], name[colon+1:]; byDigest || !validTag(i.Tag) {
			return Image{}, fmt.Errorf("%w: %q: use NAME, NAME:TAG or NAME@DIGEST", ErrTagInvalid, shorten(s))
		}
	}
	if byDigest {
		if i.Digest, err = blob.ParseDigest(dgst); err != nil {
			return Image{}, err
		}
	}
	i.Registry, i.Name, err = repository("", name)
	if err != nil {
		return Image{}, err
	}
	return i, nil
}

// String returns the whole name, which ParseImage reads as the same image.
func (i Image) String() string {
	s := i.Registry + "/" + i.Name
	switch {
	case i.Tag != "":
		s += ":" + i.Tag
	case i.Digest != "":
		s += "@" + i.Digest.String()
	}
	return s
}

package seeder

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// maxPattern bounds a pattern, in bytes: names of registry, repository and tag
// have some 640.
const maxPattern = 1024

// pattern names images: REGISTRY/REPOSITORY[:TAG], where repository and tag may be
// patterns of path.Match, or REGISTRY/REPOSITORY@DIGEST.
type pattern struct {
	registry   string
	repository string
	tag        string // a pattern, unless digest is set
	digest     string
}

// parsePattern reads a pattern. tags is the tag of one that has none.
func parsePattern(s, tags string) (pattern, error) {
	bad := func(why string) (pattern, error) {
		return pattern{}, fmt.Errorf("%.80q %s: use REGISTRY/REPOSITORY:TAG, for instance docker.io/library/nginx:1.2*", s, why)
	}
	registry, rest, ok := strings.Cut(s, "/")
	switch {
	case len(s) > maxPattern, !ok, registry == "", strings.ContainsAny(s, " \t\r\n"):
		return bad("names no image")
	case strings.ContainsAny(registry, `*?[\`):
		return bad("is of any registry, which would be asked by whoever answers to it")
	case !strings.ContainsAny(registry, ".:") && registry != "localhost":
		return bad("names no registry in its first part")
	}
	p := pattern{registry: strings.ToLower(registry), repository: rest, tag: tags}
	if name, digest, ok := strings.Cut(rest, "@"); ok {
		p.repository, p.digest, p.tag = name, digest, ""
	} else if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		p.repository, p.tag = rest[:colon], rest[colon+1:]
	}
	for _, part := range []string{p.repository, p.tag + p.digest} {
		if _, err := path.Match(part, ""); err != nil || part == "" {
			return bad("has a part that matches nothing")
		}
	}
	if p.digest != "" && p.anyRepository() {
		return bad("has a digest and any repository")
	}
	return p, nil
}

func glob(s string) bool { return strings.ContainsAny(s, `*?[\`) }

func (p pattern) anyRepository() bool { return glob(p.repository) }

// covers tells whether a repository of the registry is meant. A star stands for
// one part of the name: team/* is team/app and not team/app/db.
func (p pattern) covers(repository string) bool {
	ok, err := path.Match(p.repository, repository)
	return ok && err == nil
}

// coversName is covers of REGISTRY/REPOSITORY.
func (p pattern) coversName(name string) bool {
	of, ok := strings.CutPrefix(name, p.registry+"/")
	return ok && p.covers(of)
}

// version reads of a tag that the pattern covers which version it is: what stands
// behind the last star is no part of it, so that *-alpine compares 1.27.3-alpine by
// 1.27.3.
func (p pattern) version(tag string) (*semver.Version, error) {
	if star := strings.LastIndexByte(p.tag, '*'); star >= 0 && !strings.ContainsAny(p.tag[star:], `?[\`) {
		tag = strings.TrimSuffix(tag, p.tag[star+1:])
	}
	v, err := semver.NewVersion(tag)
	if err != nil {
		return nil, errors.New("no version")
	}
	return v, nil
}

func (p pattern) coversTag(tag string) bool {
	ok, err := path.Match(p.tag, tag)
	return ok && err == nil
}

// has tells whether an image is meant, REGISTRY/REPOSITORY:TAG or @DIGEST.
func (p pattern) has(image string) bool {
	name := repository(image)
	if !p.coversName(name) {
		return false
	}
	if p.digest != "" {
		return image == name+"@"+p.digest
	}
	tag, ok := strings.CutPrefix(image, name+":")
	return ok && p.coversTag(tag)
}

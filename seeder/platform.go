package seeder

import (
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platforms are those of which images are wanted. None is every platform that an
// index names, and what it names besides.
type Platforms []ocispec.Platform

// AllPlatforms is how people write none.
const AllPlatforms = "all"

// maxPlatforms bounds a list of them; the Go toolchain knows some 50.
const maxPlatforms = 64

// ParsePlatforms reads OS/ARCHITECTURE[/VARIANT], or AllPlatforms alone.
func ParsePlatforms(words []string) (Platforms, error) {
	var all Platforms
	if len(words) > maxPlatforms {
		return nil, fmt.Errorf("%d platforms: use %d at most", len(words), maxPlatforms)
	}
	for _, s := range words {
		parts := strings.Split(s, "/")
		switch {
		case s == AllPlatforms && len(words) == 1:
			return nil, nil
		case len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") || len(s) > 64:
			return nil, fmt.Errorf("%.80q is no platform: use OS/ARCHITECTURE[/VARIANT], for instance linux/arm64, or %s", s, AllPlatforms)
		}
		p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
		if len(parts) == 3 {
			p.Variant = parts[2]
		}
		all = append(all, p)
	}
	return all, nil
}

// want tells whether p is one of them. A platform without a variant is any.
func (ps Platforms) want(p *ocispec.Platform) bool {
	if len(ps) == 0 {
		return true
	}
	return p != nil && slices.ContainsFunc(ps, func(w ocispec.Platform) bool {
		return w.OS == p.OS && w.Architecture == p.Architecture && (w.Variant == "" || w.Variant == p.Variant)
	})
}

// of returns the children of an index that are wanted. It is an error if there
// are none: an image that is not there was not fetched.
func (ps Platforms) of(children []Child) ([]Child, error) {
	var wanted []Child
	var has []string
	for _, c := range children {
		if ps.want(c.Platform) {
			wanted = append(wanted, c)
		}
		if c.Platform != nil && c.Platform.OS != "unknown" { // what is attested about an image has that
			has = append(has, platformName(*c.Platform))
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("%w %s: it has %s", errPlatform, ps, strings.Join(has[:min(len(has), 20)], ", "))
	}
	return wanted, nil
}

// String lists them.
func (ps Platforms) String() string {
	var names []string
	for _, p := range ps {
		names = append(names, platformName(p))
	}
	return strings.Join(names, ", ")
}

func platformName(p ocispec.Platform) string {
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name
}

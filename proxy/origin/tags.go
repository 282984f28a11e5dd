package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"shoal/blobcache/blob"
)

const (
	// DefaultStaleIfError covers an outage over night, and Docker Hub's limit
	// of pulls, which ends within six hours. Whoever can cut a node off from its
	// registry can hold it at an old image for so long, and no longer.
	DefaultStaleIfError = 24 * time.Hour
	// maxTagAge bounds both times: more is a typing error.
	maxTagAge = 365 * 24 * time.Hour
)

// TagAge says for how long tags are believed.
type TagAge struct {
	// Pattern is a pattern of repositories (see CheckPattern), a colon, and one
	// of path.Match for the tag, such as "library/*:v*".
	Pattern string
	Age     time.Duration
}

// ParseTagAge reads "PATTERN=DURATION".
func ParseTagAge(s string) (TagAge, error) {
	pattern, text, ok := strings.Cut(s, "=")
	if !ok {
		return TagAge{}, fmt.Errorf("%q: use PATTERN=DURATION, for instance *:v*=24h", s)
	}
	age, err := ParseAge(text)
	if err != nil {
		return TagAge{}, err
	}
	a := TagAge{Pattern: pattern, Age: age}
	return a, a.check()
}

// ParseAge reads how long what a tag is may be kept.
func ParseAge(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: use a number with a unit, for instance 90s or 24h", s)
	}
	if d < 0 || d > maxTagAge {
		return 0, fmt.Errorf("%q is out of range: use 0s to 8760h", s)
	}
	return d, nil
}

// split returns the patterns of repositories and of tags.
func (a TagAge) split() (repository, tag string) {
	colon := strings.LastIndexByte(a.Pattern, ':')
	return a.Pattern[:max(colon, 0)], a.Pattern[colon+1:]
}

func (a TagAge) check() error {
	repository, tag := a.split()
	_, err := path.Match(tag, "")
	if err != nil || tag == "" || strings.Contains(tag, "/") || CheckPattern(repository) != nil {
		return fmt.Errorf("%q is no pattern of tags: use for instance *:v* or library/nginx:1.*", a.Pattern)
	}
	if a.Age < 0 || a.Age > maxTagAge {
		return fmt.Errorf("%q may not be believed for %v: use 0s to 8760h", a.Pattern, a.Age)
	}
	return nil
}

// covers tells whether a is about the tag of the repository.
func (a TagAge) covers(name, tag string) bool {
	repository, tags := a.split()
	ok, err := path.Match(tags, tag)
	return ok && err == nil && covers(repository, name)
}

// TagAges returns for how long what the tag is may be believed without asking
// again, and for how long after that while there is nobody to ask: not at all if
// only the registry knows for whom the answer is.
func (r *Repository) TagAges(tag string) (maxAge, staleIfError time.Duration) {
	staleIfError = DefaultStaleIfError
	listed, ok := r.client.registries[r.registry]
	if !ok {
		return 0, staleIfError
	}
	if r.byClient != nil {
		return 0, 0
	}
	if listed.StaleIfError != 0 {
		staleIfError = max(0, listed.StaleIfError)
	}
	for _, a := range listed.MaxAge {
		if a.covers(r.name, tag) {
			return a.Age, staleIfError
		}
	}
	return 0, staleIfError
}

// Values of Registry.TagLeases.
const (
	LeasesOutage = "outage" // while no upstream can be asked, within StaleIfError
	LeasesPrefer = "prefer" // instead of asking, too
	LeasesOff    = "off"    // never, and none are made
)

// CheckTagLeases returns why s is not a value of Registry.TagLeases, or nil.
func CheckTagLeases(s string) error {
	if s != LeasesOutage && s != LeasesPrefer && s != LeasesOff {
		return fmt.Errorf("%q: use %s, %s or %s", s, LeasesOutage, LeasesPrefer, LeasesOff)
	}
	return nil
}

// TagLeases returns when leases of the repository's tags count. If only the
// registry knows for whom an answer is, they never do.
func (r *Repository) TagLeases() string {
	listed, ok := r.client.registries[r.registry]
	switch {
	case r.byClient != nil:
		return LeasesOff
	case !ok:
		return LeasesOutage
	}
	return cmp.Or(listed.TagLeases, LeasesOutage)
}

// Outage tells whether err, of a question to a repository, says that no
// upstream could be asked: all refused, failed, were too slow or had enough of
// this node. Whatever else a registry says is its answer.
func Outage(err error) bool {
	var resp *ResponseError
	if errors.As(err, &resp) {
		return resp.Status >= 500 || resp.Status == http.StatusTooManyRequests || resp.Status == http.StatusRequestTimeout
	}
	return errors.Is(err, blob.ErrUnavailable) || errors.Is(err, blob.ErrStalled) || errors.Is(err, context.DeadlineExceeded)
}

// Package request understands what a runtime asks of a registry mirror: which
// registry, repository, tag or digest a URL names, and which bytes a Range
// header wants. It is pure: no I/O, no state, no goroutines, and it never
// panics, whatever a client sends.
//
// The grammar is that of the OCI distribution specification 1.1, with two
// additions that runtimes rely on to mirror registries other than Docker Hub:
// the "ns" query parameter of containerd, and a registry as the first component
// of the path.
package request

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/proxy/name"
)

// DockerHub is the registry of names that state none.
const DockerHub = "docker.io"

// What can be wrong with a request's URL, besides blob.ErrDigestInvalid.
var (
	// ErrNoRoute: no endpoint of the pull API has such a path.
	ErrNoRoute = errors.New("no such endpoint")
	// ErrNameInvalid: not a repository name, or not the name of a registry.
	ErrNameInvalid = errors.New("invalid repository name")
	// ErrTagInvalid: neither a tag nor a digest.
	ErrTagInvalid = errors.New("invalid tag")
)

// Kind is an endpoint of the pull API.
type Kind int

// The endpoints.
const (
	Unknown   Kind = iota // nothing that is served here
	Ping                  // /v2/
	Manifest              // /v2/NAME/manifests/REFERENCE
	Blob                  // /v2/NAME/blobs/DIGEST
	Tags                  // /v2/NAME/tags/list
	Referrers             // /v2/NAME/referrers/DIGEST
)

// String returns the kind as metrics and logs spell it.
func (k Kind) String() string {
	switch k {
	case Ping:
		return "ping"
	case Manifest:
		return "manifest"
	case Blob:
		return "blob"
	case Tags:
		return "tags"
	case Referrers:
		return "referrers"
	default:
		return "unknown"
	}
}

// Request is what a URL names.
type Request struct {
	Kind Kind
	// Registry is "docker.io" or a lower-case host with an optional port.
	// Empty for Ping.
	Registry string
	// Name is the repository's name at that registry; the official images of
	// Docker Hub have "library/" in front.
	Name string
	// Tag and Digest: a Manifest has exactly one of them, Blob and Referrers
	// have a digest.
	Tag    string
	Digest digest.Digest
}

// Parse reads the URL of a request. Errors: ErrNoRoute, ErrNameInvalid,
// ErrTagInvalid, blob.ErrDigestInvalid, and blob.ErrNotFound for digests of
// another algorithm than sha256 and sha512, wrapped; the Kind of the result says
// even then which endpoint was meant.
func Parse(u *url.URL) (Request, error) {
	if u.Path == "/v2/" || u.Path == "/v2" {
		return Request{Kind: Ping}, nil
	}
	path, ok := strings.CutPrefix(u.Path, "/v2/")
	if !ok {
		return Request{}, fmt.Errorf("%w: %q", ErrNoRoute, shorten(u.Path))
	}
	kind, name, last := split(path)
	if kind == Unknown {
		return Request{}, fmt.Errorf("%w: %q", ErrNoRoute, shorten(u.Path))
	}
	var query url.Values
	var err error
	if u.RawQuery != "" {
		query, err = url.ParseQuery(u.RawQuery)
	}
	if err != nil { // a lost ns would silently mean another registry
		return Request{Kind: kind}, fmt.Errorf("%w: query: %w", ErrNameInvalid, err)
	}
	req := Request{Kind: kind}
	if req.Registry, req.Name, err = repository(query.Get("ns"), name); err != nil {
		return Request{Kind: kind}, err
	}
	if kind == Tags {
		return req, nil
	}
	if kind == Manifest && !strings.Contains(last, ":") {
		if !validTag(last) {
			return req, fmt.Errorf("%w: %q", ErrTagInvalid, shorten(last))
		}
		req.Tag = last
		return req, nil
	}
	req.Digest, err = blob.ParseAny(last)
	if err != nil && digest.Digest(last).Validate() == nil {
		// Sound, but of another algorithm: 404 sends the client to where it may be had.
		err = fmt.Errorf("%w: only sha256 and sha512 are served: %q", blob.ErrNotFound, shorten(last))
	}
	return req, err
}

// split cuts the path behind /v2/ from its end, because components of a
// repository's name may be called "blobs" or "manifests" too.
func split(path string) (kind Kind, name, last string) {
	path, last = cutLast(path)
	name, verb := cutLast(path)
	switch {
	case verb == "manifests":
		return Manifest, name, last
	case verb == "blobs" && last != "uploads":
		return Blob, name, last
	case verb == "referrers":
		return Referrers, name, last
	case verb == "tags" && last == "list":
		return Tags, name, last
	}
	return Unknown, "", ""
}

func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// The most bytes of a tag (OCI distribution specification 1.1, "Pulling
// manifests") and of a registry (RFC 1035, section 2.3.4).
const (
	maxTag      = 128
	maxRegistry = 255
)

// validTag tells whether s is a <reference> that is a tag, of the same
// specification: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}. It is read by hand for the
// reason of package name.
func validTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}

var hostGrammar = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::([0-9]{1,5}))?$`)

// repository tells registry and name of a repository apart: ns names the
// registry if it is set, else a first component that only a host can be, else
// it is Docker Hub.
func repository(ns, path string) (registry, repo string, err error) {
	registry, repo = ns, path
	if ns == "" {
		registry, repo = DockerHub, path
		first, rest, more := strings.Cut(path, "/")
		if more && (strings.ContainsAny(first, ".:") || first == "localhost") {
			registry, repo = first, rest
		}
	}
	if registry, err = parseRegistry(registry); err != nil {
		return "", "", err
	}
	if registry == DockerHub && !strings.Contains(repo, "/") {
		repo = "library/" + repo
	}
	if !name.Valid(repo) {
		return "", "", fmt.Errorf("%w: %q", ErrNameInvalid, shorten(repo))
	}
	return registry, repo, nil
}

func parseRegistry(s string) (string, error) {
	if s = strings.ToLower(s); s == DockerHub {
		return s, nil
	}
	m := hostGrammar.FindStringSubmatch(s)
	if m == nil || len(s) > maxRegistry {
		return "", fmt.Errorf("%w: registry %q", ErrNameInvalid, shorten(s))
	}
	if m[1] != "" {
		if port, err := strconv.ParseUint(m[1], 10, 16); err != nil || port == 0 {
			return "", fmt.Errorf("%w: port of registry %q", ErrNameInvalid, s)
		}
	}
	switch s {
	case "index.docker.io", "registry-1.docker.io": // other names of the same
		return DockerHub, nil
	}
	return s, nil
}

// shorten keeps what a stranger sent from filling a log line.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

package origintest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
)

// Kind is what a request asks for.
type Kind string

// The kinds of requests. CDN is a blob at the second host.
const (
	Ping      Kind = "ping"
	Manifest  Kind = "manifest"
	Blob      Kind = "blob"
	Tags      Kind = "tags"
	Referrers Kind = "referrer"
	Token     Kind = "token"
	CDN       Kind = "cdn"
	Other     Kind = "other"
)

// part is the piece of the path between repository and reference.
func (k Kind) part() string { return "/" + string(k) + "s" }

const (
	tokenPath = "/token"
	cdnPath   = "/cdn/"
)

// question is a request, understood.
type question struct {
	kind   Kind
	method string
	repo   string
	ref    string // tag or digest
}

// parse reads the path of the distribution specification, or one of ours.
func parse(req *http.Request) question {
	q := question{kind: Other, method: req.Method}
	path := req.URL.Path
	switch {
	case path == "/v2/" || path == "/v2":
		q.kind = Ping
		return q
	case path == tokenPath:
		q.kind = Token
		return q
	case strings.HasPrefix(path, cdnPath):
		q.kind, q.ref = CDN, strings.TrimPrefix(path, cdnPath)
		return q
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return q
	}
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		q.kind, q.repo = Tags, name
		return q
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return q
	}
	for _, kind := range []Kind{Manifest, Blob, Referrers} {
		if name, ok := strings.CutSuffix(rest[:i], kind.part()); ok {
			q.kind, q.repo, q.ref = kind, name, rest[i+1:]
		}
	}
	return q
}

// reply is what will be answered. It starts as the honest answer; faults
// change it.
type reply struct {
	status int
	header http.Header
	body   content
	off, n int64         // the part of body that is sent
	of     digest.Digest // what the body is counted as; may be empty

	chunked   bool          // no Content-Length
	mute      bool          // no headers, ever
	silentAt  int64         // stop sending after so many bytes; negative: never
	closeAt   int64         // close the connection after so many bytes; negative: never
	corruptAt int64         // flip a bit of this byte of the content; negative: never
	trickle   trickle       // zero: as fast as the link allows
	delay     time.Duration // before the headers
}

// answer returns the honest answer.
func (r *Registry) answer(req *http.Request, q question) *reply {
	if q.kind == Token {
		return r.issue(req)
	}
	if q.kind != CDN && r.o.Auth != nil {
		if p := r.authorize(req, q); p != nil {
			return p
		}
	}
	if q.method != http.MethodGet && q.method != http.MethodHead {
		return problem(http.StatusMethodNotAllowed, "UNSUPPORTED")
	}
	switch q.kind {
	case Ping:
		return document(http.StatusOK, "application/json", []byte("{}"))
	case Manifest:
		return r.manifest(q)
	case Blob:
		return r.blob(req, q)
	case CDN:
		return r.fromCDN(req, q)
	case Tags:
		return r.tags(q)
	case Referrers:
		return r.referrers(q)
	}
	return problem(http.StatusNotFound, "UNSUPPORTED")
}

func (r *Registry) manifest(q question) *reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := r.repos[q.repo]
	if repo == nil {
		return problem(http.StatusNotFound, "NAME_UNKNOWN")
	}
	dgst, ok := repo.tags[q.ref]
	if !ok {
		dgst = digest.Digest(q.ref)
	}
	d, ok := repo.manifests[dgst]
	if !ok {
		return problem(http.StatusNotFound, "MANIFEST_UNKNOWN")
	}
	return r.whole(d)
}

func (r *Registry) blob(req *http.Request, q question) *reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := r.repos[q.repo]
	if repo == nil {
		return problem(http.StatusNotFound, "NAME_UNKNOWN")
	}
	d, ok := repo.blobs[digest.Digest(q.ref)]
	if !ok {
		return problem(http.StatusNotFound, "BLOB_UNKNOWN")
	}
	if !r.o.RedirectBlobs {
		return ranged(req, r.whole(d), r.o.NoRange)
	}
	p := document(http.StatusTemporaryRedirect, "text/plain", nil)
	p.header.Set("Location", fmt.Sprintf("%s%s%s?signature=%d&method=%s",
		strings.TrimSuffix(r.cdn, "/"), cdnPath, d.Digest, r.signed, req.Method))
	return p
}

// fromCDN answers as object stores do: the signature is for one method, and
// credentials are refused.
func (r *Registry) fromCDN(req *http.Request, q question) *reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Header.Get("Authorization") != "" {
		return problem(http.StatusBadRequest, "UNEXPECTED_AUTHORIZATION")
	}
	query := req.URL.Query()
	if signed, err := strconv.Atoi(query.Get("signature")); err != nil || signed < r.signed ||
		query.Get("method") != req.Method {
		return problem(http.StatusForbidden, "SIGNATURE")
	}
	body, ok := r.bodies[digest.Digest(q.ref)]
	if !ok {
		return problem(http.StatusNotFound, "NO_SUCH_KEY")
	}
	d := blob.Descriptor{Digest: digest.Digest(q.ref), Size: body.Size(), MediaType: "application/octet-stream"}
	return ranged(req, r.whole(d), r.o.NoRange)
}

func (r *Registry) tags(q question) *reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := r.repos[q.repo]
	if repo == nil {
		return problem(http.StatusNotFound, "NAME_UNKNOWN")
	}
	tags := []string{}
	for tag := range repo.tags {
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	return document(http.StatusOK, "application/json", encode(map[string]any{"name": q.repo, "tags": tags}))
}

// referrers lists the manifests of the repository whose subject is the digest.
func (r *Registry) referrers(q question) *reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	index.SchemaVersion = 2
	if repo := r.repos[q.repo]; repo != nil {
		for _, d := range repo.manifests {
			var m v1.Manifest
			raw := make([]byte, d.Size)
			_, _ = r.bodies[d.Digest].ReadAt(raw, 0)
			if json.Unmarshal(raw, &m) == nil && m.Subject != nil && m.Subject.Digest == digest.Digest(q.ref) {
				index.Manifests = append(index.Manifests, descriptor(d))
			}
		}
	}
	return document(http.StatusOK, v1.MediaTypeImageIndex, encode(index))
}

// whole answers with all of d. r.mu is held.
func (r *Registry) whole(d blob.Descriptor) *reply {
	p := document(http.StatusOK, d.MediaType, nil)
	p.header.Set("Docker-Content-Digest", d.Digest.String())
	p.header.Set("Etag", strconv.Quote(d.Digest.String()))
	p.body, p.n, p.of = r.bodies[d.Digest], d.Size, d.Digest
	return p
}

// document answers with data.
func document(status int, mediaType string, data []byte) *reply {
	return &reply{
		status:    status,
		header:    http.Header{"Content-Type": {mediaType}},
		body:      bytesContent(data),
		n:         int64(len(data)),
		silentAt:  never,
		closeAt:   never,
		corruptAt: never,
	}
}

// problem answers with an error of the distribution specification.
func problem(status int, code string) *reply {
	return document(status, "application/json",
		encode(map[string]any{"errors": []any{map[string]string{"code": code, "message": "declared by origintest"}}}))
}

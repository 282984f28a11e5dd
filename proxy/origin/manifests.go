package origin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
)

// manifestTime is how long the body of a manifest may take in all. At its
// largest it takes 17 s over 2 Mbit/s.
const manifestTime = 30 * time.Second

// Media types of Docker's image manifest version 2, schema 2.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// acceptHeader returns what to ask for; nil is all that an image can be.
func acceptHeader(accept []string) http.Header {
	if len(accept) == 0 {
		accept = []string{v1.MediaTypeImageIndex, dockerList, v1.MediaTypeImageManifest, dockerManifest}
	}
	return http.Header{"Accept": {strings.Join(accept, ", ")}}
}

// Resolve asks what ref, a tag or digest, is: digest, size and media type of
// its manifest. It is one HEAD, which Docker Hub does not count; an upstream
// whose answer to that is of no use is asked for the manifest itself. accept
// are the media types that the client wants, nil for all.
func (r *Repository) Resolve(ctx context.Context, ref string, accept []string) (blob.Descriptor, error) {
	q := request{method: http.MethodHead, kind: kindManifest, path: "manifests/" + ref, header: acceptHeader(accept)}
	d, err := ask(ctx, r, q, func(up *upstream, resp *http.Response) (blob.Descriptor, error) {
		_ = resp.Body.Close()
		return r.headed(up, ref, resp)
	})
	var resp *ResponseError
	if err == nil && (d.Digest == "" || d.MediaType == "" || d.Size < 0) || errors.As(err, &resp) && noHead(resp.Status) {
		d, _, err = r.Manifest(ctx, ref, accept)
	}
	return d, err
}

// noHead tells whether a status means that HEAD is not to be had.
func noHead(status int) bool {
	return status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented
}

// headed reads the headers about a manifest. What they do not tell is empty.
func (r *Repository) headed(up *upstream, ref string, resp *http.Response) (blob.Descriptor, error) {
	d := blob.Descriptor{Size: resp.ContentLength, MediaType: mediaType(resp)}
	if d.MediaType == "text/html" {
		return d, lie(up, blob.ErrUnavailable, "answer to manifest %.80q is a web page", ref)
	}
	if d.Size > r.client.o.MaxManifest {
		return d, fmt.Errorf("%s: %w: manifest of %d bytes", up.base, blob.ErrTooLarge, d.Size)
	}
	if v := resp.Header.Get("Docker-Content-Digest"); v != "" {
		dgst, err := blob.ParseAny(v)
		if err != nil {
			return d, lie(up, blob.ErrCorrupt, "%v", err)
		}
		d.Digest = dgst
	}
	if isDigest(ref) && d.Digest != "" {
		if contradicts(d.Digest.String(), digest.Digest(ref)) {
			return d, lie(up, blob.ErrCorrupt, "answer to %s names %s", ref, d.Digest)
		}
		d.Digest = digest.Digest(ref)
	}
	return d, nil
}

// contradicts tells whether an upstream that was asked for want names another
// content. Some name the one that was asked for by a digest of their own choice.
func contradicts(told string, want digest.Digest) bool {
	if told == "" || told == want.String() {
		return false
	}
	d, err := blob.ParseAny(told)
	return err != nil || d.Algorithm() == want.Algorithm()
}

// isDigest tells a digest from a tag, which has no colon.
func isDigest(ref string) bool { return strings.Contains(ref, ":") }

// Manifest reads the manifest of ref, a tag or a digest that blob.ParseAny takes,
// of at most Options.MaxManifest bytes. The digest of the descriptor is computed, and
// checked where ref or the upstream tells one; a mismatch is blob.ErrCorrupt.
func (r *Repository) Manifest(ctx context.Context, ref string, accept []string) (blob.Descriptor, []byte, error) {
	q := request{method: http.MethodGet, kind: kindManifest, path: "manifests/" + ref, header: acceptHeader(accept)}
	var raw []byte
	d, err := ask(ctx, r, q, func(up *upstream, resp *http.Response) (d blob.Descriptor, err error) {
		defer resp.Body.Close()
		if d, err = r.headed(up, ref, resp); err != nil {
			return d, err
		}
		if raw, err = r.readManifest(up, resp); err != nil {
			return d, err
		}
		return checkManifest(up, ref, d, raw)
	})
	if err != nil {
		return blob.Descriptor{}, nil, err
	}
	return d, raw, nil
}

// readManifest reads a body that fits into memory, in its time.
func (r *Repository) readManifest(up *upstream, resp *http.Response) ([]byte, error) {
	most := r.client.o.MaxManifest
	if b, ok := resp.Body.(*body); ok {
		defer b.within(manifestTime)()
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", up.base, blob.ErrUnavailable, err)
	}
	if int64(len(raw)) > most {
		return nil, fmt.Errorf("%s: %w: manifest over %d bytes", up.base, blob.ErrTooLarge, most)
	}
	return raw, nil
}

// checkManifest completes d, which the headers told, from the body.
func checkManifest(up *upstream, ref string, d blob.Descriptor, raw []byte) (blob.Descriptor, error) {
	want, algorithm := d.Digest, digest.SHA256
	if isDigest(ref) {
		want = digest.Digest(ref)
	}
	if want != "" {
		algorithm = want.Algorithm()
	}
	dgst := algorithm.FromBytes(raw)
	if want != "" && dgst != want {
		return d, lie(up, blob.ErrCorrupt, "manifest %.80q is %s", ref, dgst)
	}
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(raw, &doc) != nil {
		return d, lie(up, blob.ErrUnavailable, "manifest %.80q is not JSON", ref)
	}
	d.Digest, d.Size = dgst, int64(len(raw))
	// The body's own word is covered by the digest; Content-Type is not.
	if doc.MediaType != "" {
		d.MediaType = doc.MediaType
	}
	return d, nil
}

// Manifests returns the repository's manifests as a source, by digest. accept
// are the media types to ask for, nil for all. Range is not asked for:
// registries do not serve it on manifests.
func (r *Repository) Manifests(accept []string) blob.Source {
	return manifests{Repository: r, accept: accept}
}

type manifests struct {
	*Repository
	accept []string
}

// Open is of blob.Source.
func (s manifests) Open(ctx context.Context, d blob.Descriptor, _ blob.Range) (*blob.Stream, error) {
	q := request{
		method: http.MethodGet,
		kind:   kindManifest,
		path:   "manifests/" + d.Digest.String(),
		header: acceptHeader(s.accept),
	}
	return ask(ctx, s.Repository, q, func(up *upstream, resp *http.Response) (*blob.Stream, error) {
		_, err := s.headed(up, d.Digest.String(), resp)
		var st *blob.Stream
		if err == nil {
			st, err = s.client.stream(up, d, blob.Range{Length: -1}, resp)
		}
		if err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
		return st, nil
	})
}

// Forward asks for something else of the repository, such as "tags/list" or
// "referrers/DIGEST", and returns the answer as it is. Its status is a
// success; the caller closes its body.
func (r *Repository) Forward(ctx context.Context, method, suffix, query string, accept []string) (*http.Response, error) {
	q := request{method: method, kind: kindForward, path: suffix, query: query}
	if len(accept) > 0 {
		q.header = acceptHeader(accept)
	}
	return ask(ctx, r, q, func(_ *upstream, resp *http.Response) (*http.Response, error) {
		return resp, nil
	})
}

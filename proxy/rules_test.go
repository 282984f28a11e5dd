package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/origin/origintest"
)

// The rules are those of what real clients do to a mirror: dockerd, containerd,
// podman and skopeo were measured, and each rule is what one of them needs.

// upstreamFailures are all the ways in which an origin does not give.
var upstreamFailures = map[string]origintest.Effect{
	"404":        origintest.Status(404),
	"401":        origintest.Status(401),
	"401 basic":  origintest.Challenge(`Basic realm="x"`),
	"403":        origintest.Status(403),
	"429":        origintest.TooMany(60 * time.Second),
	"429 at all": origintest.Status(429),
	"500":        origintest.Status(500),
	"502":        origintest.Status(502),
	"503":        origintest.Status(503),
	"504":        origintest.Status(504),
	"dropped":    origintest.Drop(),
	"silent":     origintest.Silence(),
	"html":       origintest.HTML(),
}

func TestRule1WhatCannotBeServedIs404BeforeHeaders(t *testing.T) {
	for name, effect := range upstreamFailures {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				t := r.t
				img := addImage(t, r.hub, "library/app", "v1")
				r.hub.Fault(origintest.Fault{Effect: effect})
				for _, c := range []struct{ method, path, code string }{
					{"GET", "/v2/library/app/blobs/" + img.mine.blobs[1].ref(), "BLOB_UNKNOWN"},
					{"HEAD", "/v2/library/app/blobs/" + img.mine.blobs[1].ref(), ""},
					{"GET", "/v2/library/app/manifests/v1", "MANIFEST_UNKNOWN"},
					{"HEAD", "/v2/library/app/manifests/v1", ""},
					{"GET", "/v2/library/app/manifests/" + img.index.ref(), "MANIFEST_UNKNOWN"},
					{"GET", "/v2/library/app/tags/list", "NAME_UNKNOWN"},
				} {
					a := r.do(c.method, c.path)
					if a.StatusCode != http.StatusNotFound || a.took > 10*time.Second {
						t.Errorf("%s %s: %d after %v", c.method, c.path, a.StatusCode, a.took)
					}
					if c.code != "" {
						a.refused(t, http.StatusNotFound, c.code)
					}
					if a.Header.Get("WWW-Authenticate") != "" || a.Header.Get("Retry-After") != "" {
						t.Errorf("%s %s: headers %v", c.method, c.path, a.Header)
					}
				}
			})
		})
	}
}

func TestRule1NobodyAnswersAtAll(t *testing.T) {
	bubble(t, options{fetcher: hanging{}}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		a := r.get("/v2/library/app/blobs/" + img.mine.blobs[0].ref())
		a.refused(t, http.StatusNotFound, "BLOB_UNKNOWN")
		if a.took > 10*time.Second {
			t.Errorf("took %v", a.took)
		}
	})
}

// hanging is a swarm that answers nothing until the caller gives up.
type hanging struct{}

func (hanging) Fetch(ctx context.Context, _ blob.Descriptor, _ blob.Source) (*blobcache.Fill, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestRule2EveryWaitIsBounded(t *testing.T) {
	// The origin falls silent in the middle of a body: the client is cut
	// off, because no client has a clock of its own.
	bubble(t, options{}, func(r *rig) {
		t := r.t
		b := addBlob(r.hub, "library/app", random(1, 5*blob.PieceSize))
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.SilenceAfter(2*blob.PieceSize + 5)})
		a := r.get("/v2/library/app/blobs/" + b.ref())
		if a.StatusCode != http.StatusOK || a.err == nil || !bytes.Equal(a.body, b.bytes[:2*blob.PieceSize]) {
			t.Errorf("status %d, %d bytes, %v; want two pieces and no clean end", a.StatusCode, len(a.body), a.err)
		}
		if a.took > time.Minute {
			t.Errorf("took %v", a.took)
		}
	})
}

func TestRule3HeadersGoOutBeforeBytes(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		b := addBlob(r.hub, "library/app", random(1, 600))
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Trickle(10, time.Second)})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://mirror/v2/library/app/blobs/"+b.ref(), nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if took := time.Since(start); took > time.Second {
			t.Errorf("headers after %v", took)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(body, b.bytes) || time.Since(start) < 30*time.Second {
			t.Errorf("%d bytes after %v, %v", len(body), time.Since(start), err)
		}
	})
}

func TestRule3ClientFarAheadOfTheFillWaits(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		b := addBlob(r.hub, "library/app", random(1, 6*blob.PieceSize))
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Times: 1, Effect: origintest.Trickle(64<<10, time.Second/10)})
		a := r.get("/v2/library/app/blobs/"+b.ref(), "Range: bytes=5242880-")
		a.wants(t, http.StatusPartialContent, b.bytes[5*blob.PieceSize:])
		if a.Header.Get("Content-Range") != "bytes 5242880-6291455/6291456" {
			t.Errorf("Content-Range %q", a.Header.Get("Content-Range"))
		}
	})
}

func TestRule4WrongBytesNeverEndCleanly(t *testing.T) {
	for _, at := range []int64{0, 2*blob.PieceSize + 7, 3*blob.PieceSize - 1} {
		t.Run(strconv.FormatInt(at, 10), func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				t := r.t
				b := addBlob(r.hub, "library/app", random(1, 3*blob.PieceSize))
				r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Corrupt(at)})
				// Slow enough that two pieces flow before the third is here.
				r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Trickle(64<<10, time.Second/100)})
				path := "/v2/library/app/blobs/" + b.ref()
				if a := r.get(path); a.StatusCode != http.StatusOK || a.err == nil || len(a.body) != 2*blob.PieceSize {
					t.Errorf("status %d, %d bytes, %v", a.StatusCode, len(a.body), a.err)
				}
				// A client that resumes on top of bad bytes gets nothing.
				r.get(path, "Range: bytes=2097152-").refused(t, http.StatusNotFound, "BLOB_UNKNOWN")
				if _, ok := r.cache.Stat(b.Digest); ok {
					t.Error("wrong bytes are in the cache")
				}
				r.hub.ClearFaults()
				sleep(61 * time.Second)
				r.get(path).wants(t, http.StatusOK, b.bytes)
			})
		})
	}
}

func TestRule4ARangeOfWrongBytesNeverEndsCleanly(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		b := addBlob(r.hub, "library/app", random(1, 3*blob.PieceSize))
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Corrupt(10)})
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Trickle(64<<10, time.Second/100)})
		a := r.get("/v2/library/app/blobs/"+b.ref(), "Range: bytes=0-99")
		if a.StatusCode != http.StatusPartialContent || a.err == nil || len(a.body) > 0 {
			t.Errorf("status %d, %d bytes, %v", a.StatusCode, len(a.body), a.err)
		}
	})
}

func TestRule5TheUpstreamOwnsTags(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		first := addImage(t, r.hub, "library/app", "v1")
		head := "HEAD manifest v1 -> 200"
		r.get("/v2/library/app/manifests/v1").wants(t, http.StatusOK, first.index.bytes)
		r.asked(r.hub, head, "GET manifest "+first.index.ref()+" -> 200")
		// Again within the second: nothing; by then: one HEAD and no GET.
		r.get("/v2/library/app/manifests/v1").wants(t, http.StatusOK, first.index.bytes)
		r.do("HEAD", "/v2/library/app/manifests/v1").wants(t, http.StatusOK, nil)
		r.asked(r.hub)
		sleep(time.Second)
		r.get("/v2/library/app/manifests/v1").wants(t, http.StatusOK, first.index.bytes)
		r.asked(r.hub, head)
		// The tag moves.
		moved := addManifest(t, r.hub, "library/app", "v1", ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex})
		sleep(time.Second)
		r.get("/v2/library/app/manifests/v1").wants(t, http.StatusOK, moved.bytes)
		r.asked(r.hub, head, "GET manifest "+moved.ref()+" -> 200")
		// A tag that nobody asked for while the registry was up is not known
		// while it is down, though its manifest still is.
		r.hub.AddManifest("library/app", "v2", moved.MediaType, moved.bytes)
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(503)})
		r.get("/v2/library/app/manifests/v2").refused(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
		a := r.get("/v2/library/app/manifests/" + moved.ref())
		a.wants(t, http.StatusOK, moved.bytes)
		if a.Header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
			t.Errorf("Content-Type %q", a.Header.Get("Content-Type"))
		}
	})
}

func TestRule6HeadersOfManifests(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		for _, c := range []struct {
			method, ref string
			want        thing
			body        []byte
			asked       []string
		}{
			{"HEAD", "v1", img.index, nil, []string{"HEAD manifest v1 -> 200"}}, // a HEAD costs no GET
			{"GET", "v1", img.index, img.index.bytes, []string{"GET manifest " + img.index.ref() + " -> 200"}},
			{"HEAD", "v1", img.index, nil, nil},
			{"HEAD", img.index.ref(), img.index, nil, nil},
			{"GET", img.index.ref(), img.index, img.index.bytes, nil},
			{"HEAD", img.mine.manifest.ref(), img.mine.manifest, nil, []string{"GET manifest " + img.mine.manifest.ref() + " -> 200"}},
			{"GET", img.mine.manifest.ref(), img.mine.manifest, img.mine.manifest.bytes, nil},
		} {
			a := r.do(c.method, "/v2/library/app/manifests/"+c.ref)
			a.wants(t, http.StatusOK, c.body)
			got := []string{
				a.Header.Get("Content-Type"), a.Header.Get("Content-Length"),
				a.Header.Get("Docker-Content-Digest"), a.Header.Get("Content-Encoding"), fmt.Sprint(a.TransferEncoding),
			}
			want := []string{c.want.MediaType, strconv.FormatInt(c.want.Size, 10), c.want.ref(), "", "[]"}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s %s: headers %q, want %q", c.method, c.ref, got, want)
			}
			r.asked(r.hub, c.asked...)
		}
	})
}

func TestRule6HeadersOfBlobs(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		b := addBlob(r.hub, "library/app", random(1, 1000))
		for _, method := range []string{"HEAD", "GET", "GET", "HEAD"} { // by the upstream, a fill, the cache
			a := r.do(method, "/v2/library/app/blobs/"+b.ref(), "Accept-Encoding: gzip")
			body := b.bytes
			if method == "HEAD" {
				body = nil
			}
			a.wants(t, http.StatusOK, body)
			got := []string{
				a.Header.Get("Content-Type"), a.Header.Get("Content-Length"), a.Header.Get("Docker-Content-Digest"),
				a.Header.Get("Accept-Ranges"), a.Header.Get("Content-Encoding"), fmt.Sprint(a.TransferEncoding),
			}
			want := []string{"application/octet-stream", "1000", b.ref(), "bytes", "", "[]"}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: headers %q, want %q", method, got, want)
			}
		}
		r.asked(r.hub, "HEAD blob "+b.ref()+" -> 200", "GET blob "+b.ref()+" -> 200")
	})
}

func TestRule7PingIsAnsweredAtOnce(t *testing.T) {
	bubble(t, options{fetcher: hanging{}}, func(r *rig) {
		t := r.t
		r.hub.Fault(origintest.Fault{Effect: origintest.Silence()})
		for _, path := range []string{"/v2/", "/v2"} {
			a := r.get(path)
			a.wants(t, http.StatusOK, []byte("{}"))
			if a.took != 0 || a.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
				t.Errorf("%s took %v, %v", path, a.took, a.Header)
			}
		}
		r.asked(r.hub)
		r.asked(r.other)
	})
}

func TestRule8NeverAChallenge(t *testing.T) {
	for status, effect := range map[int]origintest.Effect{
		401: origintest.Challenge(`Basic realm="Docker Hub"`),
		403: origintest.Status(403),
	} {
		bubble(t, options{}, func(r *rig) {
			t := r.t
			hub, other := addBlob(r.hub, "library/app", []byte("hub")), addBlob(r.other, "org/app", []byte("other"))
			for _, registry := range []*origintest.Registry{r.hub, r.other} {
				registry.Fault(origintest.Fault{Effect: effect})
			}
			for path, want := range map[string]int{
				"/v2/":                                           200,
				"/v2/library/app/manifests/v1":                   404,
				"/v2/app/blobs/" + hub.ref():                     404,
				"/v2/docker.io/app/manifests/v1":                 404,
				"/v2/app/manifests/v1?ns=docker.io":              404,
				"/v2/other.example/org/app/manifests/v1":         status,
				"/v2/org/app/manifests/v1?ns=other.example":      status,
				"/v2/other.example/org/app/blobs/" + other.ref(): status,
				"/v2/other.example/org/app/tags/list":            status,
			} {
				a := r.get(path)
				if a.StatusCode != want || a.Header.Get("WWW-Authenticate") != "" {
					t.Errorf("%s: %d with challenge %q, want %d", path, a.StatusCode, a.Header.Get("WWW-Authenticate"), want)
				}
			}
		})
	}
}

func TestRule8CredentialsStayHere(t *testing.T) {
	bubble(t, options{auth: &origintest.TokenAuth{}}, func(r *rig) {
		t := r.t
		b := addBlob(r.hub, "library/app", []byte("content"))
		r.get("/v2/library/app/blobs/"+b.ref(), "Authorization: Basic dXNlcjpwYXNzd29yZA==").wants(t, http.StatusOK, b.bytes)
		for _, q := range r.hub.Requests() {
			if q.Auth != "" && q.Auth != "Bearer token-1" {
				t.Errorf("%s with Authorization %q", q, q.Auth)
			}
		}
		r.asked(r.hub, "GET blob "+b.ref()+" -> 401", "GET token -> 200", "GET blob "+b.ref()+" -> 200")
	})
}

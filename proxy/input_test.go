package proxy

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
	"shoal/proxy/origin/origintest"
)

const zero = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func TestBadRequests(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		for _, c := range []struct {
			method, path string
			status       int
			code         string
		}{
			{"GET", "/", 404, "UNSUPPORTED"},
			{"GET", "/v1/_ping", 404, "UNSUPPORTED"},
			{"GET", "/v2/_catalog", 404, "UNSUPPORTED"},
			{"GET", "/v2/../../etc/passwd", 404, "UNSUPPORTED"},
			{"GET", "/v2/a/../b/manifests/v1", 400, "NAME_INVALID"},
			{"GET", "/v2/App/manifests/v1", 400, "NAME_INVALID"},
			{"GET", "/v2/app/manifests/v1?ns=%25zz", 400, "NAME_INVALID"},
			{"GET", "/v2/app/manifests/v1?ns=user%40host.com", 400, "NAME_INVALID"},
			{"GET", "/v2/app/manifests/.INVALID_MANIFEST_NAME", 404, "MANIFEST_UNKNOWN"},
			{"GET", "/v2/app/manifests/sha256:123", 400, "DIGEST_INVALID"},
			{"GET", "/v2/app/blobs/sha256:" + strings.Repeat("A", 64), 400, "DIGEST_INVALID"},
			{"GET", "/v2/app/blobs/sha384:" + strings.Repeat("0", 96), 404, "BLOB_UNKNOWN"},
			{"GET", "/v2/127.0.0.1:80/app/manifests/v1", 404, "NAME_UNKNOWN"},
			{"GET", "/v2/localhost/app/manifests/v1", 404, "NAME_UNKNOWN"},
			{"GET", "/v2/app/manifests/v1?ns=169.254.169.254", 404, "NAME_UNKNOWN"},
			{"POST", "/v2/app/blobs/uploads/", 405, "UNSUPPORTED"},
			{"PUT", "/v2/app/manifests/v1", 405, "UNSUPPORTED"},
			{"DELETE", "/v2/app/blobs/" + zero, 405, "UNSUPPORTED"},
			{"PATCH", "/v2/", 405, "UNSUPPORTED"},
			{"BREW", "/v2/App/", 405, "UNSUPPORTED"},
		} {
			a := r.do(c.method, c.path)
			a.refused(t, c.status, c.code)
			if t.Failed() {
				t.Fatalf("%s %s", c.method, c.path)
			}
			if c.status == http.StatusMethodNotAllowed && a.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s: Allow %q", c.method, a.Header.Get("Allow"))
			}
		}
		r.asked(r.hub)
		r.asked(r.other)
		if n := r.logged("level=WARN"); n != 0 {
			t.Errorf("nonsense from clients made %d warnings:\n%s", n, r.log)
		}
	})
}

// What is no manifest is never served as one, whoever vouches for it.
func TestBadManifests(t *testing.T) {
	index := ocispec.MediaTypeImageIndex
	page := []byte("<html><body>sign in</body></html>")
	large := []byte(`{"mediaType":"` + index + `","x":"` + strings.Repeat("x", 10<<20) + `"}`)
	for name, c := range map[string]struct {
		data    []byte
		effects map[string]origintest.Effect // by method
		code    string
		byTag   bool // whether HEAD of the tag is answered 200, from the upstream's HEAD
	}{
		"not JSON":              {data: page, code: "MANIFEST_INVALID", byTag: true},
		"a JSON list":           {data: []byte(`[]`), code: "MANIFEST_INVALID", byTag: true},
		"empty":                 {data: []byte{}, code: "MANIFEST_INVALID", byTag: true},
		"10 MB":                 {data: large, code: "SIZE_INVALID"},
		"10 MB, told as little": {data: large, effects: map[string]origintest.Effect{"HEAD": origintest.Header("Content-Length", "100")}, code: "SIZE_INVALID", byTag: true},
		"HTML with 200":         {data: []byte(`{"manifests":[]}`), effects: map[string]origintest.Effect{"GET": origintest.HTML()}, code: "MANIFEST_UNKNOWN", byTag: true},
		"other bytes":           {data: []byte(`{"manifests":[]}`), effects: map[string]origintest.Effect{"GET": origintest.Body([]byte(`{"manifests":{}}`))}, code: "MANIFEST_UNKNOWN", byTag: true},
		"lies about its length": {data: []byte(`{"manifests":[]}`), effects: map[string]origintest.Effect{"GET": origintest.LieLength(-1)}, code: "MANIFEST_UNKNOWN", byTag: true},
		"ends early":            {data: []byte(`{"manifests":[]}`), effects: map[string]origintest.Effect{"GET": origintest.CloseEarly(5)}, code: "MANIFEST_UNKNOWN", byTag: true},
		"lies about its digest": {data: []byte(`{"manifests":[]}`), effects: map[string]origintest.Effect{"HEAD": origintest.LieDigest(zero), "GET": origintest.LieDigest(zero)}, code: "MANIFEST_UNKNOWN", byTag: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				t := r.t
				d := r.hub.AddManifest("library/app", "v1", index, c.data)
				for method, effect := range c.effects {
					r.hub.Fault(origintest.Fault{Kind: origintest.Manifest, Method: method, Effect: effect})
				}
				for range 2 {
					a := r.get("/v2/library/app/manifests/v1")
					a.refused(t, http.StatusNotFound, c.code)
					if a.took > 10*time.Second {
						t.Errorf("took %v", a.took)
					}
					want := http.StatusNotFound
					if c.byTag {
						want = http.StatusOK
					}
					if a := r.do("HEAD", "/v2/library/app/manifests/v1"); a.StatusCode != want && a.StatusCode != http.StatusNotFound {
						t.Errorf("HEAD: %d", a.StatusCode)
					}
					a = r.get("/v2/library/app/manifests/" + d.Digest.String())
					if a.StatusCode != http.StatusNotFound || a.err != nil {
						t.Errorf("by digest: %d, %d bytes", a.StatusCode, len(a.body))
					}
				}
			})
		})
	}
}

// A layer that is asked for as a manifest, and is had from a member or the
// cache, where no upstream has looked at its size.
func TestLayerAsManifest(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		large, small := random(1, blob.MaxManifestSize+1), random(2, 1000)
		swarm := peers{}
		for _, data := range [][]byte{large, small} {
			swarm[digest.FromBytes(data)] = data
		}
		r.proxy.fetcher = swarm.fetcher(r.cache)
		for range 2 {
			r.get("/v2/app/manifests/"+digest.FromBytes(large).String()).refused(r.t, http.StatusNotFound, "SIZE_INVALID")
			r.get("/v2/app/manifests/"+digest.FromBytes(small).String()).refused(r.t, http.StatusNotFound, "MANIFEST_INVALID")
			sleep(time.Second) // now they are in the cache
		}
		r.asked(r.hub)
	})
}

// Lies about the type do not matter: the body's own word does.
func TestManifestTypeIsTheBodys(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		r.hub.Fault(origintest.Fault{Method: "GET", Effect: origintest.LieType("text/plain")})
		r.hub.Fault(origintest.Fault{Method: "HEAD", Effect: origintest.LieType("application/octet-stream")})
		for range 2 {
			a := r.get("/v2/library/app/manifests/v1")
			a.wants(t, http.StatusOK, img.index.bytes)
			if a.Header.Get("Content-Type") != img.index.MediaType {
				t.Errorf("Content-Type %q", a.Header.Get("Content-Type"))
			}
		}
		// The cache knows better than the upstream's HEAD.
		if a := r.do("HEAD", "/v2/library/app/manifests/v1"); a.Header.Get("Content-Type") != img.index.MediaType {
			t.Errorf("HEAD: Content-Type %q", a.Header.Get("Content-Type"))
		}
	})
}

// A manifest without a media type of its own has that of the HEAD or of its
// parent, and keeps it when the origin is down.
func TestManifestTypeIsRemembered(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		const mine = "application/vnd.example.manifest+json"
		addManifest(t, r.hub, "library/app", "mine", mine, map[string]any{"things": []any{}})
		child := addManifest(t, r.hub, "library/app", "", "x/y", map[string]any{"schemaVersion": 3})
		addManifest(t, r.hub, "library/app", "v1", ocispec.MediaTypeImageIndex, ocispec.Index{
			MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{descriptor(child)},
		})
		r.get("/v2/library/app/manifests/v1")
		for range 2 {
			for ref, want := range map[string]string{"mine": mine, child.ref(): "x/y"} {
				if a := r.get("/v2/library/app/manifests/" + ref); a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != want {
					t.Errorf("%s: %d, Content-Type %q, want %q", ref, a.StatusCode, a.Header.Get("Content-Type"), want)
				}
			}
		}
		r.hub.Fault(origintest.Fault{Effect: origintest.Drop()})
		if a := r.get("/v2/library/app/manifests/" + child.ref()); a.Header.Get("Content-Type") != "x/y" {
			t.Errorf("with the origin down: %d, Content-Type %q", a.StatusCode, a.Header.Get("Content-Type"))
		}
	})
}

func TestUpstreamWithoutUsefulHead(t *testing.T) {
	for name, effect := range map[string]origintest.Effect{
		"405": origintest.Status(405), "no digest": origintest.Header("Docker-Content-Digest", ""), "chunked": origintest.Chunked(),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				t := r.t
				img := addImage(t, r.hub, "library/app", "v1")
				r.hub.Fault(origintest.Fault{Method: "HEAD", Effect: effect})
				a := r.do("HEAD", "/v2/library/app/manifests/v1")
				a.wants(t, http.StatusOK, nil)
				if a.ContentLength != img.index.Size || a.Header.Get("Docker-Content-Digest") != img.index.ref() {
					t.Errorf("headers %v", a.Header)
				}
				r.get("/v2/library/app/manifests/v1").wants(t, http.StatusOK, img.index.bytes)
			})
		})
	}
}

// All faults of a blob: the client sees a 404, a reset before the end, or right
// bytes; and nothing wrong is kept.
func TestBadBlobs(t *testing.T) {
	data := random(1, 3*blob.PieceSize+5)
	for name, effect := range map[string]origintest.Effect{
		"longer than told":  origintest.LieLength(-1),
		"shorter than told": origintest.LieLength(1),
		"lies about digest": origintest.LieDigest(zero),
		"lies about type":   origintest.LieType("text/html"),
		"closes at once":    origintest.CloseEarly(0),
		"closes early":      origintest.CloseEarly(2*blob.PieceSize + 1),
		"closes at the end": origintest.CloseEarly(int64(len(data)) - 1),
		"silent":            origintest.SilenceAfter(blob.PieceSize + 1),
		"web page":          origintest.HTML(),
		"flipped bit":       origintest.Corrupt(5),
		"flipped last bit":  origintest.Corrupt(int64(len(data)) - 1),
		"wrong range":       origintest.LieRange("bytes 5-9/10"),
		"chunked":           origintest.Chunked(),
		"429":               origintest.Status(429),
		"trickle":           origintest.Trickle(64<<10, 5*time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				t := r.t
				b := addBlob(r.hub, "library/app", data)
				r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Method: "GET", Effect: effect})
				a := r.get("/v2/library/app/blobs/" + b.ref())
				switch {
				case a.StatusCode == http.StatusNotFound && a.took <= 10*time.Second:
				case a.StatusCode == http.StatusOK && a.err != nil:
				case a.StatusCode == http.StatusOK && bytes.Equal(a.body, data):
				default:
					t.Errorf("%d, %d bytes, %v after %v", a.StatusCode, len(a.body), a.err, a.took)
				}
				if whole, err := r.cache.Get(t.Context(), b.Digest); err == nil {
					defer whole.Close()
					if got, err := digest.FromReader(whole.File()); err != nil || got != b.Digest {
						t.Errorf("the cache holds %s, %v", got, err)
					}
				}
			})
		})
	}
}

// An index that names itself, other indexes and more of them costs nothing but
// what the client asks for.
func TestNestedIndexes(t *testing.T) {
	bubble(t, options{run: true}, func(r *rig) {
		t := r.t
		inner := addImage(t, r.hub, "library/app", "inner")
		ref := "inner"
		child := inner.index
		for range 5 {
			self := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: zero, Size: 10}
			child = addManifest(t, r.hub, "library/app", "v1", ocispec.MediaTypeImageIndex, ocispec.Index{
				MediaType: ocispec.MediaTypeImageIndex,
				Manifests: []ocispec.Descriptor{descriptor(child), descriptor(child), self},
			})
			ref = child.ref()
		}
		r.get("/v2/library/app/manifests/v1").wants(t, http.StatusOK, child.bytes)
		sleep(time.Minute)
		r.asked(r.hub, "HEAD manifest v1 -> 200", "GET manifest "+ref+" -> 200")
	})
}

// A manifest that lies about the size of a blob does no harm to others who name
// it.
func TestWrongSizeInAManifest(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		b := addBlob(r.hub, "library/app", random(1, 2*blob.PieceSize))
		wrong := descriptor(b)
		wrong.Size++
		addManifest(t, r.hub, "library/app", "evil", ocispec.MediaTypeImageManifest, ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, Config: wrong, Layers: []ocispec.Descriptor{},
		})
		r.get("/v2/library/app/manifests/evil")
		r.get("/v2/library/app/blobs/"+b.ref()).wants(t, http.StatusOK, b.bytes)
	})
}

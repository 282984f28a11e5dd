package origin_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// withCDN returns a registry that redirects its blobs to cdn, which is served
// by the same handler.
func withCDN(w *world, cdn string) (*origintest.Registry, blob.Descriptor) {
	r := w.registry("u.test:80", origintest.Options{
		RedirectBlobs: true, CDN: "http://" + cdn, Auth: &origintest.TokenAuth{},
	})
	w.alias(cdn, "u.test:80")
	w.alias(cdn+":80", "u.test:80")
	return r, r.AddBlob("lib/x", []byte(data))
}

func TestCredentialsStayWithTheRegistry(t *testing.T) {
	// The CDN answers 400 to an Authorization header, as object stores do.
	for _, cdn := range []string{"cdn.test", "cdn.u.test", "u.test:81"} {
		t.Run(cdn, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r, d := withCDN(w, cdn)
				_, body, err := read(t.Context(), w.repository("u.test").Blobs(), d, whole)
				if err != nil || body != data {
					t.Fatalf("got %q, %v", body, err)
				}
				wantLines(t, r, d.Digest.String(), blob401, token, "GET blob D -> 307", "GET cdn D -> 200")
				for _, q := range r.Requests() {
					if want := q.Kind == origintest.Blob && q.Status == 307; want != (q.Auth != "") {
						t.Errorf("%s at %s: Authorization %q", q, q.Host, q.Auth)
					}
				}
			})
		})
	}
}

func TestCredentialsFollowTheRegistryToItself(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{}})
		d := r.AddBlob("lib/x", []byte(data))
		r.Fault(origintest.Fault{Kind: origintest.Blob, Skip: 1, Times: 1, Effect: origintest.Redirect("?again")})
		if _, _, err := read(t.Context(), w.repository("u.test").Blobs(), d, whole); err != nil {
			t.Fatal(err)
		}
		wantLines(t, r, d.Digest.String(), blob401, token, "GET blob D -> 307", blob200)
	})
}

func TestRangesOfOneBlobAreRedirectedOnce(t *testing.T) {
	const (
		registry = "GET blob D bytes=%d-%d -> 307"
		cdn      = "GET cdn D bytes=%d-%d -> %d"
	)
	inWorld(t, func(w *world) {
		t := w.t
		r, d := withCDN(w, "cdn.test")
		repo := w.repository("u.test")
		src := repo.Blobs()
		off := int64(0)
		pull := func(want ...string) {
			t.Helper()
			r.ResetStats()
			st, body, err := read(t.Context(), src, d, blob.Range{Offset: off, Length: 2})
			if err != nil || body != data[off:off+2] {
				t.Fatalf("got %q, %v", body, err)
			}
			if st.Identity == "" {
				t.Error("no identity")
			}
			wantLines(t, r, d.Digest.String(), want...)
			off++
		}
		first := func(n int) []string {
			return []string{fmt.Sprintf(registry, n, n+1), fmt.Sprintf(cdn, n, n+1, 206)}
		}
		pull("GET blob D bytes=0-1 -> 401", token, first(0)[0], first(0)[1])
		pull(first(1)[1])
		r.ExpireRedirects()
		pull(fmt.Sprintf(cdn, 2, 3, 403), first(2)[0], first(2)[1])
		pull(first(3)[1])
		w.pass(time.Minute)
		pull(first(4)...)
		r.Fault(origintest.Fault{Kind: origintest.CDN, Times: 1, Effect: origintest.Status(503)})
		pull(fmt.Sprintf(cdn, 5, 6, 503), first(5)[0], first(5)[1])
		// A URL that is signed for GET is not used for HEAD.
		r.ResetStats()
		if _, err := repo.Stat(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		wantLines(t, r, d.Digest.String(), "HEAD blob D -> 307", "HEAD cdn D -> 200")
	})
}

func TestARedirectThatStaysRefusedIsTheAnswer(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r, d := withCDN(w, "cdn.test")
		src := w.repository("u.test").Blobs()
		if _, _, err := read(t.Context(), src, d, whole); err != nil {
			t.Fatal(err)
		}
		r.ResetStats()
		r.Fault(origintest.Fault{Kind: origintest.CDN, Effect: origintest.Status(404)})
		if _, _, err := read(t.Context(), src, d, whole); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("error %v", err)
		}
		wantLines(t, r, d.Digest.String(), "GET cdn D -> 404", "GET blob D -> 307", "GET cdn D -> 404")
	})
}

func TestRedirectsOfAnHTTPSRegistry(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.secure("reg.pub.com", "8.8.8.8", origintest.Options{})
		plain := w.registry("plain.pub.com:80", origintest.Options{})
		d := r.AddBlob("lib/x", []byte(data))
		r.AddManifest("lib/x", "v1", "a/b", []byte("{}"))
		plain.AddBlob("lib/x", []byte(data))
		plain.AddManifest("lib/x", "v1", "a/b", []byte("{}"))
		c := w.client(origin.Options{Registries: origin.Registries{"reg.pub.com": {Upstreams: []string{"https://reg.pub.com"}}}})
		repo := w.of(c, "reg.pub.com", "lib/x")

		// A blob is proven, whoever sends it; a tag is what the registry says.
		r.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Redirect("http://plain.pub.com/v2/lib/x/blobs/" + d.Digest.String())})
		if _, _, err := read(t.Context(), repo.Blobs(), d, whole); err != nil {
			t.Errorf("blob: %v", err)
		}
		r.Fault(origintest.Fault{Kind: origintest.Manifest, Effect: origintest.Redirect("http://plain.pub.com/v2/lib/x/manifests/v1")})
		if _, _, err := repo.Manifest(t.Context(), "v1", nil); !errors.Is(err, blob.ErrUnavailable) {
			t.Errorf("manifest: %v", err)
		}
		wantLines(t, plain, d.Digest.String(), blob200)
	})
}

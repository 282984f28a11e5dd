package proxy

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A HEAD of a manifest that was read before reads nothing; whether the bytes are
// still right is found by the next GET.
func TestHeadReadsNoManifestAgain(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		path := "/v2/library/app/manifests/" + img.index.ref()
		r.get(path).wants(t, http.StatusOK, img.index.bytes)
		synctest.Wait() // it is on disk
		r.asked(r.hub, "GET manifest "+img.index.ref()+" -> 200")
		if err := os.Remove(filepath.Join(r.dir, "blobs", "sha256", img.index.Digest.Encoded())); err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{path, "/v2/library/app/manifests/v1"} {
			a := r.do("HEAD", ref)
			a.wants(t, http.StatusOK, nil)
			if a.Header.Get("Content-Type") != img.index.MediaType || a.ContentLength != img.index.Size {
				t.Errorf("%s: headers %v", ref, a.Header)
			}
		}
		r.do("HEAD", path, `If-None-Match: "`+img.index.ref()+`"`).wants(t, http.StatusNotModified, nil)
		r.asked(r.hub, "HEAD manifest v1 -> 200")
		r.get(path).wants(t, http.StatusOK, img.index.bytes)
		r.asked(r.hub, "GET manifest "+img.index.ref()+" -> 200")
	})
}

// What the cache does not have any more is no answer, though its headers are
// known.
func TestHeadOfAManifestThatWasDropped(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		path := "/v2/library/app/manifests/" + img.index.ref()
		r.get(path).wants(t, http.StatusOK, img.index.bytes)
		synctest.Wait()
		r.damage(img.index)
		if _, err := r.cache.Get(t.Context(), img.index.Digest); err == nil {
			t.Fatal("it is still there")
		}
		r.hub.ResetStats()
		r.do("HEAD", path).wants(t, http.StatusOK, nil)
		r.asked(r.hub, "GET manifest "+img.index.ref()+" -> 200")
	})
}

// The media type of a manifest that does not state it is what others say at the
// time.
func TestHeadOfAManifestWithoutMediaType(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		m := addManifest(t, r.hub, "library/app", "v1", ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}})
		path := "/v2/library/app/manifests/" + m.ref()
		r.get(path).wants(t, http.StatusOK, m.bytes)
		synctest.Wait() // it is in the cache
		if a := r.do("HEAD", path); a.Header.Get("Content-Type") != ocispec.MediaTypeImageManifest {
			t.Errorf("Content-Type %q", a.Header.Get("Content-Type"))
		}
		told := descriptorOf(m.bytes)
		told.MediaType = "application/vnd.example.other+json"
		r.cache.Remember(told)
		if a := r.do("HEAD", path); a.Header.Get("Content-Type") != told.MediaType {
			t.Errorf("Content-Type %q, want %q", a.Header.Get("Content-Type"), told.MediaType)
		}
	})
}

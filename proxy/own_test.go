package proxy

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
	"shoal/proxy/request"
)

// What the node pulls of its own accord is for clients as if one had: theirs cost
// the HEAD of the tag and nothing, and while the registry is down not even that.
func TestOwnPull(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		img := addImage(r.t, r.hub, "library/app", "v1")
		tag := request.Image{Registry: "docker.io", Name: "library/app", Tag: "v1"}
		pull := func() {
			r.t.Helper()
			top, err := r.proxy.Manifest(r.t.Context(), tag)
			if err != nil || top.Digest != img.index.Digest || len(top.Children) != 2 || top.Stale {
				r.t.Fatalf("%+v, %v", top, err)
			}
			child, err := r.proxy.Manifest(r.t.Context(), request.Image{Registry: "docker.io", Name: "library/app", Digest: img.mine.manifest.Digest})
			if err != nil {
				r.t.Fatal(err)
			}
			if err := r.proxy.Blobs(r.t.Context(), tag, child.Blobs); err != nil {
				r.t.Fatal(err)
			}
		}
		pull()
		want := []string{"HEAD manifest v1 -> 200", "GET manifest " + img.index.ref() + " -> 200", "GET manifest " + img.mine.manifest.ref() + " -> 200"}
		for _, b := range img.mine.blobs {
			want = append(want, "GET blob "+b.ref()+" -> 200")
			if _, whole := r.cache.Stat(b.Digest); !whole {
				r.t.Errorf("%s is not there", b.ref())
			}
		}
		r.asked(r.hub, want...)
		sleep(time.Hour)
		pull()
		r.asked(r.hub, "HEAD manifest v1 -> 200")
		r.get("/v2/library/app/manifests/v1").wants(r.t, http.StatusOK, img.index.bytes)
		for _, b := range img.mine.blobs {
			r.get("/v2/library/app/blobs/"+b.ref()).wants(r.t, http.StatusOK, b.bytes)
		}
		r.asked(r.hub) // the tag was asked for within the second
		sleep(time.Minute)
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(http.StatusServiceUnavailable)})
		a := r.get("/v2/library/app/manifests/v1")
		if a.wants(r.t, http.StatusOK, img.index.bytes); a.Header.Get("Warning") == "" {
			r.t.Error("nobody is told that the answer is an old one")
		}
		if top, err := r.proxy.Manifest(r.t.Context(), tag); err != nil || !top.Stale {
			r.t.Errorf("%+v, %v: want what the tag was", top, err)
		}
	})
}

func TestOwnPullFails(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		img := addImage(r.t, r.hub, "library/app", "v1")
		tag := request.Image{Registry: "docker.io", Name: "library/app", Tag: "v2"}
		if _, err := r.proxy.Manifest(r.t.Context(), tag); !errors.Is(err, blob.ErrNotFound) {
			r.t.Errorf("a tag that is not: %v", err)
		}
		secret := request.Image{Registry: "other.example", Name: "team/secret-app", Tag: "v1"}
		if _, err := r.proxy.Manifest(r.t.Context(), secret); !errors.Is(err, blob.ErrNotFound) {
			r.t.Errorf("a repository that the operator denies: %v", err)
		}
		missing := img.mine.blobs[0].Descriptor
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(http.StatusNotFound)})
		if err := r.proxy.Blobs(r.t.Context(), tag, []blob.Descriptor{missing}); !errors.Is(err, blob.ErrNotFound) {
			r.t.Errorf("a blob that is not: %v", err)
		}
	})
}

// Whoever has the node fetch wants what the tag is now, however long clients may
// believe what it was.
func TestOwnPullAsksAnew(t *testing.T) {
	believed := origin.Registry{MaxAge: []origin.TagAge{{Pattern: "*:*", Age: 24 * time.Hour}, {Pattern: "library/*:*", Age: 24 * time.Hour}}}
	bubble(t, options{hub: believed}, func(r *rig) {
		addImage(r.t, r.hub, "library/app", "v1")
		for range 2 {
			if _, err := r.proxy.Manifest(r.t.Context(), request.Image{Registry: "docker.io", Name: "library/app", Tag: "v1"}); err != nil {
				r.t.Fatal(err)
			}
			sleep(time.Minute)
		}
		r.hub.ResetStats()
		r.get("/v2/library/app/manifests/v1")
		r.asked(r.hub) // a client believes it
		if _, err := r.proxy.Manifest(r.t.Context(), request.Image{Registry: "docker.io", Name: "library/app", Tag: "v1"}); err != nil {
			r.t.Fatal(err)
		}
		r.asked(r.hub, "HEAD manifest v1 -> 200")
	})
}

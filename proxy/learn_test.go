package proxy

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/images"
)

// set is what images the node of r has.
func (r *rig) set() images.Set {
	return images.Find(r.cache.Inventory().Blobs, r.cache.Names())
}

// What is pulled is an image by the names that clients have for it, the pulled
// platform of an index with it; a HEAD is a use.
func TestWhatIsPulledIsAnImage(t *testing.T) {
	bubble(t, options{run: true}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		r.get("/v2/library/app/manifests/v1")
		r.get("/v2/library/app/manifests/" + img.mine.manifest.Digest.String())
		for _, b := range img.mine.blobs {
			r.get("/v2/library/app/blobs/" + b.Digest.String())
		}
		synctest.Wait()
		set := r.set()
		if len(set.Images) != 1 || !slices.Equal(set.Images[0].Names, []string{"docker.io/library/app:v1"}) || set.Images[0].Missing != 0 ||
			len(set.Images[0].Blobs) != 2+len(img.mine.blobs) || len(set.Loose) != 0 {
			t.Fatalf("%+v", set)
		}
		used := set.Images[0].Used
		sleep(time.Hour)
		r.do(http.MethodHead, "/v2/library/app/manifests/v1")
		if now := r.set().Images[0].Used; now.Sub(used) < time.Hour {
			t.Errorf("used at %v, and at %v after a HEAD an hour later", used, now)
		}
	})
}

// dockerd and containerd ask what a tag is by HEAD, and get the manifest by its
// digest: the image has the name of the tag. A HEAD alone moves no pin.
func TestATagThatWasAskedByHEADIsAName(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		if err := r.cache.Pin("docker.io/library/app:v1"); err != nil {
			t.Fatal(err)
		}
		pinned := func() string { return r.cache.Pins()["docker.io/library/app:v1"].String() }
		r.do(http.MethodHead, "/v2/library/app/manifests/v1")
		if pinned() != "" {
			t.Error("what is not here is pinned")
		}
		r.get("/v2/library/app/manifests/" + img.index.Digest.String())
		synctest.Wait()
		if set := r.set(); len(set.Images) != 1 || !slices.Equal(set.Images[0].Names, []string{"docker.io/library/app:v1"}) || pinned() != img.index.Digest.String() {
			t.Errorf("%+v, pinned %s", set, pinned())
		}
	})
}

// What rotted and was found is brought again, from the repository that is known
// to have it, and a manifest knows again what it names.
func TestHealing(t *testing.T) {
	bubble(t, options{run: true}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		r.get("/v2/library/app/manifests/v1")
		r.get("/v2/library/app/manifests/" + img.mine.manifest.Digest.String())
		synctest.Wait()
		before := r.set()
		for _, b := range []thing{img.mine.blobs[1], img.mine.manifest, img.index} {
			r.hub.ResetStats()
			r.damage(b)
			if err := r.cache.Scrub(t.Context(), b.Digest, blobcache.Pace(0)); err == nil {
				t.Fatal("it is not found")
			}
			synctest.Wait()
			if _, ok := r.cache.Stat(b.Digest); !ok || len(r.hub.Lines()) != 1 {
				t.Errorf("here again: %v, for %v", ok, r.hub.Lines())
			}
		}
		if after := r.set(); len(after.Images) != 1 || !slices.Equal(after.Images[0].Blobs, before.Images[0].Blobs) {
			t.Errorf("%+v, was %+v", after, before)
		}
		if n := r.counter("shoal_proxy_healed_total"); n != 3 {
			t.Errorf("%v healed", n)
		}
	})
}

// What nobody has any more is gone, and the log says so.
func TestNothingHealsIt(t *testing.T) {
	bubble(t, options{run: true}, func(r *rig) {
		t := r.t
		stray := addBlob(r.hub, "library/app", random(9, 3000))
		r.get("/v2/library/app/blobs/" + stray.Digest.String()) // no manifest says whose it is
		synctest.Wait()
		r.damage(stray)
		if err := r.cache.Scrub(t.Context(), stray.Digest, blobcache.Pace(0)); err == nil {
			t.Fatal("it is not found")
		}
		synctest.Wait()
		if r.logged("gone until somebody pulls it") != 1 || r.counter("shoal_proxy_healed_total") != 0 {
			t.Errorf("%s", r.log.String())
		}
	})
}

// A folder of a version that knew no links and no names has them after a start.
func TestLearningFromAnOlderVersion(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		r.get("/v2/library/app/manifests/v1")
		r.get("/v2/library/app/manifests/" + img.mine.manifest.Digest.String())
		synctest.Wait()
		for _, name := range r.cache.Names() {
			if err := r.cache.ForgetName(name.Image); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range []thing{img.index, img.mine.manifest} { // the same bytes, committed without what they name
			r.cache.Drop(m.Digest)
			if err := r.cache.Put(t.Context(), m.Descriptor, strings.NewReader(string(m.bytes))); err != nil {
				t.Fatal(err)
			}
		}
		if set := r.set(); len(set.Images) != 0 {
			t.Fatalf("%+v", set)
		}
		r.proxy.learn(t.Context())
		if set := r.set(); len(set.Images) != 1 || !slices.Equal(set.Images[0].Names, []string{"docker.io/library/app:v1"}) || len(set.Images[0].Blobs) != 2 {
			t.Errorf("%+v", set)
		}
	})
}

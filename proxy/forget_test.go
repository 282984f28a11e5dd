package proxy

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
	"shoal/proxy/request"
)

// forget has the node forget an image and returns how many things it forgot.
func (r *rig) forget(image string) int {
	r.t.Helper()
	i, err := request.ParseImage(image)
	if err != nil {
		r.t.Fatal(err)
	}
	n, err := r.proxy.Forget(i)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// What is forgotten is asked for again, though it could be believed for long;
// all else is not.
func TestForget(t *testing.T) {
	hub := origin.Registry{MaxAge: []origin.TagAge{{Pattern: "*:*", Age: time.Hour}}}
	for image, want := range map[string]struct {
		n    int
		tags string // that are asked for again
		gets int
	}{
		"app:v1":                     {1, "1", 0},
		"app":                        {3, "123", 0},
		"app:v":                      {0, "", 0},
		"ap":                         {0, "", 0},
		"other.example/library/app":  {0, "", 0},
		"app@FIRST":                  {3, "12", 1}, // two tags and the manifest
		"team/app@FIRST":             {1, "", 1},
		"docker.io/library/app:v3":   {1, "3", 0},
		"app:v10":                    {0, "", 0},
		"registry-1.docker.io/app:2": {0, "", 0},
	} {
		t.Run(image, func(t *testing.T) {
			bubble(t, options{hub: hub}, func(r *rig) {
				t := r.t
				first := another(t, r.hub, "first")
				r.hub.AddManifest("library/app", "v2", first.MediaType, first.bytes)
				second := another(t, r.hub, "second")
				r.hub.AddManifest("library/app", "v3", second.MediaType, second.bytes)
				r.hub.AddManifest("library/app", "v1", first.MediaType, first.bytes)
				pull := func() {
					for _, tag := range []string{"v1", "v2", "v3"} {
						if a := r.get("/v2/library/app/manifests/" + tag); a.StatusCode != http.StatusOK {
							t.Errorf("%s: %d", tag, a.StatusCode)
						}
					}
					synctest.Wait()
				}
				pull()
				r.hub.ResetStats()
				if i := len(image) - len("FIRST"); i > 0 && image[i:] == "FIRST" {
					image = image[:i] + first.ref()
				}
				if n := r.forget(image); n != want.n {
					t.Errorf("forgot %d things, want %d", n, want.n)
				}
				pull()
				var asked []string
				for _, tag := range want.tags {
					asked = append(asked, "HEAD manifest v"+string(tag)+" -> 200")
				}
				for range want.gets {
					asked = append(asked, "GET manifest "+first.ref()+" -> 200")
				}
				r.asked(r.hub, asked...)
			})
		})
	}
}

// What is forgotten is not what a tag was either, when the registry is down.
func TestForgottenIsNotStale(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		first := another(r.t, r.hub, "first")
		r.get(tagPath).wants(r.t, http.StatusOK, first.bytes)
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(503)})
		sleep(time.Second)
		r.get(tagPath).wants(r.t, http.StatusOK, first.bytes)
		r.forget("app:v1")
		r.get(tagPath).refused(r.t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	})
}

// A question that was asked before is no answer to who asks after, nor kept.
func TestForgetWhileTheRegistryIsAsked(t *testing.T) {
	bubble(t, options{hub: origin.Registry{MaxAge: []origin.TagAge{{Pattern: "*:*", Age: time.Hour}}}}, func(r *rig) {
		t := r.t
		first := another(t, r.hub, "first")
		r.hub.Fault(origintest.Fault{Method: "HEAD", Times: 1, Effect: origintest.Delay(3 * time.Second)})
		var before sync.WaitGroup
		before.Go(func() { r.get(tagPath).wants(t, http.StatusOK, first.bytes) })
		sleep(time.Second)
		second := another(t, r.hub, "second")
		r.forget("app")
		r.get(tagPath).wants(t, http.StatusOK, second.bytes)
		before.Wait()
		r.get(tagPath).wants(t, http.StatusOK, second.bytes)
		if n := r.hub.Stats().Requests["HEAD manifest"]; n != 2 {
			t.Errorf("%d HEADs", n)
		}
	})
}

package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

const (
	tagPath  = "/v2/library/app/manifests/v1"
	tagAsked = "HEAD manifest v1 -> 200"
)

// another lets the tag v1 point to another manifest.
func another(t *testing.T, registry *origintest.Registry, mark string) thing {
	t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Annotations: map[string]string{"mark": mark}}
	return addManifest(t, registry, "library/app", "v1", ocispec.MediaTypeImageIndex, index)
}

// isStale tells whether the answer says that it is.
func (a answer) isStale() bool {
	return slices.Equal(a.Header.Values("Warning"), []string{`110 shoal "Response is Stale"`, `111 shoal "Revalidation Failed"`})
}

// While the registry cannot be asked, a tag is what it was, and the answer, the
// log and a metric say so.
func TestStaleIfError(t *testing.T) {
	for name, effect := range map[string]origintest.Effect{
		"429":     origintest.TooMany(time.Minute),
		"500":     origintest.Status(500),
		"503":     origintest.Status(503),
		"dropped": origintest.Drop(),
		"silent":  origintest.Silence(),
		"a page":  origintest.HTML(),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				t := r.t
				first := another(t, r.hub, "first")
				if a := r.get(tagPath); a.Header.Values("Warning") != nil {
					t.Errorf("fresh, with warnings %q", a.Header.Values("Warning"))
				}
				sleep(time.Minute)
				r.hub.Fault(origintest.Fault{Effect: effect})
				for _, method := range []string{"GET", "HEAD"} {
					body := first.bytes
					if method == "HEAD" {
						body = nil
					}
					a := r.do(method, tagPath)
					a.wants(t, http.StatusOK, body)
					if !a.isStale() || a.Header.Get("Docker-Content-Digest") != first.ref() || a.took > 10*time.Second {
						t.Errorf("%s: after %v with headers %v", method, a.took, a.Header)
					}
				}
				if n := r.counter("shoal_proxy_stale_tags_total"); n != 2 {
					t.Errorf("shoal_proxy_stale_tags_total is %v", n)
				}
				said := "the registry cannot be asked: a tag is what it was\" tag=docker.io/library/app:v1 digest=" + first.ref()
				if n := strings.Count(r.log.String(), said); n != 1 {
					t.Errorf("said %d times in the log:\n%s", n, r.log)
				}
				// It is over with the outage, and with the window.
				moved := another(t, r.hub, "moved")
				r.hub.ClearFaults()
				sleep(time.Second)
				a := r.get(tagPath)
				a.wants(t, http.StatusOK, moved.bytes)
				if a.isStale() {
					t.Error("stale though the registry answers")
				}
				r.hub.Fault(origintest.Fault{Effect: effect})
				sleep(origin.DefaultStaleIfError - 10*time.Second)
				r.get(tagPath).wants(t, http.StatusOK, moved.bytes)
				sleep(11 * time.Second)
				a = r.get(tagPath)
				a.refused(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
				if a.Header.Values("Warning") != nil {
					t.Errorf("an error with warnings %q", a.Header.Values("Warning"))
				}
			})
		})
	}
}

// The tag is known and the manifest is not to be had: that is an error, and no
// stale one.
func TestStaleTagWithoutItsManifest(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		another(r.t, r.hub, "first")
		r.do("HEAD", tagPath).wants(r.t, http.StatusOK, nil)
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(503)})
		sleep(time.Second)
		a := r.get(tagPath)
		a.refused(r.t, http.StatusNotFound, "MANIFEST_UNKNOWN")
		if a.Header.Values("Warning") != nil {
			r.t.Errorf("an error with warnings %q", a.Header.Values("Warning"))
		}
	})
}

// What the registry denies or does not have is its answer, however good the one
// before was.
func TestAnswersAreNotOutages(t *testing.T) {
	for name, effect := range map[string]origintest.Effect{
		"400": origintest.Status(400), "401": origintest.Status(401), "403": origintest.Status(403), "404": origintest.Status(404), "410": origintest.Status(410),
		"challenge": origintest.Challenge(`Basic realm="x"`),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				first := another(r.t, r.hub, "first")
				r.get(tagPath).wants(r.t, http.StatusOK, first.bytes)
				r.hub.Fault(origintest.Fault{Effect: effect})
				sleep(time.Second)
				a := r.get(tagPath)
				a.refused(r.t, http.StatusNotFound, "MANIFEST_UNKNOWN")
				if n := r.counter("shoal_proxy_stale_tags_total"); n != 0 || a.Header.Values("Warning") != nil {
					r.t.Errorf("%v stale answers, warnings %q", n, a.Header.Values("Warning"))
				}
			})
		})
	}
}

func TestStaleIfErrorIsTheOperators(t *testing.T) {
	for window, want := range map[time.Duration]int{-1: 404, time.Second: 404, time.Minute: 200} {
		bubble(t, options{hub: origin.Registry{StaleIfError: window}}, func(r *rig) {
			another(r.t, r.hub, "first")
			r.get(tagPath)
			r.hub.Fault(origintest.Fault{Effect: origintest.Status(503)})
			sleep(30 * time.Second)
			if a := r.get(tagPath); a.StatusCode != want {
				r.t.Errorf("with a window of %v: %d, want %d", window, a.StatusCode, want)
			}
		})
	}
}

// Of what other clients were told, one gets what it accepts.
func TestStaleForAnotherClient(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		first := another(r.t, r.hub, "first")
		r.get(tagPath, "Accept: "+ocispec.MediaTypeImageIndex+", application/vnd.example.one").wants(r.t, http.StatusOK, first.bytes)
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(503)})
		r.get(tagPath, "Accept: "+ocispec.MediaTypeImageIndex+", application/vnd.example.two").wants(r.t, http.StatusOK, first.bytes)
		r.get(tagPath, "Accept: "+ocispec.MediaTypeImageManifest).refused(r.t, http.StatusNotFound, "MANIFEST_UNKNOWN")
		r.get("/v2/library/app/manifests/v").refused(r.t, http.StatusNotFound, "MANIFEST_UNKNOWN") // v1 is another tag
	})
}

func TestMaxAge(t *testing.T) {
	ages := []origin.TagAge{{Pattern: "library/other:*", Age: time.Hour}, {Pattern: "*:v*", Age: 24 * time.Hour}, {Pattern: "*:*", Age: time.Minute}}
	bubble(t, options{hub: origin.Registry{MaxAge: ages}}, func(r *rig) {
		t := r.t
		first := another(t, r.hub, "first")
		r.hub.AddManifest("library/app", "latest", first.MediaType, first.bytes)
		r.get(tagPath).wants(t, http.StatusOK, first.bytes)
		r.do("HEAD", "/v2/library/app/manifests/latest").wants(t, http.StatusOK, nil)
		r.asked(r.hub, tagAsked, "HEAD manifest latest -> 200", "GET manifest "+first.ref()+" -> 200")
		another(t, r.hub, "moved")
		sleep(24*time.Hour - time.Second)
		a := r.get(tagPath)
		a.wants(t, http.StatusOK, first.bytes)
		if a.isStale() {
			t.Error("what may still be believed is called stale")
		}
		r.do("HEAD", "/v2/library/app/manifests/latest").wants(t, http.StatusOK, nil)
		r.asked(r.hub, "HEAD manifest latest -> 200")
		sleep(time.Second)
		r.do("HEAD", tagPath).wants(t, http.StatusOK, nil)
		r.asked(r.hub, tagAsked)
		// Failures are not kept so long, and the window begins behind the age.
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(404)})
		sleep(24 * time.Hour)
		r.get(tagPath).refused(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
		r.hub.ClearFaults()
		sleep(time.Second)
		r.do("HEAD", tagPath).wants(t, http.StatusOK, nil)
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(503)})
		sleep(47 * time.Hour)
		if a := r.do("HEAD", tagPath); a.StatusCode != http.StatusOK || !a.isStale() {
			t.Errorf("%d with headers %v", a.StatusCode, a.Header)
		}
	})
}

// A lease survives a restart.
func TestMaxAgeOnDisk(t *testing.T) {
	bubble(t, options{hub: origin.Registry{MaxAge: []origin.TagAge{{Pattern: "*:v*", Age: time.Hour}}}}, func(r *rig) {
		first := another(r.t, r.hub, "first")
		r.get(tagPath).wants(r.t, http.StatusOK, first.bytes)
		r.hub.ResetStats()
		r.proxy.tags = newTags(r.cache)
		sleep(time.Hour - time.Second)
		r.get(tagPath).wants(r.t, http.StatusOK, first.bytes)
		r.asked(r.hub)
		sleep(time.Second)
		r.get(tagPath).wants(r.t, http.StatusOK, first.bytes)
		r.asked(r.hub, tagAsked)
	})
}

// The tag moves while a client waits for what it was, and the registry does not
// have that any more: the client gets what the tag is by then, under its
// digest, or an error when that does not end.
func TestTagMovesBetweenHeadAndGet(t *testing.T) {
	for moves := range maxMoves + 2 {
		t.Run(fmt.Sprint(moves), func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				t := r.t
				now := another(t, r.hub, "0")
				var asked []string
				mark := 0
				r.hub.Fault(origintest.Fault{Method: "HEAD", Effect: origintest.Then(func() {
					if mark == moves {
						return
					}
					gone := now
					mark++
					now = another(t, r.hub, fmt.Sprint(mark))
					r.hub.Remove(gone.Digest)
					asked = append(asked, tagAsked, "GET manifest "+gone.ref()+" -> 404")
				})})
				a := r.get(tagPath)
				if moves > maxMoves {
					a.refused(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
					r.asked(r.hub, asked...)
					return
				}
				a.wants(t, http.StatusOK, now.bytes)
				if a.Header.Get("Docker-Content-Digest") != now.ref() {
					t.Errorf("%s under the digest %s", now.ref(), a.Header.Get("Docker-Content-Digest"))
				}
				r.asked(r.hub, append(asked, tagAsked, "GET manifest "+now.ref()+" -> 200")...)
			})
		})
	}
}

// The tag moves, and the registry keeps what it was: the client gets that, whole
// and under its digest, as it was when it asked.
func TestTagMovesAndBothAreThere(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		first := another(r.t, r.hub, "first")
		r.hub.Fault(origintest.Fault{Method: "HEAD", Times: 1, Effect: origintest.Then(func() { another(r.t, r.hub, "moved") })})
		a := r.get(tagPath)
		a.wants(r.t, http.StatusOK, first.bytes)
		if a.Header.Get("Docker-Content-Digest") != first.ref() {
			r.t.Errorf("%s under the digest %s", first.ref(), a.Header.Get("Docker-Content-Digest"))
		}
	})
}

// A tag that leads nowhere costs two HEADs a second, however many want it.
func TestTagThatLeadsNowhere(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		gone := another(r.t, r.hub, "gone")
		r.hub.Fault(origintest.Fault{Method: "GET", Ref: gone.ref(), Effect: origintest.Status(404)})
		for range 20 {
			r.get(tagPath).refused(r.t, http.StatusNotFound, "MANIFEST_UNKNOWN")
		}
		if n := r.hub.Stats().Requests["HEAD manifest"]; n != 2 {
			r.t.Errorf("%d HEADs", n)
		}
	})
}

// A thousand clients ask for the same tag again and again: the registry is asked
// once a second.
func TestAThousandClientsOfOneTag(t *testing.T) {
	const clients, seconds = 1000, 3
	bubble(t, options{}, func(r *rig) {
		t := r.t
		first := another(t, r.hub, "first")
		r.hub.Fault(origintest.Fault{Effect: origintest.Delay(50 * time.Millisecond)})
		end := time.Now().Add(seconds * time.Second)
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				for time.Now().Before(end) {
					r.do([]string{"HEAD", "GET"}[i%2], tagPath)
					sleep(300 * time.Millisecond)
				}
			})
		}
		all.Wait()
		if asked := r.hub.Stats().Requests; asked["HEAD manifest"] > seconds || asked["HEAD manifest"] < 2 || asked["GET manifest"] != 1 {
			t.Errorf("in %d s the registry saw %v, of %s", seconds, asked, first.ref())
		}
	})
}

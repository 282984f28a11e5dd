package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
	"shoal/blobcache/statement"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

const tagV1 = "docker.io/library/app:v1"

// lease has the node take what a seeder signs now about the tag.
func (r *rig) lease(s *statement.Signer, tag string, d blob.Descriptor, validity time.Duration) statement.Lease {
	r.t.Helper()
	l, err := s.Lease(tag, d, time.Now(), validity)
	if err != nil {
		r.t.Fatal(err)
	}
	r.proxy.TakeLease(l)
	return l
}

// leaseOf tells what an answer says of whose lease it is.
func (a answer) isLease(s *statement.Signer, issued time.Time) bool {
	want := s.Key().String() + "; issued=" + issued.UTC().Format(time.RFC3339) + "; until="
	return strings.HasPrefix(a.Header.Get("Shoal-Lease"), want)
}

// A lease counts while the registry cannot be asked, if it is newer than what the
// registry said, for its time and a bit; the answer, the log and a metric say so.
func TestLeasesInAnOutage(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t, key := r.t, statement.GenerateSigner()
		first := another(t, r.hub, "first")
		r.get(tagPath).wants(t, http.StatusOK, first.bytes)
		second := another(t, r.hub, "second")
		r.get("/v2/library/app/manifests/"+second.ref()).wants(t, http.StatusOK, second.bytes)
		sleep(time.Minute)
		r.lease(key, tagV1, second.Descriptor, 5*time.Minute)
		third := another(t, r.hub, "third")
		if a := r.get(tagPath); a.Header.Get("Docker-Content-Digest") != third.ref() || a.Header.Get("Shoal-Lease") != "" {
			t.Errorf("while the registry answers: headers %v", a.Header)
		}
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(503)})
		sleep(time.Second)
		if a := r.get(tagPath); !a.isStale() || a.Header.Get("Docker-Content-Digest") != third.ref() {
			t.Errorf("an older lease counts more than the registry: headers %v", a.Header)
		}
		issued := time.Now()
		r.lease(key, tagV1, second.Descriptor, 5*time.Minute)
		sleep(5*time.Minute + statement.LeaseSkew - 10*time.Second) // an outage is seen in a second or two
		for range 2 {
			a := r.get(tagPath)
			a.wants(t, http.StatusOK, second.bytes)
			if !a.isLease(key, issued) || a.Header.Get("Warning") != `111 shoal "Revalidation Failed"` || a.Header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
				t.Errorf("headers %v", a.Header)
			}
		}
		if n, said := r.labelled("shoal_proxy_leased_tags_total", "outage"), strings.Count(r.log.String(), "a tag is what a trusted seeder says"); n != 2 || said != 1 {
			t.Errorf("counted %v, said %d times:\n%s", n, said, r.log)
		}
		r.get(tagPath, "Accept: "+ocispec.MediaTypeImageManifest).refused(t, http.StatusNotFound, "MANIFEST_UNKNOWN") // of another type
		sleep(10 * time.Second)
		if a := r.get(tagPath); !a.isStale() || a.Header.Get("Shoal-Lease") != "" || a.Header.Get("Docker-Content-Digest") != third.ref() {
			t.Errorf("when it has ended: headers %v", a.Header)
		}
	})
}

// Where the operator wants it, a lease spares the question; what the registry has
// just said counts more.
func TestLeasesArePreferred(t *testing.T) {
	bubble(t, options{hub: origin.Registry{TagLeases: origin.LeasesPrefer}}, func(r *rig) {
		t, key := r.t, statement.GenerateSigner()
		first := another(t, r.hub, "first")
		r.get(tagPath).wants(t, http.StatusOK, first.bytes)
		r.lease(key, tagV1, first.Descriptor, time.Minute)
		r.hub.ResetStats()
		if a := r.get(tagPath); a.Header.Get("Shoal-Lease") != "" {
			t.Error("a lease counts more than what the registry has just said")
		}
		sleep(time.Second)
		for range 3 {
			a := r.get(tagPath)
			a.wants(t, http.StatusOK, first.bytes)
			if a.Header.Get("Shoal-Lease") == "" || a.Header.Get("Warning") != "" {
				t.Errorf("headers %v", a.Header)
			}
		}
		r.asked(r.hub)
		sleep(time.Minute + statement.LeaseSkew)
		r.get(tagPath).wants(t, http.StatusOK, first.bytes)
		r.asked(r.hub, tagAsked)
		// What it names is not to be had: the registry is asked after all.
		gone := first.Descriptor
		gone.Digest = digest.FromString("gone")
		r.lease(key, tagV1, gone, time.Minute)
		sleep(time.Second)
		a := r.get(tagPath)
		a.wants(t, http.StatusOK, first.bytes)
		if a.Header.Get("Shoal-Lease") != "" {
			t.Errorf("headers %v", a.Header)
		}
		if n := r.labelled("shoal_proxy_leased_tags_total", "preferred"); n != 4 {
			t.Errorf("counted %v", n)
		}
	})
}

// An older lease that is said again counts for nothing, nor does one from before
// something was to be forgotten, or of what the settings do not let count.
func TestLeasesThatAreRefused(t *testing.T) {
	prefer := origin.Registry{TagLeases: origin.LeasesPrefer}
	key := statement.GenerateSigner()
	for name, tt := range map[string]struct {
		hub    origin.Registry
		tag    string
		before func(r *rig, first, second blob.Descriptor)
		taken  bool
	}{
		"taken":                           {hub: prefer, tag: tagV1, taken: true},
		"after an older one":              {prefer, tagV1, func(r *rig, first, _ blob.Descriptor) { r.lease(key, tagV1, first, time.Minute); sleep(time.Second) }, true},
		"off":                             {hub: origin.Registry{TagLeases: origin.LeasesOff}, tag: tagV1},
		"of a short name":                 {hub: prefer, tag: "app:v1"},
		"of a digest":                     {hub: prefer, tag: "docker.io/library/app@sha256:" + strings.Repeat("1", 64)},
		"of a repository":                 {hub: prefer, tag: "docker.io/library/app"},
		"of nonsense":                     {hub: prefer, tag: "docker.io/../app:v1"},
		"of a repository that is refused": {hub: prefer, tag: "other.example/team/secret-app:v1"},
		"of an inner address":             {hub: prefer, tag: "10.0.0.1/app:v1"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{hub: tt.hub}, func(r *rig) {
				first, second := another(r.t, r.hub, "first"), another(r.t, r.hub, "second")
				if tt.before != nil {
					tt.before(r, first.Descriptor, second.Descriptor)
				}
				before := r.labelled("shoal_proxy_leases_total", "taken")
				r.lease(key, tt.tag, second.Descriptor, time.Minute)
				if taken := r.labelled("shoal_proxy_leases_total", "taken") > before; taken != tt.taken {
					r.t.Errorf("taken: %v", taken)
				}
				if a := r.get(tagPath); (a.Header.Get("Shoal-Lease") != "") != tt.taken {
					r.t.Errorf("headers %v", a.Header)
				}
			})
		})
	}
	for name, forget := range map[string]string{"the tag": "app:v1", "the repository": "app", "the digest": "app@SECOND"} {
		t.Run("from before one had to forget "+name, func(t *testing.T) {
			bubble(t, options{hub: prefer}, func(r *rig) {
				t := r.t
				second := another(t, r.hub, "second")
				said := r.lease(key, tagV1, second.Descriptor, time.Minute)
				replayed, err := key.Lease(tagV1, second.Descriptor, time.Now().Add(time.Millisecond), time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				sleep(time.Second)
				r.forget(strings.ReplaceAll(forget, "SECOND", second.ref()))
				for _, l := range []statement.Lease{said, replayed} {
					r.proxy.TakeLease(l)
					if a := r.get(tagPath); a.Header.Get("Shoal-Lease") != "" {
						t.Errorf("it counts: headers %v", a.Header)
					}
					sleep(time.Second)
				}
				r.lease(key, tagV1, second.Descriptor, time.Minute)
				if a := r.get(tagPath); a.Header.Get("Shoal-Lease") == "" {
					t.Error("one from after that does not count")
				}
			})
		})
	}
	t.Run("said again", func(t *testing.T) {
		bubble(t, options{hub: prefer}, func(r *rig) {
			t := r.t
			first := another(t, r.hub, "first")
			old := r.lease(key, tagV1, first.Descriptor, time.Minute)
			sleep(time.Second)
			second := another(t, r.hub, "second")
			r.lease(key, tagV1, second.Descriptor, time.Minute)
			r.proxy.TakeLease(old)
			r.get(tagPath).wants(t, http.StatusOK, second.bytes)
			r.asked(r.hub, "GET manifest "+second.ref()+" -> 200")
		})
	})
}

// A seeder signs what the registry says of a tag, at most twice in the time for
// which a lease is good, and at once when the tag moves or was forgotten.
func TestSeederGivesLeases(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t, key := r.t, statement.GenerateSigner()
		var given []statement.Lease
		r.proxy.leases = newLeases(key, func(l statement.Lease) { given = append(given, l) })
		wants := func(what string, n int) {
			t.Helper()
			if len(given) != n {
				t.Fatalf("%s: %d leases, want %d", what, len(given), n)
			}
		}
		first := another(t, r.hub, "first")
		for range 10 {
			r.get(tagPath)
			sleep(2 * time.Second)
		}
		wants("asked again and again", 1)
		l := given[0]
		if l.Tag != tagV1 || l.Manifest.Digest != first.Digest || l.Manifest.Size != first.Size || l.Manifest.MediaType != ocispec.MediaTypeImageIndex || l.Check(time.Now()) != nil || l.Until.Sub(l.Issued) != leaseValidity {
			t.Errorf("%+v", l)
		}
		sleep(leaseValidity / 2)
		r.get(tagPath)
		wants("half the time later", 2)
		another(t, r.hub, "second")
		sleep(time.Second)
		r.get(tagPath)
		wants("moved", 3)
		sleep(time.Second)
		r.forget("app:v1")
		r.get(tagPath)
		wants("forgotten", 4)
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(503)})
		sleep(leaseValidity)
		r.get(tagPath)
		wants("the registry is down", 4)
	})
}

// FuzzTakeLease: whatever a trusted seeder says a tag is called, it is that of one
// tag, or refused.
func FuzzTakeLease(f *testing.F) {
	for _, tag := range []string{tagV1, "app", "ghcr.io/a/b:c", "docker.io/library/app:v1@sha256:1", "127.0.0.1:5000/a:b", "a/../b:c", "DOCKER.IO/library/app:v1"} {
		f.Add(tag)
	}
	client, err := origin.New(origin.Options{Registries: origin.Registries{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(client.Close)
	metrics, err := newMetrics(nil)
	if err != nil {
		f.Fatal(err)
	}
	key := statement.GenerateSigner()
	d := blob.Descriptor{Digest: digest.FromString("a manifest"), Size: 1, MediaType: ocispec.MediaTypeImageIndex}
	f.Fuzz(func(t *testing.T, tag string) {
		l, err := key.Lease(tag, d, time.Now(), time.Minute)
		if err != nil {
			return
		}
		p := &Proxy{origin: client, metrics: metrics, leases: newLeases(nil, nil)}
		if p.takeLease(l) != nil {
			return
		}
		if _, ok := p.leases.of(tag, []string{d.MediaType}, func(statement.Key) bool { return true }); !ok {
			t.Errorf("%q is taken and not to be had", tag)
		}
	})
}

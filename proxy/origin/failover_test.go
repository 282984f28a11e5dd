package origin_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

func TestFailover(t *testing.T) {
	tests := []struct {
		name   string
		effect origintest.Effect // of the first upstream; nil refuses
		times  int
		err    error
		took   time.Duration
		first  []string
		second []string
	}{
		{name: "refused", second: []string{"200"}},
		{name: "dropped", effect: origintest.Drop(), first: []string{"0"}, second: []string{"200"}},
		{name: "500", effect: origintest.Status(500), first: []string{"500"}, second: []string{"200"}},
		{name: "503", effect: origintest.Status(503), first: []string{"503"}, second: []string{"200"}},
		{name: "429 for 2 s", effect: origintest.TooMany(2 * time.Second), first: []string{"429"}, second: []string{"200"}},
		{name: "429 for an hour", effect: origintest.TooMany(time.Hour), first: []string{"429"}, second: []string{"200"}},
		{name: "silent", effect: origintest.Silence(), took: 2500 * time.Millisecond, first: []string{"0"}, second: []string{"200"}},
		{name: "a web page", effect: origintest.HTML(), first: []string{"200"}, second: []string{"200"}},
		{name: "another digest", effect: origintest.LieDigest(digest.FromString("x")), first: []string{"200"}, second: []string{"200"}},
		{name: "bad request", effect: origintest.Status(400), first: []string{"400"}, second: []string{"200"}},
		{name: "a redirect to nowhere", effect: origintest.Redirect("http://refusing.test/"), first: []string{"307"}, second: []string{"200"}},
		{name: "not found settles", effect: origintest.Status(404), err: blob.ErrNotFound, first: []string{"404"}},
		{name: "denied settles", effect: origintest.Status(403), err: blob.ErrDenied, first: []string{"403"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				first := origintest.New(origintest.Options{})
				if tt.effect != nil {
					first = w.registry("a.test:80", origintest.Options{})
					first.Fault(origintest.Fault{Effect: tt.effect})
				}
				second := w.registry("b.test:80", origintest.Options{})
				first.AddBlob("lib/x", []byte(data))
				d := second.AddBlob("lib/x", []byte(data))
				begin := time.Now()
				st, body, err := read(t.Context(), w.repository("a.test", "b.test").Blobs(), d, whole)
				if !errors.Is(err, tt.err) || err != nil && tt.err == nil {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if took := time.Since(begin); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if err == nil && (body != data || !strings.HasPrefix(st.Identity, "http://b.test ")) {
					t.Errorf("got %q of %q", body, st.Identity)
				}
				for r, codes := range map[*origintest.Registry][]string{first: tt.first, second: tt.second} {
					var saw []string
					for _, code := range codes {
						saw = append(saw, "GET blob D -> "+code)
					}
					wantLines(t, r, d.Digest.String(), saw...)
				}
			})
		})
	}
}

func TestUpstreamsAreGoneThroughAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		a := w.registry("a.test:80", origintest.Options{})
		b := w.registry("b.test:80", origintest.Options{})
		d := a.AddBlob("lib/x", []byte(data))
		a.Fault(origintest.Fault{Times: 1, Effect: origintest.Status(503)})
		b.Fault(origintest.Fault{Effect: origintest.Status(500)})
		if _, _, err := read(t.Context(), w.repository("a.test", "b.test").Blobs(), d, whole); err != nil {
			t.Fatal(err)
		}
		wantLines(t, a, d.Digest.String(), "GET blob D -> 503", "GET blob D -> 200")
		wantLines(t, b, d.Digest.String(), "GET blob D -> 500") // no hiccup, not asked again
	})
}

func TestAnAnswerComesWithinItsTime(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		hosts := []string{"a.test", "b.test", "c.test"}
		for _, h := range hosts {
			r := w.registry(h+":80", origintest.Options{})
			r.Fault(origintest.Fault{Effect: origintest.Silence()})
		}
		begin := time.Now()
		_, _, err := read(t.Context(), w.repository(hosts...).Blobs(), blob.Descriptor{Digest: digest.FromString("x")}, whole)
		if !errors.Is(err, blob.ErrStalled) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took != 9*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestNewRefusesWhatIsNoUpstream(t *testing.T) {
	for base, want := range map[string]string{
		"":                          `"" is no URL of a registry`,
		"r.test":                    `"r.test" is no URL of a registry`,
		"ftp://r.test":              `"ftp://r.test" is no URL of a registry`,
		"http://":                   `"http://" is no URL of a registry`,
		"https://r.test?x=y":        `"https://r.test?x=y" has more than scheme, host, port and path`,
		"https://r.test/a#b":        `has more than scheme, host, port and path`,
		"https://me:word@r.test":    "https://me:xxxxx@r.test: credentials do not belong into the URL",
		"https://r.test:x":          "is no URL of a registry",
		"https://me:word@r.test:x":  "is no URL of a registry",
		"https://r.test/Big":        `the path is no folder of repositories`,
		"https://r.test/a//b":       `the path is no folder of repositories`,
		"https://r.test/a/../b":     `the path is no folder of repositories`,
		"https://r.test/%2e%2e/b":   `the path is no folder of repositories`,
		"https://r.test/a%3fb":      `the path is no folder of repositories`,
		"https://r.test/api/hub/v2": `the path is no folder of repositories`,
	} {
		_, err := origin.New(origin.Options{Registries: origin.Registries{"r": {Upstreams: []string{base}}}})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "word") {
			t.Errorf("%q: error %v, want %s", base, err, want)
		}
	}
	for _, base := range []string{"https://r.test:5000/", "https://r.test/v2", "https://r.test/v2/", "http://r.test/a-b/c_d/"} {
		if _, err := origin.New(origin.Options{Registries: origin.Registries{"r": {Upstreams: []string{base}}}}); err != nil {
			t.Error(err)
		}
	}
}

func TestRepositoryNames(t *testing.T) {
	c, err := origin.New(origin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "library/alpine", "a/b/c-d__e.f/0", strings.Repeat("a", 255)} {
		if _, err := c.Repository(origin.DockerHub, name); err != nil {
			t.Errorf("%.30q: %v", name, err)
		}
	}
	for _, name := range []string{"", "A", "/a", "a/", "a//b", "..", "a/../b", "a b", "a?b", "a%2fb", "a._b", "-a", strings.Repeat("a", 256)} {
		if _, err := c.Repository(origin.DockerHub, name); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%.30q: error %v", name, err)
		}
	}
}

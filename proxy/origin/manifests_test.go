package origin_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

const manifest = `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `"}`

func TestManifestFaults(t *testing.T) {
	other := digest.FromString("other")
	tests := []struct {
		name   string
		effect origintest.Effect
		times  int
		err    error
		took   time.Duration // exact for errors
		tries  int           // 0 is 1
	}{
		{name: "none", effect: origintest.Delay(0)},
		{name: "not found", effect: origintest.Status(404), err: blob.ErrNotFound},
		{name: "denied", effect: origintest.Status(403), err: blob.ErrDenied},
		{name: "500", effect: origintest.Status(500), err: blob.ErrUnavailable},
		{name: "503 once", effect: origintest.Status(503), times: 1, tries: 2},
		{name: "silence", effect: origintest.Silence(), err: blob.ErrStalled, took: 5 * time.Second},
		{name: "silence in the body", effect: origintest.SilenceAfter(4), err: blob.ErrStalled, took: 10 * time.Second},
		{name: "trickle", effect: origintest.Trickle(1, time.Second), err: blob.ErrStalled, took: 30 * time.Second},
		{name: "closed early once", effect: origintest.CloseEarly(4), times: 1, tries: 2},
		{name: "no length", effect: origintest.Chunked()},
		{name: "length too short", effect: origintest.LieLength(-4), err: blob.ErrCorrupt},
		{name: "length of 10 MB", effect: origintest.LieLength(10e6), err: blob.ErrTooLarge},
		{name: "web page", effect: origintest.HTML(), err: blob.ErrUnavailable},
		{name: "corrupt", effect: origintest.Corrupt(3), err: blob.ErrCorrupt},
		{name: "another digest", effect: origintest.LieDigest(other), err: blob.ErrCorrupt},
		{name: "a broken digest", effect: origintest.Header("Docker-Content-Digest", "sha256:12"), err: blob.ErrCorrupt},
		{name: "no digest", effect: origintest.Header("Docker-Content-Digest", "")},
		{name: "another type", effect: origintest.LieType("application/octet-stream")},
		{name: "no type", effect: origintest.Header("Content-Type", "")},
	}
	for _, tt := range tests {
		for _, byTag := range []bool{true, false} {
			name := tt.name + " by digest"
			if byTag {
				name = tt.name + " by tag"
			}
			t.Run(name, func(t *testing.T) {
				inWorld(t, func(w *world) {
					t := w.t
					r := w.registry("u.test:80", origintest.Options{})
					d := r.AddManifest("lib/x", "v1", v1.MediaTypeImageManifest, []byte(manifest))
					ref := d.Digest.String()
					if byTag {
						ref = "v1"
					}
					r.Fault(origintest.Fault{Times: tt.times, Effect: tt.effect})
					begin := time.Now()
					got, raw, err := w.repository("u.test").Manifest(t.Context(), ref, nil)
					if !errors.Is(err, tt.err) || err != nil && tt.err == nil {
						t.Fatalf("error %v, want %v", err, tt.err)
					}
					if err != nil && (raw != nil || got != blob.Descriptor{}) {
						t.Errorf("an error with %v and %d bytes", got, len(raw))
					}
					if err == nil && (got != d || string(raw) != manifest) {
						t.Errorf("got %v %q, want %v", got, raw, d)
					}
					if took := time.Since(begin); err != nil && took != tt.took {
						t.Errorf("took %v, want %v", took, tt.took)
					}
					if n := r.Stats().Requests["GET manifest"]; n != max(tt.tries, 1) {
						t.Errorf("%d requests: %q", n, r.Lines())
					}
				})
			})
		}
	}
}

func TestAManifestByDigestIsCheckedAgainstIt(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddManifest("lib/x", "v1", v1.MediaTypeImageManifest, []byte(manifest))
		r.Fault(origintest.Fault{Effect: origintest.Header("Docker-Content-Digest", "")})
		r.Fault(origintest.Fault{Effect: origintest.Body([]byte(`{"mediaType":"a/b"}`))})
		if _, _, err := w.repository("u.test").Manifest(t.Context(), d.Digest.String(), nil); !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("error %v", err)
		}
	})
}

func TestManifestBodies(t *testing.T) {
	tests := []struct {
		name, declared, body string
		mediaType            string
		err                  error
	}{
		{name: "type in the body", declared: "text/plain; charset=utf-8", body: `{"mediaType":"a/b"}`, mediaType: "a/b"},
		{name: "type in the header", declared: "a/b", body: `{}`, mediaType: "a/b"},
		{name: "not JSON", declared: v1.MediaTypeImageManifest, body: "<html>", err: blob.ErrUnavailable},
		{name: "not an object", declared: v1.MediaTypeImageManifest, body: "[]", err: blob.ErrUnavailable},
		{name: "4 MiB", declared: "a/b", body: `{}` + strings.Repeat(" ", blob.MaxManifestSize-2), mediaType: "a/b"},
		{name: "over 4 MiB", declared: "a/b", body: `{}` + strings.Repeat(" ", blob.MaxManifestSize-1), err: blob.ErrTooLarge},
	}
	for _, tt := range tests {
		for _, chunked := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				inWorld(t, func(w *world) {
					t := w.t
					r := w.registry("u.test:80", origintest.Options{})
					r.AddManifest("lib/x", "v1", tt.declared, []byte(tt.body))
					if chunked {
						r.Fault(origintest.Fault{Effect: origintest.Chunked()})
					}
					d, raw, err := w.repository("u.test").Manifest(t.Context(), "v1", nil)
					if !errors.Is(err, tt.err) || err != nil && tt.err == nil {
						t.Fatalf("error %v, want %v", err, tt.err)
					}
					if d.MediaType != tt.mediaType || err == nil && string(raw) != tt.body {
						t.Errorf("got %v and %d bytes", d, len(raw))
					}
				})
			})
		}
	}
}

func TestResolve(t *testing.T) {
	const head, get = "HEAD manifest v1 -> ", "GET manifest v1 -> "
	tests := []struct {
		name   string
		faults []origintest.Effect // of HEAD
		err    error
		saw    []string
	}{
		{name: "plain", saw: []string{head + "200"}},
		{name: "no HEAD", faults: []origintest.Effect{origintest.Status(405)}, saw: []string{head + "405", get + "200"}},
		{name: "no digest", faults: []origintest.Effect{origintest.Header("Docker-Content-Digest", "")}, saw: []string{head + "200", get + "200"}},
		{name: "no type", faults: []origintest.Effect{origintest.Header("Content-Type", "")}, saw: []string{head + "200", get + "200"}},
		{name: "no length", faults: []origintest.Effect{origintest.Chunked()}, saw: []string{head + "200", get + "200"}},
		{name: "missing", faults: []origintest.Effect{origintest.Status(404)}, err: blob.ErrNotFound, saw: []string{head + "404"}},
		{name: "web page", faults: []origintest.Effect{origintest.HTML()}, err: blob.ErrUnavailable, saw: []string{head + "200"}},
		{name: "too large", faults: []origintest.Effect{origintest.LieLength(blob.MaxManifestSize)}, err: blob.ErrTooLarge, saw: []string{head + "200"}},
		{name: "broken digest", faults: []origintest.Effect{origintest.Header("Docker-Content-Digest", "x")}, err: blob.ErrCorrupt, saw: []string{head + "200"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r := w.registry("u.test:80", origintest.Options{})
				want := r.AddManifest("lib/x", "v1", v1.MediaTypeImageManifest, []byte(manifest))
				for _, e := range tt.faults {
					r.Fault(origintest.Fault{Method: http.MethodHead, Effect: e})
				}
				got, err := w.repository("u.test").Resolve(t.Context(), "v1", nil)
				if !errors.Is(err, tt.err) || err != nil && tt.err == nil {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if err == nil && got != want {
					t.Errorf("got %v, want %v", got, want)
				}
				wantLines(t, r, want.Digest.String(), tt.saw...)
			})
		})
	}
}

func TestResolveChecksTheDigestThatItAskedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddManifest("lib/x", "v1", v1.MediaTypeImageManifest, []byte(manifest))
		repo := w.repository("u.test")
		if got, err := repo.Resolve(t.Context(), d.Digest.String(), nil); err != nil || got != d {
			t.Errorf("got %v, %v", got, err)
		}
		r.Fault(origintest.Fault{Effect: origintest.LieDigest(digest.FromString("other"))})
		if _, err := repo.Resolve(t.Context(), d.Digest.String(), nil); !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("another digest: %v", err)
		}
	})
}

func TestAcceptIsWhatTheClientWants(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		r.AddManifest("lib/x", "v1", v1.MediaTypeImageManifest, []byte(manifest))
		repo := w.repository("u.test")
		for _, accept := range [][]string{nil, {"a/b", "c/d;q=0.5"}} {
			if _, err := repo.Resolve(t.Context(), "v1", accept); err != nil {
				t.Fatal(err)
			}
		}
		requests := r.Requests()
		if all := requests[0].Accept; !strings.Contains(all, v1.MediaTypeImageIndex) || !strings.Contains(all, "docker.distribution.manifest.v2+json") {
			t.Errorf("default Accept is %q", all)
		}
		if got := requests[1].Accept; got != "a/b, c/d;q=0.5" {
			t.Errorf("Accept is %q", got)
		}
		if got := requests[1].Agent; got != "shoal" {
			t.Errorf("User-Agent is %q", got)
		}
	})
}

func TestManifestsAreASource(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddManifest("lib/x", "v1", v1.MediaTypeImageManifest, []byte(manifest))
		src := w.repository("u.test").Manifests([]string{d.MediaType})
		st, body, err := read(t.Context(), src, d, whole)
		if err != nil || body != manifest || st.Size != d.Size || st.Range != (blob.Range{Length: d.Size}) || st.Identity == "" {
			t.Errorf("got %q, %+v, %v", body, st, err)
		}
		wantLines(t, r, d.Digest.String(), "GET manifest D -> 200")
		_, _, err = read(t.Context(), src, blob.Descriptor{Digest: digest.FromString("missing")}, whole)
		if !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("missing: %v", err)
		}
		for name, tt := range map[string]struct {
			effect origintest.Effect
			err    error
		}{
			"web page":       {origintest.HTML(), blob.ErrUnavailable},
			"another digest": {origintest.LieDigest(digest.FromString("other")), blob.ErrCorrupt},
			"10 MB":          {origintest.LieLength(10e6), blob.ErrTooLarge},
		} {
			r.ClearFaults()
			r.Fault(origintest.Fault{Effect: tt.effect})
			if _, _, err := read(t.Context(), src, d, whole); !errors.Is(err, tt.err) {
				t.Errorf("%s: error %v, want %v", name, err, tt.err)
			}
		}
	})
}

func TestForward(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		r.AddManifest("lib/x", "v1", v1.MediaTypeImageManifest, []byte(manifest))
		repo := w.repository("u.test")
		resp, err := repo.Forward(t.Context(), http.MethodGet, "tags/list", "n=5&last=a", []string{"application/json"})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != `{"name":"lib/x","tags":["v1"]}` {
			t.Errorf("body %q, %v", body, err)
		}
		if q := r.Requests()[0]; q.Path != "/v2/lib/x/tags/list" || q.Query != "n=5&last=a" || q.Accept != "application/json" {
			t.Errorf("upstream saw %+v", q)
		}
		for _, suffix := range []string{"../y/tags/list", "tags/../../y", "tags//list", "", "/", "a?b", "a%2fb", "a\\b", "tags/list/", "..", strings.Repeat("a", 513)} {
			//nolint:bodyclose // with an error there is none
			if _, err := repo.Forward(t.Context(), http.MethodGet, suffix, "", nil); !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("suffix %.20q: error %v", suffix, err)
			}
		}
		if n := len(r.Requests()); n != 1 {
			t.Errorf("upstream saw %d requests", n)
		}
	})
}

func TestErrorsTellWhatTheUpstreamSaid(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		repo := w.repository("u.test")
		_, err := repo.Resolve(t.Context(), "v1", nil)
		if got, want := err.Error(), "http://u.test: HEAD manifest: 404 Not Found: not found"; got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		r.Fault(origintest.Fault{Effect: origintest.TooMany(time.Hour)})
		_, _, err = repo.Manifest(t.Context(), "v1", nil)
		if got, want := err.Error(), "http://u.test: GET manifest: 429 Too Many Requests (TOOMANYREQUESTS): unavailable"; got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		var resp *origin.ResponseError
		if !errors.As(err, &resp) || resp.RetryAfter != time.Hour || resp.Status != 429 {
			t.Errorf("error %+v", resp)
		}
		r.ClearFaults()
		r.Fault(origintest.Fault{Effect: origintest.Challenge("Basic realm=\"x\"")})
		_, _, err = repo.Manifest(t.Context(), "v1", nil)
		if !errors.As(err, &resp) || len(resp.Challenge) != 1 || resp.Challenge[0] != `Basic realm="x"` {
			t.Errorf("error %+v", resp)
		}
	})
}

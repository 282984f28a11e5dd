package origin_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

const data = "0123456789"

var whole = blob.Range{Length: -1}

// read opens rng of d and reads it to its end.
func read(ctx context.Context, s blob.Source, d blob.Descriptor, rng blob.Range) (*blob.Stream, string, error) {
	st, err := s.Open(ctx, d, rng)
	if err != nil {
		return nil, "", err
	}
	defer st.Body.Close()
	body, err := io.ReadAll(st.Body)
	return st, string(body), err
}

func TestBlobFaults(t *testing.T) {
	other := digest.FromString("other")
	tests := []struct {
		name   string
		effect origintest.Effect
		times  int // 0: always
		body   string
		size   int64 // told by the stream; 0 is 10
		err    error
		took   time.Duration // exact, unless slow
		slow   time.Duration // at most
		saw    []string
	}{
		{name: "none", effect: origintest.Delay(0), body: data, saw: []string{"200"}},
		{name: "not found", effect: origintest.Status(404), err: blob.ErrNotFound, saw: []string{"404"}},
		{name: "gone", effect: origintest.Status(410), err: blob.ErrNotFound, saw: []string{"410"}},
		{name: "unauthorized", effect: origintest.Status(401), err: blob.ErrDenied, saw: []string{"401"}},
		{name: "forbidden", effect: origintest.Status(403), err: blob.ErrDenied, saw: []string{"403"}},
		{name: "legal reasons", effect: origintest.Status(451), err: blob.ErrDenied, saw: []string{"451"}},
		{name: "bad request", effect: origintest.Status(400), err: blob.ErrUnavailable, saw: []string{"400"}},
		{name: "teapot", effect: origintest.Status(418), err: blob.ErrUnavailable, saw: []string{"418"}},
		{name: "500", effect: origintest.Status(500), err: blob.ErrUnavailable, saw: []string{"500"}},
		{name: "502", effect: origintest.Status(502), err: blob.ErrUnavailable, slow: 600 * time.Millisecond, saw: []string{"502", "502", "502"}},
		{name: "503", effect: origintest.Status(503), err: blob.ErrUnavailable, slow: 600 * time.Millisecond, saw: []string{"503", "503", "503"}},
		{name: "504 once", effect: origintest.Status(504), times: 1, body: data, slow: 150 * time.Millisecond, saw: []string{"504", "200"}},
		{name: "503 twice", effect: origintest.Status(503), times: 2, body: data, slow: 600 * time.Millisecond, saw: []string{"503", "503", "200"}},
		{name: "429 for 2 s", effect: origintest.TooMany(2 * time.Second), times: 1, body: data, took: 2 * time.Second, saw: []string{"429", "200"}},
		{name: "429 for a minute", effect: origintest.TooMany(time.Minute), err: blob.ErrUnavailable, saw: []string{"429"}},
		{name: "429 without a word", effect: origintest.Status(429), err: blob.ErrUnavailable, saw: []string{"429"}},
		{name: "429 for 5 s", effect: origintest.TooMany(5 * time.Second), err: blob.ErrUnavailable, saw: []string{"429"}},
		{name: "dropped", effect: origintest.Drop(), err: blob.ErrUnavailable, slow: 600 * time.Millisecond, saw: []string{"0", "0", "0"}},
		{name: "dropped once", effect: origintest.Drop(), times: 1, body: data, slow: 150 * time.Millisecond, saw: []string{"0", "200"}},
		{name: "silence", effect: origintest.Silence(), err: blob.ErrStalled, took: 5 * time.Second, saw: []string{"0"}},
		{name: "silence in the body", effect: origintest.SilenceAfter(4), body: "0123", err: blob.ErrStalled, took: 10 * time.Second, saw: []string{"200"}},
		{name: "closed early", effect: origintest.CloseEarly(4), body: "0123", err: io.ErrUnexpectedEOF, saw: []string{"200"}},
		{name: "closed at once", effect: origintest.CloseEarly(0), err: io.ErrUnexpectedEOF, saw: []string{"200"}},
		{name: "length too long", effect: origintest.LieLength(5), body: data, size: 15, err: io.ErrUnexpectedEOF, saw: []string{"200"}},
		{name: "length too short", effect: origintest.LieLength(-4), body: "012345", size: 6, saw: []string{"200"}},
		{name: "no length", effect: origintest.Chunked(), body: data, size: -1, saw: []string{"200"}},
		{name: "over a TiB", effect: origintest.LieLength(blob.MaxSize), err: blob.ErrTooLarge, saw: []string{"200"}},
		{name: "trickle", effect: origintest.Trickle(1, 9*time.Second), body: data, took: 81 * time.Second, saw: []string{"200"}},
		{name: "slow trickle", effect: origintest.Trickle(1, 11*time.Second), body: "0", err: blob.ErrStalled, took: 10 * time.Second, saw: []string{"200"}},
		{name: "web page", effect: origintest.HTML(), err: blob.ErrUnavailable, saw: []string{"200"}},
		{name: "another digest", effect: origintest.LieDigest(other), err: blob.ErrCorrupt, saw: []string{"200"}},
		{name: "another type", effect: origintest.LieType("text/plain"), body: data, saw: []string{"200"}},
		{name: "corrupt", effect: origintest.Corrupt(3), body: "012#456789", saw: []string{"200"}},
		{name: "a range nobody asked for", effect: origintest.LieRange("bytes 5-9/10"), err: blob.ErrUnavailable, saw: []string{"206"}},
		{name: "redirect to nowhere", effect: origintest.Redirect(""), err: blob.ErrUnavailable, saw: []string{"307"}},
		{name: "redirect to a file", effect: origintest.Redirect("file:///etc/passwd"), err: blob.ErrUnavailable, saw: []string{"307"}},
		{name: "redirect with a password", effect: origintest.Redirect("http://me:secret@u.test/"), err: blob.ErrUnavailable, saw: []string{"307"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r := w.registry("u.test:80", origintest.Options{})
				d := r.AddBlob("lib/x", []byte(data))
				r.Fault(origintest.Fault{Times: tt.times, Effect: tt.effect})
				begin := time.Now()
				st, body, err := read(t.Context(), w.repository("u.test").Blobs(), d, whole)
				took := time.Since(begin)
				if !errors.Is(err, tt.err) || err != nil && tt.err == nil {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if body != tt.body {
					t.Errorf("body %q, want %q", body, tt.body)
				}
				if tt.slow == 0 && took != tt.took || tt.slow != 0 && took > tt.slow {
					t.Errorf("took %v, want %v (at most %v)", took, tt.took, tt.slow)
				}
				if st != nil {
					size := tt.size
					if size == 0 {
						size = 10
					}
					if want := (blob.Range{Length: size}); st.Size != size || st.Range != want {
						t.Errorf("stream is %v of %d, want %v of %d", st.Range, st.Size, want, size)
					}
				}
				var saw []string
				for _, code := range tt.saw {
					saw = append(saw, "GET blob D -> "+code)
				}
				wantLines(t, r, d.Digest.String(), saw...)
				if err != nil && strings.Contains(err.Error(), "\n") {
					t.Errorf("error of several lines: %q", err)
				}
			})
		})
	}
}

func TestTheBodyOfAnErrorIsNotWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddBlob("lib/x", []byte(data))
		r.Fault(origintest.Fault{Effect: origintest.Status(404)})
		r.Fault(origintest.Fault{Effect: origintest.SilenceAfter(3)})
		begin := time.Now()
		_, _, err := read(t.Context(), w.repository("u.test").Blobs(), d, whole)
		if took := time.Since(begin); !errors.Is(err, blob.ErrNotFound) || took != 500*time.Millisecond {
			t.Errorf("error %v after %v", err, took)
		}
	})
}

func TestBytesAreLeftAsTheyAre(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		var zipped bytes.Buffer
		zw := gzip.NewWriter(&zipped)
		if _, err := zw.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		d := r.AddBlob("lib/x", zipped.Bytes())
		r.Fault(origintest.Fault{Effect: origintest.Header("Content-Encoding", "gzip")})
		if _, body, err := read(t.Context(), w.repository("u.test").Blobs(), d, whole); err != nil || body != zipped.String() {
			t.Errorf("got %q, %v", body, err)
		}
	})
}

func TestRedirectsEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddBlob("lib/x", []byte(data))
		r.Fault(origintest.Fault{Effect: origintest.Redirect("/v2/lib/x/blobs/" + d.Digest.String())})
		_, _, err := read(t.Context(), w.repository("u.test").Blobs(), d, whole)
		if !errors.Is(err, blob.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		wantLines(t, r, d.Digest.String(), slices.Repeat([]string{"GET blob D -> 307"}, 6)...)
	})
}

func TestRanges(t *testing.T) {
	tests := []struct {
		name   string
		rng    blob.Range
		size   int64 // of the descriptor
		effect origintest.Effect
		delta  int64 // added to the length that is told
		body   string
		got    blob.Range
		told   int64
		err    error
		asked  string // the Range header, with a blank in front
		status string // empty: not asked
	}{
		{name: "whole", rng: whole, size: 10, body: data, got: blob.Range{Length: 10}, told: 10, status: "200"},
		{name: "exactly the whole", rng: blob.Range{Length: 10}, size: 10, body: data, got: blob.Range{Length: 10}, told: 10, status: "200"},
		{name: "more than the whole", rng: blob.Range{Length: 11}, size: 10, body: data, got: blob.Range{Length: 10}, told: 10, status: "200"},
		{name: "head, size unknown", rng: blob.Range{Length: 4}, size: -1, body: "0123", got: blob.Range{Length: 4}, told: 10, asked: " bytes=0-3", status: "206"},
		{name: "middle", rng: blob.Range{Offset: 2, Length: 3}, size: 10, body: "234", got: blob.Range{Offset: 2, Length: 3}, told: 10, asked: " bytes=2-4", status: "206"},
		{name: "tail", rng: blob.Range{Offset: 7, Length: -1}, size: 10, body: "789", got: blob.Range{Offset: 7, Length: 3}, told: 10, asked: " bytes=7-9", status: "206"},
		{name: "over the end", rng: blob.Range{Offset: 7, Length: 9}, size: 10, body: "789", got: blob.Range{Offset: 7, Length: 3}, told: 10, asked: " bytes=7-9", status: "206"},
		{name: "tail, size unknown", rng: blob.Range{Offset: 7, Length: -1}, size: -1, body: "789", got: blob.Range{Offset: 7, Length: 3}, told: 10, asked: " bytes=7-", status: "206"},
		{name: "over an unknown end", rng: blob.Range{Offset: 7, Length: 9}, size: -1, body: "789", got: blob.Range{Offset: 7, Length: 3}, told: 10, asked: " bytes=7-15", status: "206"},
		{name: "behind the end", rng: blob.Range{Offset: 10, Length: 1}, size: 10, err: blob.ErrTooLarge},
		{name: "endless length", rng: blob.Range{Offset: 7, Length: math.MaxInt64}, size: -1, body: "789", got: blob.Range{Offset: 7, Length: 3}, told: 10, asked: " bytes=7-", status: "206"},
		{name: "endless offset", rng: blob.Range{Offset: math.MaxInt64, Length: 1}, size: -1, err: blob.ErrTooLarge},
		{name: "behind an unknown end", rng: blob.Range{Offset: 10, Length: 1}, size: -1, err: blob.ErrTooLarge, asked: " bytes=10-10", status: "416"},
		{name: "ignored", rng: blob.Range{Offset: 2, Length: 3}, size: 10, effect: origintest.IgnoreRange(), body: data, got: blob.Range{Length: 10}, told: 10, asked: " bytes=2-4", status: "200"},
		{name: "total untold", rng: blob.Range{Offset: 2, Length: 3}, size: 10, effect: origintest.LieRange("bytes 2-4/*"), body: "234", got: blob.Range{Offset: 2, Length: 3}, told: -1, asked: " bytes=2-4", status: "206"},
		{name: "shorter", rng: blob.Range{Offset: 2, Length: 8}, size: 10, effect: origintest.LieRange("bytes 2-6/10"), delta: -3, body: "23456", got: blob.Range{Offset: 2, Length: 5}, told: 10, asked: " bytes=2-9", status: "206"},
		{name: "other offset", rng: blob.Range{Offset: 2, Length: 3}, size: 10, effect: origintest.LieRange("bytes 3-5/10"), err: blob.ErrUnavailable, asked: " bytes=2-4", status: "206"},
		{name: "longer", rng: blob.Range{Offset: 2, Length: 3}, size: 10, effect: origintest.LieRange("bytes 2-5/10"), delta: 1, err: blob.ErrUnavailable, asked: " bytes=2-4", status: "206"},
		{name: "not as long as its body", rng: blob.Range{Offset: 2, Length: 3}, size: 10, effect: origintest.LieRange("bytes 2-3/10"), err: blob.ErrUnavailable, asked: " bytes=2-4", status: "206"},
		{name: "no Content-Range", rng: blob.Range{Offset: 2, Length: 3}, size: 10, effect: origintest.Header("Content-Range", ""), err: blob.ErrUnavailable, asked: " bytes=2-4", status: "206"},
		{name: "over a TiB", rng: blob.Range{Offset: 2, Length: 3}, size: -1, effect: origintest.LieRange("bytes 2-4/1099511627777"), err: blob.ErrTooLarge, asked: " bytes=2-4", status: "206"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r := w.registry("u.test:80", origintest.Options{})
				d := r.AddBlob("lib/x", []byte(data))
				d.Size = tt.size
				if tt.effect != nil {
					r.Fault(origintest.Fault{Effect: tt.effect})
				}
				if tt.delta != 0 {
					r.Fault(origintest.Fault{Effect: origintest.LieLength(tt.delta)})
				}
				st, body, err := read(t.Context(), w.repository("u.test").Blobs(), d, tt.rng)
				if !errors.Is(err, tt.err) || err != nil && tt.err == nil {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if body != tt.body {
					t.Errorf("body %q, want %q", body, tt.body)
				}
				if st != nil && (st.Range != tt.got || st.Size != tt.told) {
					t.Errorf("stream is %v of %d, want %v of %d", st.Range, st.Size, tt.got, tt.told)
				}
				if tt.status == "" {
					wantLines(t, r, d.Digest.String())
				} else {
					wantLines(t, r, d.Digest.String(), "GET blob D"+tt.asked+" -> "+tt.status)
				}
			})
		})
	}
}

func TestEmptyRangesAreAnError(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddBlob("lib/x", []byte(data))
		blobs := w.repository("u.test").Blobs()
		for _, rng := range []blob.Range{{}, {Offset: -1, Length: 3}} {
			if _, _, err := read(t.Context(), blobs, d, rng); err == nil {
				t.Errorf("%v was read", rng)
			}
		}
		wantLines(t, r, "")
	})
}

func TestIdentity(t *testing.T) {
	identity := func(t *testing.T, s blob.Source, d blob.Descriptor, rng blob.Range) string {
		t.Helper()
		st, _, err := read(t.Context(), s, d, rng)
		if err != nil {
			t.Fatal(err)
		}
		return st.Identity
	}
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		w.registry("v.test:80", origintest.Options{}).AddBlob("lib/x", []byte(data))
		d := r.AddBlob("lib/x", []byte(data))
		c := w.client(origin.Options{Registries: origin.Registries{"u": {Upstreams: []string{"http://u.test"}}, "v": {Upstreams: []string{"http://v.test"}}}})
		u, v := w.of(c, "u", "lib/x").Blobs(), w.of(c, "v", "lib/x").Blobs()
		first := identity(t, u, d, whole)
		if first == "" {
			t.Fatal("no identity")
		}
		if got := identity(t, u, d, blob.Range{Offset: 2, Length: 3}); got != first {
			t.Errorf("a range has the identity %q, the whole %q", got, first)
		}
		if got := identity(t, v, d, whole); got == first {
			t.Errorf("two upstreams have the identity %q", got)
		}
		r.Fault(origintest.Fault{Times: 1, Effect: origintest.Header("Etag", `"v2"`)})
		if got := identity(t, u, d, whole); got == first {
			t.Errorf("two ETags have the identity %q", got)
		}
		r.Fault(origintest.Fault{Times: 1, Effect: origintest.LieLength(-1)})
		if got := identity(t, u, d, whole); got == first {
			t.Errorf("two sizes have the identity %q", got)
		}
		r.ClearFaults()
		r.Fault(origintest.Fault{Effect: origintest.Header("Etag", "")})
		r.Fault(origintest.Fault{Effect: origintest.Header("Docker-Content-Digest", "")})
		one, two := identity(t, u, d, whole), identity(t, u, d, whole)
		if one == "" || one == two {
			t.Errorf("answers without a validator have the identities %q and %q", one, two)
		}
	})
}

func TestStat(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{RedirectBlobs: true, CDN: "http://cdn.test"})
		d := r.AddBlob("lib/x", []byte(data))
		w.alias("cdn.test:80", "u.test:80")
		repo := w.repository("u.test")
		got, err := repo.Stat(t.Context(), blob.Descriptor{Digest: d.Digest, Size: blob.UnknownSize})
		if err != nil || got != d {
			t.Errorf("got %v, %v, want %v", got, err, d)
		}
		_, err = repo.Stat(t.Context(), blob.Descriptor{Digest: digest.FromString("missing")})
		if !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("a missing blob: %v", err)
		}
		r.Fault(origintest.Fault{Kind: origintest.CDN, Effect: origintest.HTML()})
		if _, err = repo.Stat(t.Context(), d); !errors.Is(err, blob.ErrUnavailable) {
			t.Errorf("a web page: %v", err)
		}
	})
}

func TestMetrics(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{RedirectBlobs: true, CDN: "http://cdn.test", Auth: &origintest.TokenAuth{}})
		w.alias("cdn.test:80", "u.test:80")
		d := r.AddBlob("lib/x", []byte(data))
		repo := w.repository("u.test", "refusing.test")
		if _, _, err := read(t.Context(), repo.Blobs(), d, whole); err != nil {
			t.Fatal(err)
		}
		r.Fault(origintest.Fault{Kind: origintest.Tags, Effect: origintest.Status(500)})
		//nolint:bodyclose // with an error there is none
		if _, err := repo.Forward(t.Context(), http.MethodGet, "tags/list", "", nil); err == nil {
			t.Fatal("no error")
		}
		want := []string{
			"r.test GET blob 307: 1", "r.test GET blob 401: 1",
			"r.test GET forward 500: 1", "r.test GET forward error: 3",
			"r.test GET redirect 200: 1", "r.test GET token 200: 1",
		}
		if got := w.requests(); !slices.Equal(got, want) {
			t.Errorf("metrics\n%q\nwant\n%q", got, want)
		}
	})
}

// An empty blob is had, though a registry refuses any range of it.
func TestARangeOfAnEmptyBlob(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddBlob("lib/x", nil)
		d.Size = blob.UnknownSize
		st, body, err := read(t.Context(), w.repository("u.test").Blobs(), d, blob.Range{Length: 100})
		if err != nil || body != "" || st.Size != 0 {
			t.Errorf("%q, %v", body, err)
		}
		wantLines(t, r, d.Digest.String(), "GET blob D bytes=0-99 -> 416", "GET blob D -> 200")
	})
}

// A registry may call a content by a digest of another algorithm than the one
// that it was asked for, as docker-registry does, but not by another of the same.
func TestDigestsOfOtherAlgorithms(t *testing.T) {
	short, long := digest.FromString(data), digest.SHA512.FromString(data)
	for _, c := range []struct {
		algorithm digest.Algorithm
		told      string
		err       error
	}{
		{digest.SHA512, short.String(), nil},
		{digest.SHA256, long.String(), nil},
		{digest.SHA512, digest.SHA512.FromString("x").String(), blob.ErrCorrupt},
		{digest.SHA256, digest.FromString("x").String(), blob.ErrCorrupt},
		{digest.SHA512, "md5:x", blob.ErrCorrupt},
	} {
		inWorld(t, func(w *world) {
			t := w.t
			r := w.registry("u.test:80", origintest.Options{})
			d := r.AddBlobBy(c.algorithm, "lib/x", []byte(data))
			m := r.AddManifestBy(c.algorithm, "lib/x", "", v1.MediaTypeImageIndex, []byte(`{"manifests":[]}`))
			r.Fault(origintest.Fault{Effect: origintest.Header("Docker-Content-Digest", c.told)})
			repo := w.repository("u.test")
			if _, body, err := read(t.Context(), repo.Blobs(), d, whole); !errors.Is(err, c.err) || err == nil && body != data {
				t.Errorf("blob of %s, told %s: %q, %v", c.algorithm, c.told, body, err)
			}
			if got, _, err := repo.Manifest(t.Context(), m.Digest.String(), nil); !errors.Is(err, c.err) || err == nil && got.Digest != m.Digest {
				t.Errorf("manifest of %s, told %s: %v, %v", c.algorithm, c.told, got, err)
			}
		})
	}
}

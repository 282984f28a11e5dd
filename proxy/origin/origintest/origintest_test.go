package origintest_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"shoal/proxy/origin/origintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is what a plain client gets.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// get reads one URL whole, and returns what came before an error.
func get(t *testing.T, c *http.Client, url string, header ...string) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body}, err
}

// client returns an HTTP client that keeps nothing open after the test.
func client(t *testing.T, transport *http.Transport) *http.Client {
	t.Helper()
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestLayersAreOfTheExactSizeAndUnpack(t *testing.T) {
	s := origintest.Start(t, origintest.Options{})
	c := client(t, &http.Transport{})
	busy := []byte("#!/bin/true\n")
	for _, size := range []int64{
		3095, 3101, 3102, 3500, 3606, 3607, 3608, 3609, 3610, 3611, 3612, 3613,
		65535, 65536, 68000, 68097, 68098, 68099, 131070, 1 << 20, 5_000_000,
	} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			img := s.Registry.AddImage("lib/x", "t", origintest.Image{
				Seed:      uint64(size),
				Platforms: []string{"linux/amd64"},
				Layers: []origintest.Layer{{Size: size, Files: []origintest.File{
					{Name: "bin/", Mode: 0o755}, {Name: "bin/busy", Mode: 0o755, Data: busy},
				}}},
			})
			d := img.Platforms[0].Layers[0]
			if d.Size != size {
				t.Fatalf("layer has %d bytes, want %d", d.Size, size)
			}
			a, err := get(t, c, s.URL+"/v2/lib/x/blobs/"+d.Digest.String())
			if err != nil {
				t.Fatal(err)
			}
			if got := digest.FromBytes(a.body); got != d.Digest {
				t.Fatalf("body is %s, want %s", got, d.Digest)
			}
			zr, err := gzip.NewReader(bytes.NewReader(a.body))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			tr := tar.NewReader(zr)
			for {
				h, err := tr.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, h.Name)
				data, err := io.ReadAll(tr)
				if err != nil {
					t.Fatal(err)
				}
				blocks := map[string]bool{}
				for block := range slices.Chunk(data, 4096) {
					if blocks[string(block)] {
						t.Fatalf("%s holds a block twice", h.Name)
					}
					blocks[string(block)] = true
				}
				if h.Name == "bin/busy" && !bytes.Equal(data, busy) {
					t.Errorf("bin/busy holds %q", data)
				}
			}
			if want := []string{"bin/", "bin/busy", "filler"}; !slices.Equal(names, want) {
				t.Errorf("tar holds %q, want %q", names, want)
			}
			if _, err := io.Copy(io.Discard, zr); err != nil {
				t.Errorf("gzip trailer: %v", err)
			}
		})
	}
}

func TestALayerTooSmallForItsFilesIsTheSmallestThatHoldsThem(t *testing.T) {
	r := origintest.New(origintest.Options{})
	img := r.AddImage("lib/x", "t", origintest.Image{Layers: origintest.Layers(1)})
	if got := img.Platforms[0].Layers[0].Size; got != 10+5+512+1024+8 {
		t.Errorf("smallest layer has %d bytes", got)
	}
}

func TestImagesAreValidToAnotherImplementation(t *testing.T) {
	s := origintest.Start(t, origintest.Options{RedirectBlobs: true, Auth: &origintest.TokenAuth{}})
	img := s.Registry.AddImage("lib/x", "v1", origintest.Image{
		Seed: 7, Layers: origintest.Layers(100_000, 2_000_000), Cmd: []string{"/bin/true"},
	})
	tr := client(t, &http.Transport{}).Transport
	ref, err := name.ParseReference(s.Host()+"/lib/x:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref, remote.WithTransport(tr), remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != img.Index.Digest.String() {
		t.Errorf("index is %s, want %s", got, img.Index.Digest)
	}
	pulled, err := remote.Image(ref, remote.WithTransport(tr), remote.WithPlatform(ggcr.Platform{OS: "linux", Architecture: "arm64"}))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := pulled.Digest(); got.String() != img.Platform("linux/arm64").Manifest.Digest.String() {
		t.Errorf("linux/arm64 is %s", got)
	}
	layers, err := pulled.Layers() // in the order of the config's diff IDs
	if err != nil || len(layers) != 2 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	for _, l := range layers {
		unpacked, err := l.Uncompressed() // checks the digest of what it reads
		if err != nil {
			t.Fatal(err)
		}
		got, err := digest.FromReader(unpacked)
		if err != nil {
			t.Fatal(err)
		}
		if want, _ := l.DiffID(); got.String() != want.String() {
			t.Errorf("layer unpacks to %s, config says %s", got, want)
		}
	}
}

func TestASeedDecidesAllDigests(t *testing.T) {
	declared := origintest.Image{Seed: 3, Layers: origintest.Layers(20_000, 20_000)}
	a := origintest.New(origintest.Options{}).AddImage("a", "t", declared)
	b := origintest.New(origintest.Options{}).AddImage("b", "t", declared)
	declared.Seed++
	c := origintest.New(origintest.Options{}).AddImage("c", "t", declared)
	if a.Index.Digest != b.Index.Digest {
		t.Error("the same seed gave different images")
	}
	seen := map[digest.Digest]bool{}
	for _, img := range []*origintest.Added{a, c} {
		for _, p := range img.Platforms {
			for _, l := range p.Layers {
				if seen[l.Digest] {
					t.Errorf("layer %s occurs twice", l.Digest)
				}
				seen[l.Digest] = true
			}
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d layers, want 8", len(seen))
	}
}

// bubble is a registry and its client on a clock of their own.
type bubble struct {
	t *testing.T
	r *origintest.Registry
	c *http.Client
}

// inBubble serves a registry without a network, in a bubble of its own time.
func inBubble(t *testing.T, o origintest.Options, f func(bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		pipe := origintest.NewPipe()
		r := origintest.New(o)
		s := origintest.Serve(pipe, r)
		transport := &http.Transport{DialContext: pipe.DialContext, MaxIdleConnsPerHost: 100}
		defer func() {
			transport.CloseIdleConnections()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(bubble{t, r, &http.Client{Transport: transport}})
	})
}

func TestLatencyComesBeforeHeaders(t *testing.T) {
	inBubble(t, origintest.Options{Latency: 20 * time.Millisecond}, func(b bubble) {
		t, c := b.t, b.c
		begin := time.Now()
		if _, err := get(t, c, "http://o.test/v2/"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 20*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestATokenIsForOneRepositoryAndATime(t *testing.T) {
	inBubble(t, origintest.Options{Auth: &origintest.TokenAuth{Expires: time.Minute}}, func(b bubble) {
		d := b.r.AddBlob("x", []byte("content"))
		b.r.AddBlob("y", []byte("content"))
		ask := func(path string, header ...string) answer {
			b.t.Helper()
			a, err := get(b.t, b.c, "http://o.test"+path, header...)
			if err != nil {
				b.t.Fatal(err)
			}
			return a
		}
		want := `Bearer realm="http://o.test/token",service="origintest",scope="repository:x:pull"`
		if a := ask("/v2/x/blobs/" + d.Digest.String()); a.status != 401 || a.header.Get("Www-Authenticate") != want {
			b.t.Errorf("without a token: %d, %s", a.status, a.header.Get("Www-Authenticate"))
		}
		if a := ask("/token?scope=repository:x:pull"); !strings.Contains(string(a.body), `"token":"token-1"`) {
			b.t.Fatalf("token is %s", a.body)
		}
		for path, status := range map[string]int{"/v2/": 200, "/v2/x/blobs/": 200, "/v2/y/blobs/": 401} {
			if strings.HasSuffix(path, "blobs/") {
				path += d.Digest.String()
			}
			if a := ask(path, "Authorization", "Bearer token-1"); a.status != status {
				b.t.Errorf("%s is %d, want %d", path, a.status, status)
			}
		}
		time.Sleep(time.Minute) //nolint:forbidigo // within a synctest bubble nobody waits
		if a := ask("/v2/", "Authorization", "Bearer token-1"); a.status != 401 {
			b.t.Errorf("an expired token gives %d", a.status)
		}
	})
}

func TestCountersAndLog(t *testing.T) {
	inBubble(t, origintest.Options{}, func(b bubble) {
		t, r, c := b.t, b.r, b.c
		d := r.AddBlob("x", bytes.Repeat([]byte("0123456789"), 100))
		url := "http://o.test/v2/x/blobs/" + d.Digest.String()
		for _, rng := range []string{"bytes=0-99", "bytes=990-", "bytes=-10", "bytes=1000-"} {
			if _, err := get(t, c, url, "Range", rng); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		ref := d.Digest.String()
		want := []string{
			"GET blob " + ref + " bytes=0-99 -> 206",
			"GET blob " + ref + " bytes=990- -> 206",
			"GET blob " + ref + " bytes=-10 -> 206",
			"GET blob " + ref + " bytes=1000- -> 416",
		}
		if got := r.Lines(); !slices.Equal(got, want) {
			t.Errorf("log:\n%q\nwant\n%q", got, want)
		}
		stats := r.Stats()
		if stats.Requests["GET blob"] != 4 || stats.Content[d.Digest] != 120 || stats.ContentBytes() != 120 {
			t.Errorf("counters: %+v", stats)
		}
		r.ResetStats()
		if got := r.Stats(); len(r.Lines()) != 0 || got.BodyBytes != 0 || len(got.Requests) != 0 {
			t.Errorf("after a reset: %+v", got)
		}
	})
}

// outcome is what a plain client makes of a faulty answer.
type outcome struct {
	status int
	body   string
	err    error
}

func TestFaults(t *testing.T) {
	const data = "0123456789"
	sum := sha256.Sum256([]byte("else"))
	tests := []struct {
		name   string
		effect origintest.Effect
		want   outcome
		header string // "Key: value" that must be in the answer
		took   time.Duration
	}{
		{name: "none", effect: origintest.Delay(0), want: outcome{status: 200, body: data}, header: "Content-Length: 10"},
		{name: "status", effect: origintest.Status(503), want: outcome{status: 503}},
		{name: "too many", effect: origintest.TooMany(3 * time.Second), want: outcome{status: 429}, header: "Retry-After: 3"},
		{name: "challenge", effect: origintest.Challenge("Basic realm=x"), want: outcome{status: 401}, header: "Www-Authenticate: Basic realm=x"},
		{name: "html", effect: origintest.HTML(), want: outcome{status: 200, body: "<html><body>please sign in</body></html>"}, header: "Content-Type: text/html; charset=utf-8"},
		{name: "other body", effect: origintest.Body([]byte("else")), want: outcome{status: 200, body: "else"}},
		{name: "type", effect: origintest.LieType("text/plain"), want: outcome{status: 200, body: data}, header: "Content-Type: text/plain"},
		{name: "digest", effect: origintest.LieDigest(digest.NewDigestFromBytes(digest.SHA256, sum[:])), want: outcome{status: 200, body: data}, header: fmt.Sprintf("Docker-Content-Digest: sha256:%x", sum)},
		{name: "range", effect: origintest.LieRange("bytes 5-9/10"), want: outcome{status: 206, body: data}, header: "Content-Range: bytes 5-9/10"},
		{name: "length, longer", effect: origintest.LieLength(5), want: outcome{status: 200, body: data, err: io.ErrUnexpectedEOF}},
		{name: "length, shorter", effect: origintest.LieLength(-5), want: outcome{status: 200, body: "01234"}, header: "Content-Length: 5"},
		{name: "chunked", effect: origintest.Chunked(), want: outcome{status: 200, body: data}, header: "Content-Length: "},
		{name: "no etag", effect: origintest.Header("Etag", ""), want: outcome{status: 200, body: data}, header: "Etag: "},
		{name: "close early", effect: origintest.CloseEarly(4), want: outcome{status: 200, body: "0123", err: io.ErrUnexpectedEOF}},
		{name: "close at 0", effect: origintest.CloseEarly(0), want: outcome{status: 200, err: io.ErrUnexpectedEOF}},
		{name: "drop", effect: origintest.Drop(), want: outcome{err: io.EOF}},
		{name: "silence", effect: origintest.Silence(), want: outcome{err: context.DeadlineExceeded}, took: time.Minute},
		{name: "silence after", effect: origintest.SilenceAfter(3), want: outcome{status: 200, body: "012", err: context.DeadlineExceeded}, took: time.Minute},
		{name: "delay", effect: origintest.Delay(time.Second), want: outcome{status: 200, body: data}, took: time.Second},
		{name: "trickle", effect: origintest.Trickle(2, time.Second), want: outcome{status: 200, body: data}, took: 4 * time.Second},
		{name: "corrupt", effect: origintest.Corrupt(3), want: outcome{status: 200, body: "012#456789"}},
		{name: "redirect", effect: origintest.Redirect("http://o.test/v2/"), want: outcome{status: 307}, header: "Location: http://o.test/v2/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, origintest.Options{}, func(b bubble) {
				t, r, c := b.t, b.r, b.c
				c.Timeout = time.Minute
				// On a connection that was used before, net/http tries again.
				c.Transport.(*http.Transport).DisableKeepAlives = true
				c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				d := r.AddBlob("x", []byte(data))
				r.Fault(origintest.Fault{Kind: origintest.Blob, Method: http.MethodGet, Ref: d.Digest.String(), Skip: 1, Times: 1, Effect: tt.effect})
				for i, want := range []outcome{{status: 200, body: data}, tt.want, {status: 200, body: data}} {
					begin := time.Now()
					a, err := get(t, c, "http://o.test/v2/x/blobs/"+d.Digest.String())
					if !errors.Is(err, want.err) {
						t.Fatalf("request %d: error %v, want %v", i, err, want.err)
					}
					if want.status == 0 {
						continue
					}
					if a.status != want.status {
						t.Errorf("request %d: status %d, want %d", i, a.status, want.status)
					}
					if want.status == 200 && string(a.body) != want.body {
						t.Errorf("request %d: body %q, want %q", i, a.body, want.body)
					}
					if i != 1 {
						continue
					}
					if k, v, ok := strings.Cut(tt.header, ": "); ok && a.header.Get(k) != v {
						t.Errorf("%s is %q, want %q", k, a.header.Get(k), v)
					}
					if took := time.Since(begin); took != tt.took {
						t.Errorf("took %v, want %v", took, tt.took)
					}
				}
			})
		})
	}
}

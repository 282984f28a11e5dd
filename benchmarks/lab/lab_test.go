//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/testhost"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parseScenario(t *testing.T, more string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse("small.yaml", []byte(`name: small
purpose: Of these tests.
nodes: {count: 4, link: 1 Gbit/s}
origin: {link: 200 Mbit/s}
image: {layers: [100 kB, 200 kB, 30 kB], parallel: 2}
`+more))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func makeImage(t *testing.T, s *scenario.Scenario) *image {
	t.Helper()
	img, err := (&store{dir: t.TempDir(), made: map[layerKey]blobFile{}}).image(s)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestImage(t *testing.T) {
	img, again := makeImage(t, parseScenario(t, "")), makeImage(t, parseScenario(t, ""))
	if img.manifest.hex != again.manifest.hex {
		t.Error("the same scenario gives two images")
	}
	manifest, err := os.ReadFile(img.manifest.file)
	if err != nil {
		t.Fatal(err)
	}
	if len(img.blobs) != 4 || len(img.layers()) != 3 || img.bytes() != 330e3+img.blobs[0].size {
		t.Errorf("%d blobs, %d layers, %d bytes", len(img.blobs), len(img.layers()), img.bytes())
	}
	for _, b := range img.blobs {
		if err := b.check(b.file); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(manifest), b.digest()) {
			t.Errorf("the manifest does not name %s", b.digest())
		}
		if err := b.check(img.meter.file); err == nil {
			t.Errorf("%s and the plain download are the same", b.digest())
		}
	}
}

func TestLayersOfOneSizeDiffer(t *testing.T) {
	s := parseScenario(t, "")
	s.Image.Layers = []scenario.Size{1000, 1000}
	if layers := makeImage(t, s).layers(); layers[0].hex == layers[1].hex {
		t.Error("two layers are one blob")
	}
}

// registry serves bodies by their paths.
type registry struct {
	bodies map[string][]byte
	two    chan struct{} // closed once two blobs are asked for at once
	closed sync.Once
	atOnce atomic.Int32
	// connections is how many the client made.
	connections atomic.Int32

	mu       sync.Mutex
	requests []string
}

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.requests = append(g.requests, r.Method+" "+r.URL.Path)
	g.mu.Unlock()
	if strings.Contains(r.URL.Path, "/blobs/") {
		defer g.atOnce.Add(-1)
		if n := g.atOnce.Add(1); n == 2 {
			g.closed.Do(func() { close(g.two) })
		} else if n > 2 {
			http.Error(w, "too many at once", http.StatusTooManyRequests)
			return
		}
		<-g.two // the first is not answered before the second is asked for
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(g.bodies[r.URL.Path]))
}

// serve serves the image as the origin does.
func serve(t *testing.T, img *image) (*registry, rig.Client) {
	t.Helper()
	g := &registry{bodies: map[string][]byte{}, two: make(chan struct{})}
	put := func(path string, b blobFile) {
		content, err := os.ReadFile(b.file)
		if err != nil {
			t.Fatal(err)
		}
		g.bodies[path] = content
	}
	put(img.path("manifests", tag), img.manifest)
	put(img.path("manifests", img.manifest.digest()), img.manifest)
	for _, b := range img.blobs {
		put(img.path("blobs", b.digest()), b)
	}
	server := httptest.NewUnstartedServer(g)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			g.connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return g, rig.Client{Dial: (&net.Dialer{}).DialContext, Base: server.URL}
}

func TestClientAsksAsDockerdDoes(t *testing.T) {
	img := makeImage(t, parseScenario(t, ""))
	g, c := serve(t, img)
	if err := pull(t.Context(), c, img); err != nil {
		t.Fatal(err)
	}
	want := []string{"HEAD " + img.path("manifests", tag), "GET " + img.path("manifests", img.manifest.digest())}
	if got := g.requests[:2]; !slices.Equal(got, want) {
		t.Errorf("first %v, want %v", got, want)
	}
	for _, b := range img.blobs {
		if n := count(g.requests, "GET "+img.path("blobs", b.digest())); n != 1 {
			t.Errorf("%s was asked for %d times", b.digest(), n)
		}
	}
	if got := g.connections.Load(); got != 1+2 {
		t.Errorf("%d connections, want one for the manifest and one for each of two blobs at once", got)
	}
	if len(g.requests) != 2+len(img.blobs) {
		t.Errorf("requests: %v", g.requests)
	}
}

func count(words []string, word string) int {
	n := 0
	for _, w := range words {
		if w == word {
			n++
		}
	}
	return n
}

func TestClientWantsAllOfTheImage(t *testing.T) {
	img := makeImage(t, parseScenario(t, ""))
	for name, body := range map[string][]byte{"shorter": make([]byte, img.blobs[2].size-1), "longer": make([]byte, img.blobs[2].size+1)} {
		g, c := serve(t, img)
		g.bodies[img.path("blobs", img.blobs[2].digest())] = body
		if err := pull(t.Context(), c, img); err == nil {
			t.Errorf("a blob is %s, and the client is content", name)
		}
	}
}

func TestClientHashes(t *testing.T) {
	img := makeImage(t, parseScenario(t, ""))
	g, c := serve(t, img)
	close(g.two)
	g.closed.Do(func() {})
	b := img.blobs[1]
	path := img.path("blobs", b.digest())
	if err := c.Hash(t.Context(), path, b.hex); err != nil {
		t.Error(err)
	}
	if err := c.Hash(t.Context(), path, img.blobs[2].hex); err == nil {
		t.Error("another digest is taken for right")
	}
}

func TestParseLog(t *testing.T) {
	log := `10.77.0.3 HEAD 200 0 /v2/lab/x/manifests/latest
10.77.0.3 GET 200 700 /v2/lab/x/manifests/sha256:aa
10.77.0.4 GET 206 1000 /v2/lab/x/blobs/sha256:bb
10.77.0.4 GET 499 24 /v2/lab/x/blobs/sha256:bb
10.77.0.4 GET 200 2 /v2/
`
	got, err := parseLog(strings.NewReader(log))
	if want := (traffic{blobBytes: 1024, manifestGets: 1}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"10.77.0.3 GET\n", "10.77.0.3 GET 200 many /v2/lab/x/blobs/sha256:bb\n"} {
		if _, err := parseLog(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}

func TestOriginsConfiguration(t *testing.T) {
	img := makeImage(t, parseScenario(t, ""))
	o := &origin{dir: "/run", host: &testhost.Host{Addr: netip.MustParseAddr("10.77.0.1")}}
	for _, ignores := range []bool{false, true} {
		config := o.nginx(img, ignores).Config()
		if got := strings.Contains(config, "max_ranges 0;"); got != ignores {
			t.Errorf("ignores Range: %v, want %v", got, ignores)
		}
		for _, b := range append(slices.Clone(img.blobs), img.manifest, img.meter) {
			if !strings.Contains(config, "alias "+b.file+";") {
				t.Errorf("does not serve %s", b.file)
			}
		}
	}
}

func TestTracker(t *testing.T) {
	tracker := &tracker{peers: map[string]map[netip.AddrPort]bool{}}
	announce := func(remote, query string) (int, string) {
		r := httptest.NewRequest(http.MethodGet, "/announce?"+query, nil)
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		tracker.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	head := fmt.Sprintf("d8:intervali%de12:min intervali%de5:peers", announceInterval, announceInterval)
	for _, step := range []struct{ remote, query, want string }{
		{"10.77.0.3:999", "info_hash=a&port=6881", head + "0:e"},
		{"10.77.0.3:998", "info_hash=a&port=6881", head + "0:e"}, // itself is no other peer
		{"10.77.0.4:999", "info_hash=a&port=258", head + "6:\x0a\x4d\x00\x03\x1a\xe1e"},
		{"10.77.0.3:997", "info_hash=a&port=6881", head + "6:\x0a\x4d\x00\x04\x01\x02e"},
		{"10.77.0.5:999", "info_hash=b&port=1", head + "0:e"},
	} {
		if code, got := announce(step.remote, step.query); code != http.StatusOK || got != step.want {
			t.Errorf("%s %s: %d %q, want %q", step.remote, step.query, code, got, step.want)
		}
	}
	if code, _ := announce("10.77.0.3:999", "info_hash=a&port=99999"); code != http.StatusBadRequest {
		t.Errorf("a port that is none: status %d", code)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"shoal/blobcache/blob"
	"shoal/cmd/shoal/internal/config"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// startCrowd returns running nodes of one swarm on the loopback interface, all
// connected to each other, in front of the registry.
func startCrowd(t *testing.T, count int, upstream string) []*service {
	t.Helper()
	nodes := make([]*service, count)
	for i := range nodes {
		cfg := config.Config{
			DataDir: t.TempDir(), Mirror: "127.0.0.1:0", Admin: "127.0.0.1:0",
			Swarm:      []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")},
			Registries: origin.Registries{"docker.io": {Upstreams: []string{upstream}}},
		}
		if i > 0 {
			cfg.Join = []multiaddr.Multiaddr{multiaddr.StringCast(nodes[0].addrs()[0])}
		}
		nodes[i] = startService(t, cfg)
	}
	for _, s := range nodes {
		until(t, "everybody is connected", func() bool { return s.node.Peers() == count-1 })
	}
	return nodes
}

// startService runs a node until the end of the test.
func startService(tb testing.TB, cfg config.Config) *service {
	tb.Helper()
	s, err := newService(tb.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	stop, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(stop, stop) }()
	tb.Cleanup(func() {
		end()
		if err := <-ended; err != nil && !errors.Is(err, errHurried) {
			tb.Errorf("run: %v", err)
		}
	})
	return s
}

// warmUp has the nodes pull something else first: a crowd has been connected
// for a while.
func warmUp(t *testing.T, nodes []*service, reg *origintest.Server) {
	t.Helper()
	d := reg.Registry.AddBlob("warm/up", []byte("warm"))
	var clients errgroup.Group
	for _, s := range nodes {
		clients.Go(func() error { return s.request(t.Context(), http.MethodGet, "warm/up/blobs/"+d.Digest.String()) })
	}
	if err := clients.Wait(); err != nil {
		t.Fatal(err)
	}
}

// finds waits until a lookup by the node yields a holder of the blob: members are
// connected a moment before they have said where they are asked for pieces.
func (s *service) finds(t *testing.T, d digest.Digest) {
	t.Helper()
	until(t, "a holder is found", func() bool {
		found := 0
		for range s.node.Holders(t.Context(), d) {
			found++
		}
		return found > 0
	})
}

// request asks the node's mirror, and fails unless the answer is a clean 200.
func (s *service) request(ctx context.Context, method, path string) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.mirror.addr()+"/v2/"+path, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

// TestManifestsOfACrowd: registries count every GET of a manifest, and a crowd
// may cost two of each. The tag is asked for by everybody, with HEAD.
func TestManifestsOfACrowd(t *testing.T) {
	reg := origintest.Start(t, origintest.Options{Latency: 300 * time.Millisecond})
	nodes := startCrowd(t, 6, reg.URL)
	warmUp(t, nodes, reg)
	for name, lines := range map[string][]string{
		"as dockerd asks":     {"HEAD tag", "GET index", "GET manifest"},
		"as containerd asks":  {"HEAD tag", "HEAD index", "GET index", "HEAD manifest", "GET manifest"},
		"by the tag alone":    {"GET tag", "GET manifest"},
		"by the digest alone": {"GET manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			// Who is not heard for 150 ms is not waited for, and on a machine
			// that is busy that can be anybody: one crowd of three has to do.
			var seen []string
			for try := range 3 {
				repo := fmt.Sprintf("%s/%d", strings.ReplaceAll(name, " ", "-"), try)
				img := reg.Registry.AddImage(repo, "v1", origintest.Image{Seed: rand.Uint64(), Layers: origintest.Layers(1<<20, 3<<20)})
				reg.Registry.ResetStats()
				pullManifests(t, nodes, repo, lines, img)
				if seen = reg.Registry.Lines(); mostGets(reg.Registry, img) <= 2 {
					return
				}
			}
			t.Errorf("a manifest was asked for more than twice:\n%s", strings.Join(seen, "\n"))
		})
	}
}

// pullManifests has a client of each node ask what the lines say, all at once.
func pullManifests(t *testing.T, nodes []*service, repo string, lines []string, img *origintest.Added) {
	t.Helper()
	refs := map[string]string{"tag": "v1", "index": img.Index.Digest.String(), "manifest": img.Platforms[0].Manifest.Digest.String()}
	var clients errgroup.Group
	for _, s := range nodes {
		clients.Go(func() error {
			for _, line := range lines {
				method, what, _ := strings.Cut(line, " ")
				if err := s.request(t.Context(), method, repo+"/manifests/"+refs[what]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := clients.Wait(); err != nil {
		t.Fatal(err)
	}
}

// mostGets returns how often the registry was asked for that manifest of the
// image that it was asked for most.
func mostGets(reg *origintest.Registry, img *origintest.Added) int {
	asked := make(map[string]int)
	for _, q := range reg.Requests() {
		if q.Kind != origintest.Manifest || q.Method != http.MethodGet {
			continue
		}
		if q.Ref == "v1" {
			q.Ref = img.Index.Digest.String()
		}
		asked[q.Ref]++
	}
	return max(asked[img.Index.Digest.String()], asked[img.Platforms[0].Manifest.Digest.String()])
}

// TestLayersOfAnImage: what a client asks for next, after the manifest, is
// under way, in the order in which it is unpacked.
func TestLayersOfAnImage(t *testing.T) {
	const size = 32 << 20
	reg := origintest.Start(t, origintest.Options{UplinkBitsPerSecond: 800e6})
	img := reg.Registry.AddImage("a/b", "v1", origintest.Image{Seed: 1, Layers: origintest.Layers(size, size, size, size)})
	layers := img.Platforms[0].Layers
	s := startCrowd(t, 1, reg.URL)[0]
	if err := s.request(t.Context(), http.MethodGet, "a/b/manifests/"+img.Platforms[0].Manifest.Digest.String()); err != nil {
		t.Fatal(err)
	}
	until(t, "all layers are here", func() bool {
		return !slices.ContainsFunc(layers, func(d blob.Descriptor) bool { _, whole := s.cache.Stat(d.Digest); return !whole })
	})
	// How much had been asked for when the last byte of each layer was: one
	// request of three goes to the next layer, and where the first takes over
	// half a second each of the others gets one of 4 MiB, as its client waits; two
	// are in flight.
	const others = size/2 + 3*4<<20 + 2*4<<20
	var asked, sum int64
	last := make(map[string]int64)
	for _, q := range reg.Registry.Requests() {
		if q.Kind != origintest.Blob {
			continue
		}
		asked += q.Body
		last[q.Ref] = asked
	}
	for i, d := range layers {
		sum += size
		got, most := last[d.Digest.String()], sum+others
		t.Logf("layer %d was asked for among the first %.2f layers' bytes", i, float64(got)/size)
		if got > most {
			t.Errorf("layer %d was asked for among the first %d bytes, want %d", i, got, most)
		}
	}
}

package main

import (
	"bytes"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"shoal/blobcache/statement"
	"shoal/cmd/shoal/internal/config"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// head asks a node's mirror for the headers of a manifest of a/b.
func (s *service) head(t *testing.T, ref string) (status int, header http.Header) {
	t.Helper()
	resp, err := http.Head("http://" + s.mirror.addr() + "/v2/a/b/manifests/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header
}

// While the registry is down a node answers what a tag was, as that, also when
// it was started again meanwhile.
func TestStaleTagsSurviveARestart(t *testing.T) {
	reg := origintest.Start(t, origintest.Options{})
	image := reg.Registry.AddImage("a/b", "v1", origintest.Image{Seed: 1, Layers: origintest.Layers(1000)})
	cfg := config.Config{
		DataDir: t.TempDir(), Mirror: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Swarm:      []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")},
		Registries: origin.Registries{"docker.io": {Upstreams: []string{reg.URL}}},
	}
	t.Run("before", func(t *testing.T) {
		if err := startService(t, cfg).request(t.Context(), http.MethodGet, "a/b/manifests/v1"); err != nil {
			t.Fatal(err)
		}
	})
	reg.Registry.Fault(origintest.Fault{Effect: origintest.Status(http.StatusServiceUnavailable)})
	t.Run("after", func(t *testing.T) {
		s := startService(t, cfg)
		status, header := s.head(t, "v1")
		if status != http.StatusOK || header.Get("Docker-Content-Digest") != image.Index.Digest.String() || len(header.Values("Warning")) != 2 {
			t.Errorf("%d with headers %v", status, header)
		}
		if err := s.request(t.Context(), http.MethodGet, "a/b/manifests/v1"); err != nil {
			t.Error(err)
		}
	})
}

// A member knows what a tag is and has the manifest. It gives that by its
// digest, and its word on the tag counts for nothing, whatever the registry
// does.
func TestNoPeersWordOnATag(t *testing.T) {
	reg := origintest.Start(t, origintest.Options{})
	image := reg.Registry.AddImage("a/b", "v1", origintest.Image{Seed: 1, Layers: origintest.Layers(1000)})
	nodes := startCrowd(t, 2, reg.URL)
	if err := nodes[0].request(t.Context(), http.MethodGet, "a/b/manifests/v1"); err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusNotFound} {
		reg.Registry.ClearFaults()
		reg.Registry.Fault(origintest.Fault{Effect: origintest.Status(status)})
		if got, header := nodes[1].head(t, "v1"); got != http.StatusNotFound {
			t.Errorf("the registry says %d: %d with headers %v", status, got, header)
		}
	}
	until(t, "the member gives the manifest", func() bool {
		return nodes[1].request(t.Context(), http.MethodGet, "a/b/manifests/"+image.Index.Digest.String()) == nil
	})
	if status, _ := nodes[1].head(t, "v1"); status != http.StatusNotFound {
		t.Errorf("with the manifest at hand: %d", status)
	}
}

// TestInvalidateTheSwarm: of three nodes that believe a tag for an hour two
// trust a key. What it signs makes them ask the registry again, and the third
// does not.
func TestInvalidateTheSwarm(t *testing.T) {
	reg := origintest.Start(t, origintest.Options{})
	reg.Registry.AddImage("a/b", "v1", origintest.Image{Seed: 1, Layers: origintest.Layers(1000)})
	signer := statement.GenerateSigner()
	key := filepath.Join(t.TempDir(), "signing.key")
	if err := createSigningKey(key, signer); err != nil {
		t.Fatal(err)
	}
	var nodes []*service
	for i, trusted := range [][]statement.Key{{signer.Key()}, {signer.Key()}, nil} {
		cfg := config.Config{
			DataDir: t.TempDir(), Mirror: "127.0.0.1:0", Admin: "127.0.0.1:0", TrustedKeys: trusted,
			Swarm:      []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")},
			Registries: origin.Registries{"docker.io": {Upstreams: []string{reg.URL}, MaxAge: []origin.TagAge{{Pattern: "*:*", Age: time.Hour}}}},
		}
		if i > 0 {
			cfg.Join = []multiaddr.Multiaddr{multiaddr.StringCast(nodes[0].addrs()[0])}
		}
		nodes = append(nodes, startService(t, cfg))
		nodes[i].head(t, "v1")
	}
	for _, s := range nodes {
		until(t, "everybody is connected", func() bool { return s.node.Peers() == 2 })
	}
	invalidate := func(at *service) (int, string) {
		var out bytes.Buffer
		code := run(environment{ctx: t.Context(), stdout: &out, stderr: &out}, []string{"cache", "invalidate", "--admin", at.admin.addr(), "--signing-key", key, "a/b:v1"})
		return code, out.String()
	}
	if code, said := invalidate(nodes[2]); code != exitFailed || !strings.Contains(said, "not trusted here") {
		t.Errorf("at the node that does not trust the key: %d, %s", code, said)
	}
	heads := func() int { return reg.Registry.Stats().Requests["HEAD manifest"] }
	for _, s := range nodes {
		s.head(t, "v1")
	}
	if n := heads(); n != 3 {
		t.Fatalf("%d HEADs before anything is forgotten", n)
	}
	if code, said := invalidate(nodes[0]); code != exitOK || said != "docker.io/a/b:v1: 1 forgotten, 2 members told\n" {
		t.Errorf("%d, %s", code, said)
	}
	until(t, "the other one that trusts the key asks again", func() bool {
		nodes[1].head(t, "v1")
		return heads() == 4
	})
	nodes[0].head(t, "v1")
	nodes[2].head(t, "v1")
	if n := heads(); n != 5 {
		t.Errorf("%d HEADs: of three nodes two had to ask again", n)
	}
}

// TestLeasesBetweenNodes: of three nodes one is a seeder. What the registry told it
// of a tag is what the tag is for the node that trusts its key, while the registry is
// down; for the other one it is nothing.
func TestLeasesBetweenNodes(t *testing.T) {
	reg := origintest.Start(t, origintest.Options{})
	image := reg.Registry.AddImage("a/b", "v1", origintest.Image{Seed: 1, Layers: origintest.Layers(1000)})
	key := filepath.Join(t.TempDir(), "seeder.key")
	signer := statement.GenerateSigner()
	if err := createSigningKey(key, signer); err != nil {
		t.Fatal(err)
	}
	var nodes []*service
	for i, trusted := range [][]statement.Key{nil, {signer.Key()}, nil} {
		cfg := config.Config{
			DataDir: t.TempDir(), Mirror: "127.0.0.1:0", Admin: "127.0.0.1:0", TrustedKeys: trusted,
			Swarm:      []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")},
			Registries: origin.Registries{"docker.io": {Upstreams: []string{reg.URL}}},
		}
		if i == 0 {
			cfg.SigningKey = key
		} else {
			cfg.Join = []multiaddr.Multiaddr{multiaddr.StringCast(nodes[0].addrs()[0])}
		}
		nodes = append(nodes, startService(t, cfg))
	}
	for _, s := range nodes {
		until(t, "everybody is connected", func() bool { return s.node.Peers() == 2 })
	}
	if err := nodes[0].request(t.Context(), http.MethodGet, "a/b/manifests/v1"); err != nil {
		t.Fatal(err)
	}
	until(t, "who trusts the key has a lease", func() bool { return counted(t, nodes[1], "shoal_proxy_leases_total") == 1 })
	reg.Registry.Fault(origintest.Fault{Effect: origintest.Status(http.StatusServiceUnavailable)})
	status, header := nodes[1].head(t, "v1")
	if status != http.StatusOK || header.Get("Docker-Content-Digest") != image.Index.Digest.String() || !strings.HasPrefix(header.Get("Shoal-Lease"), signer.Key().String()) {
		t.Errorf("who trusts the key: %d with headers %v", status, header)
	}
	if err := nodes[1].request(t.Context(), http.MethodGet, "a/b/manifests/v1"); err != nil {
		t.Errorf("who trusts the key: %v", err)
	}
	if status, header := nodes[2].head(t, "v1"); status != http.StatusNotFound {
		t.Errorf("who does not: %d with headers %v", status, header)
	}
}

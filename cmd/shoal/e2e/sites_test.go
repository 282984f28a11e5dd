//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestSeedersOfTwoSites: each site has a seeder, of the same selection, and a node
// more, one of them two; three members are to hold each blob. An image comes once out of the
// registry and once over the link of each site; when holders die another takes
// their place; a seeder that was away has what it missed; and with the registry and
// a whole site lost the other one serves.
func TestSeedersOfTwoSites(t *testing.T) {
	ctx, l := scenario(t)
	first := l.push(ctx, t, 95, 3, 3)
	missed := "shoal/image96:" + first.Tag // is pushed while a seeder is away
	dir := t.TempDir()
	key, file := filepath.Join(dir, "seeder.key"), filepath.Join(dir, "shoal.yaml")
	public := strings.TrimSpace(must(l.hosts[0].Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"key", "new", key}}))(t))
	check(t, os.WriteFile(file, fmt.Appendf(nil, `signing-key: %s
seeder:
  check-holders: 1s
  select:
    both: {images: ["docker.io/%s", "docker.io/%s"], every: 1h, min-holders: 3, min-zones: 2}
`, key, first.Ref(), missed), 0o600))
	var zones []*testhost.Zone
	for i := range sites {
		zones = append(zones, must(l.network.AddZone(sites+i, siteLink))(t)) // others are TestZones'
	}
	swarmKey := l.newKey(ctx, t)
	const all, spare = 2*sites + 1, 2 * sites
	nodes := make([]*program.Node, all)
	order := []int{2, 3, 0, 1, spare} // seeders find somebody to order
	for n, i := range order {
		h, join := l.hosts[i], []*program.Node(nil)
		for _, j := range order[:n] {
			join = append(join, nodes[j])
		}
		check(t, h.Move(zones[i%sites]))
		t.Cleanup(func() { check(t, h.Move(nil)) })
		args := []string{"--no-mdns", "--zone", fmt.Sprint("site-", i%sites), "--trusted-keys", public}
		if i < sites {
			args = append(args, "--config", file)
		}
		nodes[i] = must(program.NewNode(ctx, h, program.NodeConfig{
			Shoal: l.shoal, Name: "shoal-sites", SwarmKey: swarmKey, Upstream: l.origin.URL(), Join: join, Args: args,
		}))(t)
		t.Cleanup(nodes[i].Kill)
	}
	holders := func(img *program.Image) (all []*program.Node) {
		for _, n := range nodes {
			if !slices.ContainsFunc(img.Blobs(), func(b v1.Descriptor) bool { return !n.HasBlob(b.Digest.Hex) }) {
				all = append(all, n)
			}
		}
		return all
	}
	// once fails the test unless img left the origin about once, and came about
	// once into each site, by the end of what happens.
	once := func(img *program.Image, happens func()) {
		t.Helper()
		before, already := l.origin.Accesses(), must(received(ctx, zones))(t)
		happens()
		whole := float64(img.BlobBytes())
		if copies := float64(l.origin.Accesses().Since(before).Blobs().Bytes()) / whole; copies > 1.4 {
			t.Errorf("%.2f copies of %s left the origin, want at most 1.4", copies, img.Ref())
		}
		for i, n := range must(received(ctx, zones))(t) {
			came := float64(n-already[i]) / whole
			t.Logf("%.2f of %s came into site %d", came, img.Ref(), i)
			if came > 1.4 {
				t.Errorf("%.2f of %s came into site %d, want at most 1.4", came, img.Ref(), i)
			}
		}
	}

	once(first, func() {
		for _, i := range order[:2*sites] {
			check(t, nodes[i].Start(ctx))
		}
		awaitConnected(ctx, t, nodes[:2*sites])
		awaitWhole(ctx, t, nodes[0], first)
		awaitWhole(ctx, t, nodes[1], first)
		check(t, testhost.Until(ctx, 10*time.Second, func(context.Context) error {
			if n := len(holders(first)); n < 3 {
				return fmt.Errorf("%d hold it", n)
			}
			return nil
		}))
	})
	// Two that may hold it die, and of those that are left one does not.
	check(t, nodes[spare].Start(ctx))
	awaitConnected(ctx, t, nodes)
	if nodes[spare].HasBlob(first.Layers[0].Digest.Hex) {
		t.Fatal("the node that has just begun holds it")
	}
	died := time.Now()
	nodes[1].Kill()
	nodes[2].Kill()
	for _, i := range []int{0, 3, spare} {
		awaitWhole(ctx, t, nodes[i], first)
	}
	t.Logf("three hold it %v after two have died", time.Since(died).Round(time.Millisecond))

	second := l.push(ctx, t, 96, 4, 2)
	once(second, func() {
		must(l.verb(ctx, nodes[0], "seeder", "look"))(t)
		for _, i := range []int{0, 3, spare} {
			awaitWhole(ctx, t, nodes[i], second)
		}
		back := time.Now()
		check(t, nodes[1].Start(ctx))
		awaitWhole(ctx, t, nodes[1], second)
		t.Logf("the seeder that was away has it %v after its start began", time.Since(back).Round(time.Millisecond))
	})
	check(t, testhost.Until(ctx, 10*time.Second, func(ctx context.Context) error {
		out, err := l.verb(ctx, nodes[1], "seeder")
		if err == nil && !strings.Contains(out, "of 2 images, each on 3 members in 2 zones or more, checked") {
			err = fmt.Errorf("shoal seeder says\n%s", out)
		}
		return err
	}))

	nodes[0].Kill()
	nodes[spare].Kill()
	check(t, l.origin.SwitchOff())
	t.Cleanup(func() { check(t, l.origin.SwitchOn(context.WithoutCancel(ctx))) })
	must(l.verb(ctx, nodes[3], "cache", "rm", first.DigestRef()))(t) // it has it from the seeder, then
	for _, img := range []*program.Image{first, second} {
		lost := time.Now()
		check(t, program.Download(ctx, nodes[3].Host, program.MirrorURL, img))
		if took := time.Since(lost); took > 5*time.Second {
			t.Errorf("%s took %v with a site and the registry lost", img.Ref(), took)
		} else {
			t.Logf("%s took %v with a site and the registry lost", img.Ref(), took.Round(time.Millisecond))
		}
	}
}

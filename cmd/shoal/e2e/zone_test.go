//go:build linux

package e2e

import (
	"context"
	"fmt"
	"testing"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	"golang.org/x/sync/errgroup"
)

// sites are two zones, each behind a link of 50 Mbit/s.
const (
	sites    = 2
	siteLink = 50 * testhost.Mbit
)

// TestZones: two sites of two nodes. What comes into a site comes once over its
// link, cold or from the other site, and when the sites cannot reach each other.
func TestZones(t *testing.T) {
	ctx, l := scenario(t)
	var zones []*testhost.Zone
	for i := range sites {
		zones = append(zones, must(l.network.AddZone(i, siteLink))(t))
	}
	key := l.newKey(ctx, t)
	var nodes []*program.Node
	for i, h := range l.hosts[:2*sites] {
		check(t, h.Move(zones[i%sites]))
		t.Cleanup(func() { check(t, h.Move(nil)) })
		n, err := program.StartNode(ctx, h, program.NodeConfig{
			Shoal: l.shoal, Name: "shoal-zones", SwarmKey: key, Upstream: l.origin.URL(), Join: nodes[:min(i, 1)],
			Args: []string{"--no-mdns", "--zone", fmt.Sprint("site-", i%sites)},
		})
		check(t, err)
		t.Cleanup(n.Kill)
		nodes = append(nodes, n)
	}
	awaitConnected(ctx, t, nodes)
	atSite := func(site int) []*program.Node { return []*program.Node{nodes[site], nodes[site+sites]} }

	for _, c := range []struct {
		name   string
		seed   byte
		first  []*program.Node // pull before the others
		nodes  []*program.Node // pull at once
		apart  bool
		copies float64 // that leave the origin, at most: two of a small image can begin alone
	}{
		{"cold", 80, nil, nodes, false, 1.4},
		{"the other site has it", 81, nodes[:1], atSite(1), false, 0.3},
		{"the other site has it and is not reached", 82, nodes[:1], atSite(1), true, 1.4},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := l.push(ctx, t, c.seed, 6, 6)
			for _, n := range c.first {
				check(t, program.Download(ctx, n.Host, program.MirrorURL, img))
				awaitWhole(ctx, t, n, img)
			}
			for _, z := range zones {
				check(t, z.Apart(c.apart))
			}
			before, already := l.origin.Accesses(), must(received(ctx, zones))(t)
			var pulls errgroup.Group
			for _, n := range c.nodes {
				pulls.Go(func() error { return program.Download(ctx, n.Host, program.MirrorURL, img) })
			}
			check(t, pulls.Wait())
			for _, n := range c.nodes {
				awaitWhole(ctx, t, n, img)
			}
			if copies := float64(l.origin.Accesses().Since(before).Blobs().Bytes()) / float64(img.BlobBytes()); copies > c.copies {
				t.Errorf("%.2f copies left the origin, want at most %.2f", copies, c.copies)
			}
			after := must(received(ctx, zones))(t)
			for i := range zones {
				came := float64(after[i]-already[i]) / float64(img.BlobBytes())
				t.Logf("%.2f of the image came into site %d", came, i)
				if came > 1.4 {
					t.Errorf("%.2f of the image came into site %d, want at most 1.4", came, i)
				}
			}
		})
	}
}

// received returns how many bytes have come into each zone.
func received(ctx context.Context, zones []*testhost.Zone) (all []int64, err error) {
	for _, z := range zones {
		n, err := z.Received(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

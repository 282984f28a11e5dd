//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// TestSitesBehindNAT: two sites, each behind a router that lets nobody in, and a
// node elsewhere that relays. The first takes an image from the registry, the
// second nearly all of it from the first, as its registry is slow: through holes in
// both NATs where those keep ports, over the relay where nobody can tell the port.
func TestSitesBehindNAT(t *testing.T) {
	for i, c := range []struct {
		name string
		nat  testhost.NAT
		way  string // in which the sites reach each other in the end
		// least and most of the image that the relay carries.
		least, most float64
	}{
		{"through holes", testhost.KeepsPorts, "hole-punched", 0, 0.1},
		{"over the relay", testhost.ChangesPorts, "relayed", 0.75, 1.2},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, l := scenario(t)
			img := l.push(ctx, t, byte(83+i), 6, 6)
			sites := make([]*testhost.Host, 2)
			for s := range sites {
				sites[s] = must(l.network.AddBehind(ctx, fmt.Sprintf("site%d%d", i, s), c.nat, 100*testhost.Mbit))(t)
			}
			relay, a, b := l.acrossNATs(ctx, t, sites)

			check(t, until(ctx, func() error { return l.reaches(ctx, a, b, c.way) }))
			check(t, until(ctx, func() error { return l.reaches(ctx, b, a, c.way) }))
			check(t, until(ctx, func() error { return l.reaches(ctx, relay, a, "inbound") }))
			check(t, program.Download(ctx, a.Host, program.MirrorURL, img))
			awaitWhole(ctx, t, a, img)
			before := l.origin.Accesses()
			relayed := must(relay.Metric(ctx, "shoal_p2p_relayed_bytes_total"))(t)
			check(t, l.origin.Host.Shape(2*testhost.Mbit))
			defer func() { check(t, l.origin.Host.Shape(originLink)) }()
			check(t, program.Download(ctx, b.Host, program.MirrorURL, img))
			awaitWhole(ctx, t, b, img)
			// A piece is asked for where nobody knows yet how slow the registry is.
			if got := l.origin.Accesses().Since(before).Blobs(); got.Bytes() > img.BlobBytes()/4 {
				t.Errorf("%d bytes from the registry:\n%v", got.Bytes(), got)
			}
			relayed = must(relay.Metric(ctx, "shoal_p2p_relayed_bytes_total"))(t) - relayed
			if share := relayed / float64(img.BlobBytes()); share < c.least || share > c.most {
				t.Errorf("the relay carried %.2f of the image, want %.2f to %.2f", share, c.least, c.most)
			}
			t.Logf("the relay carried %.0f of %d bytes", relayed, img.BlobBytes())
		})
	}
}

// acrossNATs starts a relay on a host of the lab, and a node at each site, which
// find out by themselves that they are behind NAT.
func (l *lab) acrossNATs(ctx context.Context, t *testing.T, sites []*testhost.Host) (relay, a, b *program.Node) {
	t.Helper()
	key := filepath.Join(l.dir, sites[0].Name+".key")
	text := must(l.machines[0].Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"swarm-key", "new"}}))(t)
	check(t, os.WriteFile(key, []byte(text), 0o600))
	start := func(h *testhost.Host, join []*program.Node, args ...string) *program.Node {
		n, err := program.StartNode(ctx, h, program.NodeConfig{
			Shoal: l.shoal, Name: "shoal-" + sites[0].Name, SwarmKey: key, Upstream: l.origin.URL(), Join: join,
			Args: append([]string{"--no-mdns", "--log-level=debug"}, args...),
		})
		if n != nil {
			t.Cleanup(n.Kill)
		}
		check(t, err)
		return n
	}
	relay = start(l.hosts[4], nil, "--relay")
	return relay, start(sites[0], []*program.Node{relay}), start(sites[1], []*program.Node{relay})
}

// reaches returns an error unless "shoal peers" says that a node reaches another
// one in that way.
func (l *lab) reaches(ctx context.Context, from, to *program.Node, way string) error {
	out, err := from.Host.Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"peers"}})
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 2 && strings.HasSuffix(to.ID, fields[0]) && fields[2] == way {
			return nil
		}
	}
	return fmt.Errorf("%s does not reach %s in the way %q:\n%s", from.Host.Name, to.Host.Name, way, out)
}

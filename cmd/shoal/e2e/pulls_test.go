//go:build linux

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// TestPullsAreReported: what dockerd pulls is told as one pull, with where its bytes
// came from; on a node that took them from the origin, and on one that took them
// from that node. Reports outlive the process.
func TestPullsAreReported(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 86, 12, 5)
	nodes := l.swarm(ctx, t, 2)
	for i, m := range l.machines[:2] {
		check(t, m.pull(ctx, img.Ref()))
		awaitWhole(ctx, t, nodes[i], img)
	}
	whole := img.BlobBytes()
	last := awaitPull(ctx, t, nodes[1])
	assertPull(t, last, img)
	if last.FromPeers < whole || last.FromOrigin != 0 || last.FromCache != 0 {
		t.Errorf("%d bytes of %d came from peers, %d from the origin, %d from the cache", last.FromPeers, whole, last.FromOrigin, last.FromCache)
	}
	check(t, nodes[0].Stop())
	check(t, nodes[0].Start(ctx))
	first := awaitPull(ctx, t, nodes[0])
	assertPull(t, first, img)
	if first.FromOrigin < whole || first.FromPeers != 0 || first.FromCache != 0 {
		t.Errorf("%d bytes of %d came from the origin, %d from peers, %d from the cache", first.FromOrigin, whole, first.FromPeers, first.FromCache)
	}
	if first.Bottleneck != "origin" { // its link is a fifth of the machine's
		t.Errorf("the bottleneck was %s: %s", first.Bottleneck, first.Why)
	}
}

// awaitPull waits until the node tells of exactly one pull, and returns it.
func awaitPull(ctx context.Context, t *testing.T, n *program.Node) program.Pull {
	t.Helper()
	var all []program.Pull
	check(t, testhost.Until(ctx, 20*time.Second, func(ctx context.Context) (err error) {
		if all, err = n.Pulls(ctx); err == nil && len(all) != 1 {
			err = fmt.Errorf("%s tells of %d pulls: %+v", n.Host.Name, len(all), all)
		}
		return err
	}))
	return all[0]
}

// assertPull fails the test unless p is a pull of img by dockerd.
func assertPull(t *testing.T, p program.Pull, img *program.Image) {
	t.Helper()
	t.Logf("%+v", p)
	manifests := img.Manifest.Size // and the index, which is not much more
	if p.Image != "docker.io/"+img.Ref() || p.Result != "ok" || p.Platform != "linux/"+img.Manifest.Platform.Architecture ||
		p.Bytes < img.BlobBytes()+manifests || p.Bytes > img.BlobBytes()+manifests+4096 || p.Seconds <= 0 || p.Bound <= 0 {
		t.Errorf("%+v is no pull of %s, %d bytes", p, img.Ref(), img.BlobBytes())
	}
}

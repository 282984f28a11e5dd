//go:build linux

package e2e

import (
	"context"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	"golang.org/x/sync/errgroup"
)

// TestLimitedCrowd: nodes that may take and give little still fetch each piece
// from the origin about once, and share it: together they are faster than their
// limit lets each of them be alone.
func TestLimitedCrowd(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 70, 8, 8)
	nodes := l.swarm(ctx, t, 4, "--max-origin", "2MB", "--max-upload", "8MB")
	before := l.origin.Accesses()
	began := time.Now()
	var pulls errgroup.Group
	for _, n := range nodes {
		pulls.Go(func() error { return program.Download(ctx, n.Host, program.MirrorURL, img) })
	}
	check(t, pulls.Wait())
	took := time.Since(began)
	for _, n := range nodes {
		awaitWhole(ctx, t, n, img)
	}
	assertCopies(t, l.origin.Accesses().Since(before), img, 1.3)
	alone := time.Duration(float64(img.BlobBytes()) / 2e6 * float64(time.Second))
	t.Logf("took %v, alone %v", took, alone)
	if took > alone*3/4 {
		t.Errorf("it took %v; each alone would have needed %v", took, alone)
	}
}

// TestLimitsChangeWhileRunning: a limit is kept, and ends at once when the
// operator says so.
func TestLimitsChangeWhileRunning(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 71, 24)
	n := l.swarm(ctx, t, 1, "--max-origin", "4MB")[0]
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- program.Download(ctx, n.Host, program.MirrorURL, img) }()
	taken := func() int64 { return must(n.Status(ctx))(t).Bytes.Origin }
	check(t, testhost.Until(ctx, 10*time.Second, func(context.Context) error { return reached(taken(), 4_000_000) }))
	if rate := float64(taken()) / time.Since(began).Seconds(); rate > 1.2*4e6 {
		t.Errorf("%.0f bytes a second under a limit of 4 MB", rate)
	}
	must(l.hosts[0].Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"limits", "--max-origin", "unlimited"}}))(t)
	changed := time.Now()
	check(t, <-ended)
	if took := time.Since(changed); took > 5*time.Second { // the line needs one
		t.Errorf("the rest took %v without a limit", took)
	}
	awaitWhole(ctx, t, n, img)
}

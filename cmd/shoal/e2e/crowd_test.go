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

// A crowd is six nodes, connected and idle, whose clients ask for the same
// image. It is pulled without an engine: six of them would be busy unpacking.
const crowd = 6

// TestColdCrowd: nobody has the image. What leaves the origin is one copy, and
// each manifest at most twice.
func TestColdCrowd(t *testing.T) {
	for _, c := range []struct {
		name    string
		seed    byte
		noRange bool
		// spread lets each node but the first begin when so much of the image
		// (in percent) has left the origin since the one before it did.
		spread int64
		copies float64
	}{
		{name: "at once", seed: 20, copies: 1.10},
		{name: "one after the other", seed: 21, spread: 15, copies: 1.10},
		{name: "origin without ranges", seed: 22, noRange: true, copies: 1.10},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, l := scenario(t)
			img := l.push(ctx, t, c.seed, 24, 24, 24, 24)
			nodes := l.swarm(ctx, t, crowd)
			l.origin.IgnoreRange(c.noRange)
			defer l.origin.IgnoreRange(false)
			before := l.origin.Accesses()
			sent := func() int64 { return l.origin.Accesses().Since(before).Blobs().Bytes() }

			var pulls errgroup.Group
			for i, n := range nodes {
				check(t, until(ctx, func() error { return reached(sent(), img.BlobBytes()*c.spread*int64(i)/100) }))
				pulls.Go(func() error { return program.Download(ctx, n.Host, program.MirrorURL, img) })
			}
			check(t, pulls.Wait())
			for _, n := range nodes {
				awaitWhole(ctx, t, n, img)
			}
			assertCopies(t, l.origin.Accesses().Since(before), img, c.copies)
		})
	}
}

// TestCrowdIsHalved: half of the nodes die in the middle, with pieces that they
// alone had.
func TestCrowdIsHalved(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 23, 24, 24, 24, 24)
	nodes := l.swarm(ctx, t, crowd)
	before := l.origin.Accesses()
	sent := func() int64 { return l.origin.Accesses().Since(before).Blobs().Bytes() }

	var pulls errgroup.Group
	for i, n := range nodes {
		pulls.Go(func() error {
			if err := program.Download(ctx, n.Host, program.MirrorURL, img); i < crowd/2 || err == nil {
				return err // of the others there must be one
			}
			return nil
		})
	}
	check(t, until(ctx, func() error { return reached(sent(), img.BlobBytes()/2) }))
	for _, n := range nodes[crowd/2:] {
		go n.Kill()
	}
	check(t, pulls.Wait())
	for _, n := range nodes[:crowd/2] {
		awaitWhole(ctx, t, n, img)
	}
	assertCopies(t, l.origin.Accesses().Since(before), img, 1.3)
}

// TestCrowdAroundASeed: one node has the image, and five ask for it. The origin
// is asked for the tag and for nothing else.
func TestCrowdAroundASeed(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 24, 24, 24, 24, 24)
	nodes := l.swarm(ctx, t, crowd)
	l.seed(ctx, t, img, nodes[0])
	before := l.origin.Accesses()
	var pulls errgroup.Group
	for _, n := range nodes[1:] {
		pulls.Go(func() error { return program.Download(ctx, n.Host, program.MirrorURL, img) })
	}
	check(t, pulls.Wait())
	for _, n := range nodes[1:] {
		awaitWhole(ctx, t, n, img)
	}
	assertOnlyHeads(t, l.origin.Accesses().Since(before), img)
}

// assertCopies fails the test if more than so many copies of the image's blobs
// left the origin, or of a manifest more than two.
func assertCopies(t *testing.T, seen program.Accesses, img *program.Image, most float64) {
	t.Helper()
	assertNoHub(t, seen)
	for _, b := range img.Blobs() {
		t.Logf("%.12s: %.3f copies of %d bytes", b.Digest.Hex, float64(seen.Gets(b.Digest.String()).Bytes())/float64(b.Size), b.Size)
	}
	if copies := float64(seen.Blobs().Bytes()) / float64(img.BlobBytes()); copies < 1 || copies > most {
		t.Errorf("%.3f copies left the origin, want at most %.2f:\n%v", copies, most, seen.Blobs())
	}
	for _, digest := range []string{img.Index.String(), img.Manifest.Digest.String()} {
		if asked := seen.Gets(digest); len(asked) < 1 || len(asked) > 2 {
			t.Errorf("the manifest %s was asked for %d times, want at most 2:\n%v", digest, len(asked), asked)
		}
	}
}

// until waits until condition returns nil.
func until(ctx context.Context, condition func() error) error {
	return testhost.Until(ctx, patience, func(context.Context) error { return condition() })
}

// reached returns an error while there are less bytes than wanted.
func reached(bytes, want int64) error {
	if bytes < want {
		return fmt.Errorf("%d of %d bytes", bytes, want)
	}
	return nil
}

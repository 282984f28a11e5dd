//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// TestShoalIsDown: a dockerd whose mirror refuses goes to Docker Hub by itself. It
// is also the proof that the lab itself works: everything but shoal has its
// part in it.
func TestShoalIsDown(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 1, 10, 6)
	m := l.machines[0]
	before := l.origin.Accesses()
	check(t, m.pull(ctx, img.Ref()))
	m.checkImage(ctx, t, img.Ref(), img)
	seen := l.origin.Accesses().Since(before)
	assertOnce(t, seen, img)
	if past := seen.Where(func(a *program.Access) bool { return !a.Hub || a.Client != m.Addr }); len(past) > 0 {
		t.Errorf("not asked for as Docker Hub, or not by %s:\n%v", m.Name, past)
	}
}

// TestFromMachineToMachine lets one image spread over four machines.
func TestFromMachineToMachine(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 2, 40, 24, 8)
	nodes := l.swarm(ctx, t, 4)
	// Each step builds on the one before it.
	if !t.Run("the first takes each byte from the origin once", func(t *testing.T) {
		before := l.origin.Accesses()
		check(t, l.machines[0].pull(ctx, img.Ref()))
		l.machines[0].checkImage(ctx, t, img.Ref(), img)
		seen := l.origin.Accesses().Since(before)
		assertOnce(t, seen, img)
		assertNoHub(t, seen)
		awaitWhole(ctx, t, nodes[0], img)
	}) {
		return
	}
	if !t.Run("the second takes nothing but HEADs from the origin", func(t *testing.T) {
		before := l.origin.Accesses()
		check(t, l.machines[1].pull(ctx, img.Ref()))
		l.machines[1].checkImage(ctx, t, img.Ref(), img)
		assertOnlyHeads(t, l.origin.Accesses().Since(before), img)
		awaitWhole(ctx, t, nodes[1], img)
		if s := must(nodes[1].Status(ctx))(t); s.Bytes.Origin != 0 || s.Bytes.Peers < img.BlobBytes() {
			t.Errorf("the node says %d bytes from the origin and %d from peers, want 0 and at least %d", s.Bytes.Origin, s.Bytes.Peers, img.BlobBytes())
		}
	}) {
		return
	}
	if !t.Run("both serve the third, which runs it", func(t *testing.T) {
		var served [2]int64
		for i := range served {
			served[i] = must(nodes[i].Status(ctx))(t).Bytes.ServedPeers
		}
		before := l.origin.Accesses()
		check(t, l.machines[2].pull(ctx, img.Ref()))
		l.machines[2].checkImage(ctx, t, img.Ref(), img)
		assertOnlyHeads(t, l.origin.Accesses().Since(before), img)
		awaitWhole(ctx, t, nodes[2], img)
		var sum int64
		for i := range served {
			share := must(nodes[i].Status(ctx))(t).Bytes.ServedPeers - served[i]
			t.Logf("%s served %d bytes", nodes[i].Host.Name, share)
			if share < img.BlobBytes()/5 {
				t.Errorf("%s served %d bytes of %d: not a share of the work", nodes[i].Host.Name, share, img.BlobBytes())
			}
			sum += share
		}
		// A piece may come twice at the very end, not more.
		if sum < img.BlobBytes() || sum > img.BlobBytes()+img.BlobBytes()/10 {
			t.Errorf("both served %d bytes, for %d that were pulled", sum, img.BlobBytes())
		}
	}) {
		return
	}
	t.Run("the fourth pulls by digest while the origin is off", func(t *testing.T) {
		check(t, l.origin.Host.Unplug())
		defer func() { check(t, l.origin.Host.Plug()) }()
		before := l.origin.Accesses()
		check(t, l.machines[3].pull(ctx, img.DigestRef()))
		l.machines[3].checkImage(ctx, t, img.DigestRef(), img)
		if seen := l.origin.Accesses().Since(before); len(seen) > 0 {
			t.Errorf("the origin was off, but answered\n%v", seen)
		}
	})
}

// TestFreshBlob: what one node has just filled, another one serves at its first
// request, though it can reach no origin.
func TestFreshBlob(t *testing.T) {
	ctx, l := scenario(t)
	nodes := l.swarm(ctx, t, 2)
	const repository = "shoal/fresh"
	for seed := range byte(5) {
		b := must(l.origin.PutBlob(repository, seed, 4<<20))(t)
		check(t, program.DownloadBlob(ctx, nodes[0].Host, program.MirrorURL, repository, b))
		check(t, l.origin.Host.Unplug())
		err := program.DownloadBlob(ctx, nodes[1].Host, program.MirrorURL, repository, b)
		check(t, l.origin.Host.Plug())
		check(t, err)
	}
}

// assertOnce fails the test unless exactly one copy of the image's blobs and
// manifests left the origin, and nothing of the foreign platform's.
func assertOnce(t *testing.T, seen program.Accesses, img *program.Image) {
	t.Helper()
	for _, b := range img.Blobs() {
		if sent := seen.Gets(b.Digest.String()).Bytes(); sent != b.Size {
			t.Errorf("%d bytes of the blob %v left the origin, want its %d:\n%v", sent, b.Digest, b.Size, seen)
		}
	}
	for _, digest := range []string{img.Index.String(), img.Manifest.Digest.String()} {
		if asked := seen.Gets(digest); len(asked) != 1 {
			t.Errorf("the manifest %s was asked for %d times, want 1:\n%v", digest, len(asked), seen)
		}
	}
	for _, digest := range img.Foreign {
		if asked := seen.Gets(digest.String()); len(asked) > 0 {
			t.Errorf("nobody wanted %v, of another platform:\n%v", digest, asked)
		}
	}
}

// assertOnlyHeads fails the test unless the origin was asked for the tag's
// digest, and for nothing else.
func assertOnlyHeads(t *testing.T, seen program.Accesses, img *program.Image) {
	t.Helper()
	others := seen.Where(func(a *program.Access) bool {
		return a.Hub || a.Method != http.MethodHead || !strings.HasSuffix(a.Path, "/manifests/"+img.Tag)
	})
	if len(others) > 0 || len(seen) == 0 {
		t.Errorf("the origin saw %d requests, among them these which are not a HEAD of the tag:\n%v", len(seen), others)
	}
}

// assertNoHub fails the test if somebody had to go to Docker Hub past shoal.
func assertNoHub(t *testing.T, seen program.Accesses) {
	t.Helper()
	if past := seen.Where(func(a *program.Access) bool { return a.Hub }); len(past) > 0 {
		t.Errorf("asked past shoal:\n%v", past)
	}
}

// awaitWhole waits until the node's disk holds all blobs of the image: the
// client has the last byte a moment before.
func awaitWhole(ctx context.Context, t *testing.T, n *program.Node, img *program.Image) {
	t.Helper()
	check(t, testhost.Until(ctx, 10*time.Second, func(context.Context) error {
		for _, b := range img.Blobs() {
			if !n.HasBlob(b.Digest.Hex) {
				return fmt.Errorf("%s does not hold %v", n.Host.Name, b.Digest)
			}
		}
		return nil
	}))
}

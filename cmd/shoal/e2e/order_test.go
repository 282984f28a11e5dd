//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// verb runs shoal beside a node.
func (l *lab) verb(ctx context.Context, n *program.Node, words ...string) (string, error) {
	return n.Host.Run(ctx, testhost.Command{Path: l.shoal, Args: words})
}

// TestImagesInFiles: what a dockerd has pulled through a node leaves it as a file
// that docker load, podman and skopeo take; what skopeo writes comes into a node
// that has no registry, and is there for a dockerd when the node was killed after.
// What is being read is not removed.
func TestImagesInFiles(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 61, 12, 5, 1)
	nodes := l.swarm(ctx, t, 1)
	check(t, l.machines[0].pull(ctx, img.Ref()))
	awaitWhole(ctx, t, nodes[0], img)
	if out := must(l.verb(ctx, nodes[0], "cache", "ls"))(t); !strings.Contains(out, "docker.io/"+img.Ref()+" ") || strings.Contains(out, "incomplete") {
		t.Errorf("the cache has\n%s", out)
	}
	file := filepath.Join(l.dir, "image.tar")
	must(l.verb(ctx, nodes[0], "cache", "export", img.Ref(), "-o", file))(t)

	t.Run("docker load", func(t *testing.T) {
		must(l.machines[2].docker.Docker(ctx, "load", "--input", file))(t)
		args := []string{"run", "--rm", "--network", "none", img.Ref(), "/bin/busybox", "sha256sum"}
		for path := range img.Files {
			args = append(args, path)
		}
		sums := must(l.machines[2].docker.Docker(ctx, args...))(t)
		for path, sum := range img.Files {
			if !strings.Contains(sums, sum+"  "+path+"\n") {
				t.Errorf("%s is altered: want %s in\n%s", path, sum, sums)
			}
		}
	})
	t.Run("skopeo", func(t *testing.T) {
		dir := filepath.Join(l.dir, "from-archive")
		l.skopeo(ctx, t, nodes[0].Host, "--preserve-digests", "oci-archive:"+file, "dir:"+dir)
		for _, b := range img.Blobs() {
			if _, err := os.Stat(filepath.Join(dir, b.Digest.Hex)); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("what is read stays", func(t *testing.T) {
		layer := img.Layers[0]
		req := must(http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v2/%s/blobs/%s", program.MirrorURL, img.Repository, layer.Digest), nil))(t)
		resp, err := nodes[0].Host.Client(patience).Do(req)
		check(t, err)
		defer resp.Body.Close()
		must(io.ReadFull(resp.Body, make([]byte, 1)))(t)
		if _, err := l.verb(ctx, nodes[0], "cache", "rm", img.Ref()); err == nil || !strings.Contains(err.Error(), "somebody reads it just now") {
			t.Errorf("while it is read: %v", err)
		}
		must(io.Copy(io.Discard, resp.Body))(t)
		check(t, testhost.Until(ctx, patience, func(ctx context.Context) error {
			_, err := l.verb(ctx, nodes[0], "cache", "rm", img.Ref())
			return err
		}))
		if nodes[0].HasBlob(layer.Digest.Hex) || nodes[0].HasBlob(img.Index.Hex) {
			t.Error("it is still there")
		}
	})
	t.Run("into a node without a registry", func(t *testing.T) {
		foreign := filepath.Join(l.dir, "skopeo.tar")
		l.skopeo(ctx, t, l.origin.Host, "docker://"+l.backend()+"/"+img.Ref(), "oci-archive:"+foreign+":docker.io/"+img.Ref())
		var inside *program.Node
		check(t, l.starter(ctx, t, "--no-mdns", "--offline")(&inside, 1))
		must(l.verb(ctx, inside, "cache", "import", foreign))(t)
		inside.Kill()
		check(t, inside.Start(ctx))
		before := l.origin.Accesses()
		check(t, l.machines[1].pull(ctx, img.Ref()))
		if seen := l.origin.Accesses().Since(before); len(seen) > 0 {
			t.Errorf("the registry was asked:\n%v", seen)
		}
	})
}

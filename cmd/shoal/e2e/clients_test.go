//go:build linux

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/cmd/shoal/e2e/testhost"
)

// TestOtherClients: skopeo copies an image through the mirror, and podman, on the
// next machine, pulls and runs it.
func TestOtherClients(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 8, 12, 5)
	nodes := l.swarm(ctx, t, 2)
	settings := filepath.Join(l.dir, "registries.conf")
	check(t, os.WriteFile(settings, []byte(`[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "127.0.0.1:5000"
insecure = true
`), 0o644))

	t.Run("skopeo", func(t *testing.T) {
		logVersion(ctx, t, nodes[0].Host, "skopeo")
		before := l.origin.Accesses()
		layout := filepath.Join(nodes[0].Host.Dir, "layout")
		must(nodes[0].Host.Run(ctx, testhost.Command{
			Path: must(testhost.Program("skopeo"))(t),
			Args: []string{
				"--registries-conf", settings, "--insecure-policy",
				"copy", "--preserve-digests", "docker://docker.io/" + img.Ref(), "oci:" + layout + ":latest",
			},
		}))(t)
		for _, b := range append(img.Blobs(), img.Manifest) {
			content := must(os.ReadFile(filepath.Join(layout, "blobs", "sha256", b.Digest.Hex)))(t)
			if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != b.Digest.Hex {
				t.Errorf("skopeo holds an altered %v", b.Digest)
			}
		}
		seen := l.origin.Accesses().Since(before)
		assertOnce(t, seen, img)
		assertNoHub(t, seen)
	})
	t.Run("podman", func(t *testing.T) {
		logVersion(ctx, t, nodes[1].Host, "podman")
		before := l.origin.Accesses()
		podman := newPodman(t, nodes[1].Host, settings)
		podman.run(ctx, t, "pull", "docker.io/"+img.Ref())
		for path, sum := range img.Files {
			// There is no network set-up in the tests, and the machine may
			// not allow the limits that podman would set.
			out := podman.run(ctx, t, "run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
				"docker.io/"+img.Ref(), "/bin/busybox", "sha256sum", path)
			if strings.TrimSpace(out) != sum+"  "+path {
				t.Errorf("in podman's container: %s, want %s", out, sum)
			}
		}
		assertOnlyHeads(t, l.origin.Accesses().Since(before), img)
	})
}

// logVersion names the client that the test is about, for the summary of all
// tests.
func logVersion(ctx context.Context, t *testing.T, h *testhost.Host, client string) {
	t.Helper()
	path := must(testhost.Program(client))(t)
	version := must(h.Run(ctx, testhost.Command{Path: path, Args: []string{"--version"}}))(t)
	t.Log("runtime:", strings.Replace(strings.TrimSpace(version), " version", "", 1))
}

// podman is podman with a storage of its own on a host.
type podman struct {
	host    *testhost.Host
	command testhost.Command
}

func newPodman(t *testing.T, h *testhost.Host, settings string) podman {
	t.Helper()
	dir := filepath.Join(h.Dir, "podman")
	return podman{host: h, command: testhost.Command{
		Path: must(testhost.Program("podman"))(t),
		Args: []string{
			"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
			"--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none",
		},
		Env: []string{"CONTAINERS_REGISTRIES_CONF=" + settings},
	}}
}

func (p podman) run(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	c := p.command
	c.Args = append(append([]string(nil), c.Args...), args...)
	return must(p.host.Run(ctx, c))(t)
}

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
	settings := documented(t, "[[registry]]\n", filepath.Join(l.dir, "registries.conf"))

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

// TestDocumentedSettings: containerd finds the mirror by the hosts.toml of the
// manual, and looks for it where the manual's config.toml says. (What podman
// and skopeo make of the manual, TestOtherClients sees.)
func TestDocumentedSettings(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 9, 3)
	node := l.swarm(ctx, t, 1)[0]
	host := node.Host
	certs := filepath.Join(l.dir, "certs.d")
	check(t, os.MkdirAll(filepath.Join(certs, "_default"), 0o755))
	documented(t, "[host.", filepath.Join(certs, "_default", "hosts.toml"))

	logVersion(ctx, t, host, "containerd")
	before := l.origin.Accesses()
	must(host.Run(ctx, testhost.Command{
		Path: must(testhost.Program("ctr"))(t),
		Args: []string{"--address", l.machines[0].docker.Containerd(), "content", "fetch", "--hosts-dir", certs, "docker.io/" + img.Ref()},
	}))(t)
	seen := l.origin.Accesses().Since(before)
	assertOnce(t, seen, img)
	assertNoHub(t, seen)
	awaitWhole(ctx, t, node, img)

	config := documented(t, "version = 2\n", filepath.Join(l.dir, "config.toml"))
	dump := must(host.Run(ctx, testhost.Command{
		Path: must(testhost.Program("containerd"))(t), Args: []string{"--config", config, "config", "dump"},
	}))(t)
	if !strings.Contains(dump, `config_path = "/etc/containerd/certs.d"`) || strings.Count(dump, ".registry]") != 1 {
		t.Errorf("containerd reads another configuration:\n%s", dump)
	}
}

// documented writes that block of the manual's text on runtimes which begins so
// to a file, and returns its name.
func documented(t *testing.T, begin, file string) string {
	t.Helper()
	text := must(os.ReadFile("../internal/manual/topics/runtimes.md"))(t)
	_, rest, found := strings.Cut(string(text), "\n\n    "+begin)
	if !found {
		t.Fatalf("the manual has no block that begins with %q", begin)
	}
	block, _, _ := strings.Cut(begin+rest, "\n\n")
	check(t, os.WriteFile(file, []byte(strings.ReplaceAll(block, "\n    ", "\n")+"\n"), 0o644))
	return file
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
	return must(p.host.Run(ctx, p.with(args...)))(t)
}

func (p podman) with(args ...string) testhost.Command {
	c := p.command
	c.Args = append(append([]string(nil), c.Args...), args...)
	return c
}

//go:build linux

package e2e

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// dockerfile is that of the image that is shipped.
const dockerfile = "../../../deploy/docker/Dockerfile"

// TestImage builds the image, without its first stage, which needs the network,
// and runs a node in it: as nobody, without a capability, with a root that cannot
// be written to.
func TestImage(t *testing.T) {
	ctx, l := scenario(t)
	h := l.hosts[4]
	logVersion(ctx, t, h, "podman")
	p := newPodman(t, h, os.DevNull)
	dir := t.TempDir()
	_, last, found := strings.Cut(string(must(os.ReadFile(dockerfile))(t)), "\nFROM scratch\n")
	if !found || strings.Contains(last, "FROM ") || strings.Count(last, "--from=build ") != 3 {
		t.Fatalf("not the Dockerfile that this test knows:\n%s", last)
	}
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"+strings.ReplaceAll(last, "--from=build ", "")), 0o600))
	for _, folder := range []string{"usr/local/bin", "etc/ssl/certs", "var/lib/shoal"} {
		check(t, os.MkdirAll(filepath.Join(dir, "out", folder), 0o755))
	}
	check(t, copyFile(filepath.Join(dir, "out/usr/local/bin/shoal"), l.shoal))
	check(t, copyFile(filepath.Join(dir, "out/etc/ssl/certs/ca-certificates.crt"), l.origin.CA))
	p.run(ctx, t, "build", "--quiet", "--isolation", "chroot", "--tag", "localhost/shoal", dir)

	shutIn := []string{
		"run", "--rm", "--network", "host", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges",
		"--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1024:1024",
	}
	if out := p.run(ctx, t, append(shutIn, "localhost/shoal", "version")...); !strings.HasPrefix(out, "shoal ") {
		t.Errorf("shoal version in the image says %q", out)
	}
	c := p.command
	c.Args = append(append(append([]string(nil), c.Args...), shutIn...),
		"--name", "node", "localhost/shoal", "serve", "--registry", "docker.io="+l.origin.URL())
	process := must(h.Start("shoal-in-podman", c))(t)
	t.Cleanup(func() {
		_, _ = h.Run(context.WithoutCancel(ctx), testhost.Command{Path: c.Path, Args: append(append([]string(nil), p.command.Args...), "kill", "node"), Env: c.Env})
		process.Kill()
	})
	check(t, program.AwaitOK(ctx, h, process, "http://127.0.0.1:5050/readyz", 30*time.Second))
	img := l.push(ctx, t, 41, 3)
	before := l.origin.Accesses()
	check(t, program.Download(ctx, h, program.MirrorURL, img))
	check(t, program.Download(ctx, h, program.MirrorURL, img))
	assertOnce(t, l.origin.Accesses().Since(before), img)

	// The process of the container, seen from outside it.
	pid := strings.TrimSpace(p.run(ctx, t, "inspect", "--format", "{{.State.Pid}}", "node"))
	status := string(must(os.ReadFile("/proc/" + pid + "/status"))(t))
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("the node is not %q:\n%s", want, status)
		}
	}
	check(t, process.Stop(15*time.Second)) // podman passes SIGTERM on
}

// copyFile copies a program or file.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// unitFile is the unit that is shipped.
const unitFile = "../../../deploy/systemd/shoal.service"

// TestSystemd: systemd itself runs the unit that is shipped: it holds it ready
// when it is, and shuts it in; a pull that runs while the service is restarted
// does not notice, and what was pulled is there afterwards.
func TestSystemd(t *testing.T) {
	ctx, l := scenario(t)
	m := l.machines[0]
	s := l.startSystemd(ctx, t, m.Host)
	must(s.Ctl(ctx, "start", "shoal.service"))(t) // waits for READY=1
	if code := answers(ctx, t, m.Host, "http://127.0.0.1:5050/readyz"); code != http.StatusOK {
		t.Errorf("started, but /readyz says %d", code)
	}
	assertShutIn(ctx, t, s)

	// At 200 Mbit/s this takes three seconds.
	img := l.push(ctx, t, 40, 48, 16)
	before := l.origin.Accesses()
	sent := func() int64 { return l.origin.Accesses().Since(before).Blobs().Bytes() }
	pulled := inBackground(func() error { return m.pull(ctx, img.Ref()) })
	check(t, testhost.Until(ctx, time.Minute, func(context.Context) error {
		if s := sent(); s < img.BlobBytes()*3/10 {
			return fmt.Errorf("%d of %d bytes", s, img.BlobBytes())
		}
		return nil
	}))
	first := must(s.Show(ctx, "shoal.service", "MainPID"))(t)
	must(s.Ctl(ctx, "restart", "shoal.service"))(t)
	check(t, <-pulled) // at the first try: systemd waited for it
	m.checkImage(ctx, t, img.Ref(), img)
	if now := must(s.Show(ctx, "shoal.service", "MainPID"))(t); now == first || now == "0" {
		t.Errorf("after the restart the service is process %s, before it was %s", now, first)
	}
	if restarts := must(s.Show(ctx, "shoal.service", "NRestarts"))(t); restarts != "0" {
		t.Errorf("the service failed %s times", restarts)
	}
	if sent() > img.BlobBytes()+inFlight {
		t.Errorf("the origin sent %d bytes for an image of %d", sent(), img.BlobBytes())
	}

	// The new process has what the old one took, and serves it.
	before = l.origin.Accesses()
	check(t, program.Download(ctx, m.Host, program.MirrorURL, img))
	if sent() > 0 {
		t.Errorf("the origin sent %d bytes again after the restart", sent())
	}
	assertNoHub(t, l.origin.Accesses().Since(before))
}

// startSystemd starts a systemd with the unit, a configuration and a key on a
// host, for this test.
func (l *lab) startSystemd(ctx context.Context, t *testing.T, h *testhost.Host) *program.Systemd {
	t.Helper()
	dir := t.TempDir()
	key := must(h.Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"swarm-key", "new"}}))(t)
	config := "registry:\n  docker.io:\n    upstreams: [" + l.origin.URL() + "]\n"
	log := "[Service]\nStandardError=append:/var/lib/shoal.log\n" // there is no journal
	files := map[string]string{
		"/usr/local/bin/shoal":                          l.shoal,
		"/etc/systemd/system/shoal.service":             unitFile,
		"/etc/systemd/system/shoal.service.d/test.conf": log,
		"/etc/shoal/shoal.yaml":                         config,
		"/etc/shoal/swarm.key":                          key,
	}
	for at, content := range files {
		if strings.Contains(content, "\n") {
			files[at] = filepath.Join(dir, filepath.Base(at))
			check(t, os.WriteFile(files[at], []byte(content), 0o644))
		}
	}
	check(t, os.Chmod(files["/etc/shoal/swarm.key"], 0o600)) // root's alone
	s := must(program.StartSystemd(ctx, h, files))(t)
	t.Cleanup(func() {
		if err := s.Kill(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(s.Path("/var/lib/shoal.log")); err != nil || t.Failed() {
			t.Logf("log of the service: %v\n%s", err, text)
		}
	})
	return s
}

// assertShutIn fails the test unless the service is what the unit says: not
// root, without a capability, behind a filter of system calls, with a key that
// others cannot read.
func assertShutIn(ctx context.Context, t *testing.T, s *program.Systemd) {
	t.Helper()
	pid := must(s.Show(ctx, "shoal.service", "MainPID"))(t)
	status := must(s.Inside(ctx, "/bin/cat", "/proc/"+pid+"/status"))(t)
	fields := map[string]string{}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	if strings.HasPrefix(fields["Uid"], "0\t") {
		t.Error("the service is root")
	}
	for name, want := range map[string]string{"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"} {
		if fields[name] != want {
			t.Errorf("%s of the service is %s, want %s", name, fields[name], want)
		}
	}
	key := must(s.Inside(ctx, "/usr/bin/stat", "--format", "%a", "/run/credentials/shoal.service/swarm.key"))(t)
	if strings.TrimSpace(key) != "400" {
		t.Errorf("the service's copy of the key has mode %s", key)
	}
}

// answers returns the status of a GET from the host.
func answers(ctx context.Context, t *testing.T, h *testhost.Host, url string) int {
	t.Helper()
	req := must(http.NewRequestWithContext(ctx, http.MethodGet, url, nil))(t)
	resp, err := h.Client(10 * time.Second).Do(req)
	check(t, err)
	defer func() { _ = resp.Body.Close() }() // only its status counts
	return resp.StatusCode
}

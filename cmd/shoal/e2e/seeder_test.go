//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/testhost"
)

// Ports of what this test starts: a registry that tells what is pushed to it, and
// where it does.
const (
	tellingPort = 7103
	toldPort    = 5060
)

// TestRegistryTellsSeeder: a node has an image whole before anybody asks, because
// its registry said that it was pushed; and another one, because its repository
// is among those that the registry lists and its tag is the newest version.
func TestRegistryTellsSeeder(t *testing.T) {
	ctx, l := scenario(t)
	listed, pushed := l.push(ctx, t, 91, 1), l.push(ctx, t, 92, 2)
	const secret = "tell-me-what-is-pushed"
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600))
	at := fmt.Sprintf("%v:%d", l.origin.Host.Addr, tellingPort)
	l.listens(ctx, t, tellingPort, must(l.origin.Registry("telling", fmt.Sprintf(`http: {addr: "%s", secret: none}
notifications:
  endpoints:
    - {name: shoal, url: "http://%v:%d/", headers: {Authorization: [Bearer %s]}, timeout: 2s, threshold: 3, backoff: 1s}`,
		at, l.hosts[0].Addr, toldPort, secret)))(t))
	copyTo := func(ref, tag string) {
		l.skopeo(ctx, t, l.origin.Host, "--all", "docker://"+l.backend()+"/"+ref, "docker://"+at+"/"+tag)
	}
	copyTo(listed.Ref(), listed.Repository+":v1.9.0")
	copyTo(pushed.Ref(), listed.Repository+":v1.8.0")

	file := filepath.Join(dir, "shoal.yaml")
	check(t, os.WriteFile(file, fmt.Appendf(nil, `registry: {hub.example: {upstreams: ["http://%s"]}}
seeder:
  webhook: {listen: "%v:%d", secret-file: %s/secret}
  select:
    listed: {images: ["hub.example/shoal/image9[1]:v*"], newest: 1}
    told: {images: ["hub.example/shoal/image92:pushed"]}
`, at, l.hosts[0].Addr, toldPort, dir), 0o600))
	n := l.swarm(ctx, t, 1, "--config", file)[0]
	awaitWhole(ctx, t, n, listed)
	for _, b := range pushed.Layers {
		if n.HasBlob(b.Digest.Hex) && b.Digest != listed.Layers[0].Digest {
			t.Errorf("%v was fetched, which no selection has yet", b.Digest)
		}
	}
	copyTo(pushed.Ref(), pushed.Repository+":pushed")
	start := time.Now()
	awaitWhole(ctx, t, n, pushed)
	t.Logf("whole %v after the push", time.Since(start).Round(time.Millisecond))
	// Those of the pushes before came, too, once there was somebody to tell.
	if taken := must(n.Metric(ctx, "shoal_seeder_notifications_total", "result", "taken"))(t); taken < 1 {
		t.Errorf("%v notifications taken", taken)
	}
	want := regexp.MustCompile(`told: 1 image, 1 here, looked at \d+s ago \(notification, took \S+, fetched 1 of 3.895MiB\)`)
	check(t, testhost.Until(ctx, 5*time.Second, func(ctx context.Context) error {
		out, err := l.hosts[0].Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"seeder"}})
		if err == nil && !want.MatchString(out) {
			err = fmt.Errorf("shoal seeder says\n%s\nwant %s", out, want)
		}
		return err
	}))
}

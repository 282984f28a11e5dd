//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
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

// TestSelectionOutlivesTheRegistry: a seeder of what its registry lists is killed
// and starts again when the registry has gone, and so has who held the image, too.
// It knows what it had, says of when, and has another member hold it.
func TestSelectionOutlivesTheRegistry(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 97, 1)
	dir := t.TempDir()
	key, file := filepath.Join(dir, "seeder.key"), filepath.Join(dir, "shoal.yaml")
	public := strings.TrimSpace(must(l.hosts[0].Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"key", "new", key}}))(t))
	check(t, os.WriteFile(file, fmt.Appendf(nil, `signing-key: %s
seeder:
  check-holders: 1s
  select: {listed: {images: ["docker.io/shoal/image9[7]:*"], every: 1h, min-holders: 2}}
`, key), 0o600))
	swarmKey := l.newKey(ctx, t)
	node := func(number int, args []string, join ...*program.Node) *program.Node {
		n := must(program.NewNode(ctx, l.hosts[number], program.NodeConfig{
			Shoal: l.shoal, Name: "shoal-outlives", SwarmKey: swarmKey, Upstream: l.origin.URL(), Join: join,
			Args: append([]string{"--no-mdns", "--trusted-keys", public}, args...),
		}))(t)
		t.Cleanup(n.Kill)
		return n
	}
	first, other := node(1, nil), node(2, nil)
	seeder := node(0, []string{"--config", file}, first, other)
	check(t, first.Start(ctx))
	check(t, seeder.Start(ctx))
	awaitWhole(ctx, t, seeder, img)
	awaitWhole(ctx, t, first, img)

	seeder.Kill()
	first.Kill()
	check(t, l.origin.SwitchOff())
	t.Cleanup(func() { check(t, l.origin.SwitchOn(context.WithoutCancel(ctx))) })
	check(t, other.Start(ctx))
	check(t, seeder.Start(ctx))
	start := time.Now()
	awaitWhole(ctx, t, other, img)
	t.Logf("another member holds it %v after the start", time.Since(start).Round(time.Millisecond))
	want := regexp.MustCompile(`listed: 1 image(?s:.*)\n  the repositories of docker.io: .*; images that stay chosen as of 20\S+Z: 1\n`)
	check(t, testhost.Until(ctx, 10*time.Second, func(ctx context.Context) error {
		out, err := l.verb(ctx, seeder, "seeder")
		if err == nil && !want.MatchString(out) {
			err = fmt.Errorf("shoal seeder says\n%s\nwant %s", out, want)
		}
		return err
	}))
}

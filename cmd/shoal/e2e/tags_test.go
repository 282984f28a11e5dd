//go:build linux

package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// TestPullsOfAnUnchangedTag: each costs the registry one HEAD and nothing else,
// by its own books, whoever pulls. While the registry is off the tag is what it
// was.
func TestPullsOfAnUnchangedTag(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 33, 4, 2)
	n, m := l.swarm(ctx, t, 1)[0], l.machines[0]
	podman := newPodman(t, n.Host, documented(t, "[[registry]]\n", filepath.Join(l.dir, "registries.conf")))
	certs := filepath.Join(l.dir, "certs.d")
	check(t, os.MkdirAll(filepath.Join(certs, "_default"), 0o755))
	documented(t, "[host.", filepath.Join(certs, "_default", "hosts.toml"))
	pulls := []struct {
		by   string
		pull func(ctx context.Context) error
	}{
		{"dockerd", func(ctx context.Context) error { return m.pull(ctx, img.Ref()) }},
		{"podman", func(ctx context.Context) error { podman.run(ctx, t, "pull", "docker.io/"+img.Ref()); return nil }},
		{"containerd", func(ctx context.Context) error {
			_, err := n.Host.Run(ctx, testhost.Command{
				Path: must(testhost.Program("ctr"))(t),
				Args: []string{"--address", m.docker.Containerd(), "content", "fetch", "--hosts-dir", certs, "docker.io/" + img.Ref()},
			})
			return err
		}},
	}
	for _, p := range pulls {
		check(t, p.pull(ctx))
	}
	awaitWhole(ctx, t, n, img)
	for _, p := range pulls {
		anotherSecond(ctx, t)
		before := l.origin.Accesses()
		check(t, p.pull(ctx))
		seen := l.origin.Accesses().Since(before)
		if assertOnlyHeads(t, seen, img); len(seen) != 1 {
			t.Errorf("%s: the registry saw %d requests, want one:\n%v", p.by, len(seen), seen)
		}
	}

	check(t, l.origin.SwitchOff())
	t.Cleanup(func() { check(t, l.origin.SwitchOn(context.WithoutCancel(ctx))) })
	anotherSecond(ctx, t)
	for _, p := range pulls {
		if err := p.pull(ctx); err != nil {
			t.Errorf("%s, with the registry off: %v", p.by, err)
		}
	}
	m.checkImage(ctx, t, img.Ref(), img)
	if stale := must(n.Metric(ctx, "shoal_proxy_stale_tags_total"))(t); stale < float64(len(pulls)) {
		t.Errorf("shoal_proxy_stale_tags_total is %v", stale)
	}
}

// TestAThousandClients: they ask for one tag all at once, and again and again;
// docker-registry is asked once a second.
func TestAThousandClients(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 34, 1)
	n := l.swarm(ctx, t, 1)[0]
	client := n.Host.Client(20 * time.Second)
	client.Transport.(*http.Transport).DisableKeepAlives = false
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 1000
	url := program.MirrorURL + "/v2/" + img.Repository + "/manifests/" + img.Tag
	before, began := l.origin.Accesses(), time.Now()
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			for time.Since(began) < 3*time.Second {
				req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
					t.Errorf("answer %d", resp.StatusCode)
				}
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	client.CloseIdleConnections()
	seen := l.origin.Accesses().Since(before)
	assertOnlyHeads(t, seen, img)
	if most := 1 + int(took/time.Second); len(seen) < 2 || len(seen) > most {
		t.Errorf("in %v the registry was asked %d times, want 2 to %d:\n%v", took, len(seen), most, seen)
	}
	t.Logf("in %v the registry was asked %d times", took.Round(time.Millisecond), len(seen))
}

// anotherSecond waits until an answer about a tag is not shared any more.
func anotherSecond(ctx context.Context, t *testing.T) {
	t.Helper()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}

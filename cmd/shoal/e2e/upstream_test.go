//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// brokenPort is where the preferred upstream of these tests is, beside the
// origin.
const brokenPort = 7000

// silence is less than an upstream that says nothing is waited for.
const silence = 2 * time.Second

// TestUpstreamsFailOver: the preferred upstream of a registry refuses or is
// silent. A client that has nobody else to ask gets its image from the next
// one, and everything goes to the preferred one again once it works.
func TestUpstreamsFailOver(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 31, 12, 5)
	broken := fmt.Sprintf("http://%v:%d", l.origin.Host.Addr, brokenPort)
	start := func(t *testing.T) *program.Node {
		t.Helper()
		return l.swarm(ctx, t, 1, "--registry", "team.example="+broken+","+l.origin.URL())[0]
	}
	t.Run("refuses", func(t *testing.T) {
		n := start(t)
		if took := l.asks(ctx, t, n, img); took >= silence {
			t.Errorf("the first answer took %v", took)
		}
		l.copies(ctx, t, n, "team.example/"+img.Ref())
	})
	t.Run("is silent", func(t *testing.T) {
		silent := must(l.origin.Host.Listen(ctx, l.origin.Host.Addr, brokenPort))(t)
		t.Cleanup(func() { _ = silent.Close() })
		n := start(t)
		first, second := l.asks(ctx, t, n, img), l.asks(ctx, t, n, img)
		if first < silence || first >= 2*silence || second >= silence {
			t.Errorf("the first answer took %v, the second one %v", first, second)
		}
		l.copies(ctx, t, n, "team.example/"+img.Ref())
		if failing := must(n.Metric(ctx, "shoal_upstream_failing", "upstream", broken))(t); failing != 1 {
			t.Errorf("shoal_upstream_failing is %v", failing)
		}

		asked := l.revive(t, silent)
		check(t, testhost.Until(ctx, 30*time.Second, func(ctx context.Context) error {
			l.asks(ctx, t, n, img)
			if failing, err := n.Metric(ctx, "shoal_upstream_failing", "upstream", broken); err != nil || failing != 0 {
				return fmt.Errorf("shoal_upstream_failing is %v (%w)", failing, err)
			}
			return nil
		}))
		before, other := len(asked), l.origin.Accesses()
		check(t, testhost.Until(ctx, 10*time.Second, func(ctx context.Context) error { // an answer is good for a moment
			if l.asks(ctx, t, n, img); len(asked) == before {
				return errors.New("the preferred upstream works again and is not asked")
			}
			return nil
		}))
		// What the preferred one is asked it asks the origin: as its host.
		for _, a := range l.origin.Accesses().Since(other) {
			if a.Client != l.origin.Host.Addr {
				t.Errorf("asked although the preferred upstream works: %v", a)
			}
		}
	})
}

// asks has a client ask for the manifest of a tag, and returns how long that
// took.
func (l *lab) asks(ctx context.Context, t *testing.T, n *program.Node, img *program.Image) time.Duration {
	t.Helper()
	begin := time.Now()
	url := fmt.Sprintf("%s/v2/team.example/%s/manifests/%s", program.MirrorURL, img.Repository, img.Tag)
	status, _ := ask(ctx, t, n, http.MethodHead, url)
	took := time.Since(begin)
	t.Logf("answer %d after %v", status, took.Round(time.Millisecond))
	if status != http.StatusOK {
		t.Errorf("answer %d", status)
	}
	return took
}

// copies has skopeo copy ref, which begins with the registry, so that there is
// nobody but the node to ask. It never asks twice, and checks every digest.
func (l *lab) copies(ctx context.Context, t *testing.T, n *program.Node, ref string) {
	t.Helper()
	must(n.Host.Run(ctx, testhost.Command{
		Path: must(testhost.Program("skopeo"))(t),
		Args: []string{
			"--insecure-policy", "copy", "--src-tls-verify=false", "--retry-times=0",
			"docker://" + strings.TrimPrefix(program.MirrorURL, "http://") + "/" + ref, "dir:" + filepath.Join(t.TempDir(), "copy"),
		},
	}))(t)
}

// revive lets the origin's registry answer at the listener, too, and returns
// what holds a value for each request.
func (l *lab) revive(t *testing.T, at net.Listener) <-chan struct{} {
	t.Helper()
	asked := make(chan struct{}, 1000)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			asked <- struct{}{}
			r.SetURL(must(url.Parse(l.origin.URL()))(t))
		},
		Transport: l.origin.Host.Client(0).Transport,
	}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Second}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(at) }() // ends by Close
	return asked
}

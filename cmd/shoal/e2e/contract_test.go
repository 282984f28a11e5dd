//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// TestContract checks what scripts and tests of others may rely on, from outside.
func TestContract(t *testing.T) {
	ctx, l := scenario(t)
	node := l.swarm(ctx, t, 1, "--zone", "attic")[0]
	host := node.Host

	t.Run("exit codes", func(t *testing.T) {
		data := filepath.Join(host.Dir, "contract")
		for _, c := range []struct {
			args []string
			want int
			says string // in standard error; empty: nothing at all
		}{
			{args: []string{"version"}, want: 0},
			{args: []string{"status"}, want: 0},
			{args: []string{"status", "--json"}, want: 0},
			{args: []string{"id", "--data-dir", data}, want: 0},
			{args: []string{"id", "--data-dir", node.DataDir}, want: 0}, // beside the running node
			{args: []string{"status", "--admin", "127.0.0.1:1"}, want: 1, says: "127.0.0.1:1"},
			{args: []string{"serve", "--data-dir", node.DataDir, "--mirror", "127.0.0.1:5999", "--admin", "127.0.0.1:5998"}, want: 1, says: node.DataDir},
			{args: []string{"serve", "--data-dir", data, "--admin", "127.0.0.1:5998"}, want: 1, says: "127.0.0.1:5000"},
			{args: []string{"serve", "--data-dir", data, "--no-such-flag"}, want: 2, says: "--no-such-flag"},
			{args: []string{"serve", "--data-dir", data, "--cache-size", "plenty"}, want: 2, says: "plenty"},
			{args: []string{"serve", "--data-dir", data, "--swarm", "/ip4/0.0.0.0/tcp/4001"}, want: 2, says: "swarm-key"},
			{args: []string{"no-such-verb"}, want: 2, says: "no-such-verb"},
		} {
			_, err := host.Run(ctx, testhost.Command{Path: l.shoal, Args: c.args})
			code, message := 0, ""
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				code, message = exit.ExitCode(), err.Error()
			} else {
				check(t, err)
			}
			if code != c.want || !strings.Contains(message, c.says) {
				t.Errorf("shoal %s: exit code %d (%s), want %d and a word on %q", strings.Join(c.args, " "), code, message, c.want, c.says)
			}
		}
	})
	t.Run("identity", func(t *testing.T) {
		id := func(dir string) string {
			return must(host.Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"id", "--data-dir", dir}}))(t)
		}
		dir := filepath.Join(host.Dir, "identity")
		if first, again := id(dir), id(dir); first != again || first == id(node.DataDir) {
			t.Errorf("shoal id printed %q, then %q", first, again)
		}
		key := func() string {
			return must(host.Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"swarm-key", "new"}}))(t)
		}
		if first, next := key(), key(); first == next {
			t.Error("two new swarm keys are the same")
		}
	})
	t.Run("status", func(t *testing.T) {
		text := must(host.Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"status", "--json"}}))(t)
		var fields map[string]any
		check(t, json.Unmarshal([]byte(text), &fields))
		for _, name := range []string{"id", "joined", "peers", "zone", "bytes", "fills"} {
			if _, ok := fields[name]; !ok {
				t.Errorf("status has no %q: %s", name, text)
			}
		}
		bytes, _ := fields["bytes"].(map[string]any)
		for _, name := range []string{"origin", "peers", "cache_hits", "served_clients", "served_peers"} {
			if n, ok := bytes[name].(float64); !ok || n != 0 {
				t.Errorf("status of a new node has bytes.%s = %v, want 0: %s", name, bytes[name], text)
			}
		}
		if s := must(node.Status(ctx))(t); s.ID != node.ID || s.Zone != "attic" {
			t.Errorf("status says id %q and zone %q", s.ID, s.Zone)
		}
	})
	t.Run("a clean end", func(t *testing.T) {
		if err := node.Stop(); err != nil {
			t.Errorf("ended by SIGTERM: %v, want exit code 0", err)
		}
	})
}

// TestMulticast: nodes on one network with one key find each other by
// themselves.
func TestMulticast(t *testing.T) {
	ctx, l := scenario(t)
	nodes := make([]*program.Node, 2)
	start := l.starter(ctx, t)
	for i := range nodes {
		check(t, start(&nodes[i], i))
	}
	awaitConnected(ctx, t, nodes)
}

// TestMirrorContract checks answers of the mirror that need no image.
func TestMirrorContract(t *testing.T) {
	ctx, l := scenario(t)
	node := l.swarm(ctx, t, 1)[0]
	absent := "sha256:" + strings.Repeat("0", 64)
	client := node.Host.Client(15 * time.Second)
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/v2/", http.StatusOK},
		{http.MethodGet, "/v2/shoal/absent/manifests/latest", http.StatusNotFound},
		{http.MethodHead, "/v2/shoal/absent/manifests/latest", http.StatusNotFound},
		{http.MethodGet, "/v2/shoal/absent/manifests/" + absent, http.StatusNotFound},
		{http.MethodGet, "/v2/shoal/absent/blobs/" + absent, http.StatusNotFound},
		{http.MethodPost, "/v2/shoal/absent/blobs/uploads/", http.StatusMethodNotAllowed},
		{http.MethodPut, "/v2/shoal/absent/manifests/latest", http.StatusMethodNotAllowed},
	} {
		req := must(http.NewRequestWithContext(ctx, c.method, program.MirrorURL+c.path, nil))(t)
		asked := time.Now()
		resp, err := client.Do(req)
		check(t, err)
		body := must(io.ReadAll(resp.Body))(t)
		check(t, resp.Body.Close())
		if took := time.Since(asked); resp.StatusCode != c.want || took > 10*time.Second {
			t.Errorf("%s %s: %s after %v, want %d within 10 s", c.method, c.path, resp.Status, took, c.want)
		}
		if c.want >= 400 && c.method != http.MethodHead {
			assertOCIError(t, fmt.Sprintf("%s %s", c.method, c.path), body)
		}
	}
}

// assertOCIError fails the test unless body is an error as the OCI distribution
// specification has it.
func assertOCIError(t *testing.T, what string, body []byte) {
	t.Helper()
	var e struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(body, &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Code == "" {
		t.Errorf("%s: the body is %q (%v), want one OCI error", what, body, err)
	}
}

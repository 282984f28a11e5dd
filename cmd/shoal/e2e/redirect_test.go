//go:build linux

package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/cmd/shoal/e2e/testhost"
)

// Ports of what this test starts: on the origin's host a registry that wants a
// password, and nginx in front of it; and on another host one with the blobs.
const (
	behindPort = 7400
	frontPort  = 7401
	storePort  = 7402
)

// TestBlobsOfAnotherHost: nginx in front of a registry redirects blobs to another
// host, by URLs that are signed for one request each. That host gets no
// credentials, and the registry is asked for a new URL when one is refused.
func TestBlobsOfAnotherHost(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 37, 12)
	dir := t.TempDir()
	for file, text := range map[string]string{"htpasswd": user + ":" + passwordHash + "\n", "password": password + "\n"} {
		check(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
	}
	l.listens(ctx, t, behindPort, must(l.origin.Registry("behind", fmt.Sprintf(`http: {addr: "%v:%d", secret: none}
auth: {htpasswd: {realm: lab, path: %s/htpasswd}}`, l.origin.Host.Addr, behindPort, dir)))(t))
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	store := l.hosts[5]
	front := l.nginx(ctx, t, l.origin.Host, frontPort, fmt.Sprintf(`
		location ~ ^/v2/.*/blobs/sha256:(?<start>..)(?<rest>.*)$ {
			if ($http_authorization != "Basic %s") { return 401; }
			return 307 http://%v:%d/sha256/$start/$start$rest/data?expires=60&signature=$request_id;
		}
		location / { proxy_pass http://%v:%d; proxy_set_header Host $http_host; }`, basic, store.Addr, storePort, l.origin.Host.Addr, behindPort))
	// The second request with a signature is refused; the zone is in the http block.
	away := l.nginx(ctx, t, store, storePort, fmt.Sprintf(`
		location / {
			if ($http_authorization) { return 400; }
			if ($arg_signature = "") { return 403; }
			limit_req zone=once; limit_req_status 403;
			root %s/docker/registry/v2/blobs;
		}`, l.origin.Storage()))

	file := filepath.Join(dir, "shoal.yaml")
	check(t, os.WriteFile(file, fmt.Appendf(nil, `registry:
  front.example: {upstreams: ["http://%v:%d"], username: %s, password-file: %s/password, access: shared, credentials-in-clear: true}
`, l.origin.Host.Addr, frontPort, user, dir), 0o600))
	n := l.swarm(ctx, t, 1, "--config", file)[0]
	l.copies(ctx, t, n, "front.example/"+img.Ref())

	signed, stored := string(must(os.ReadFile(front))(t)), string(must(os.ReadFile(away))(t))
	if strings.Contains(stored, "Basic") || strings.Contains(stored, " 400 ") || !strings.Contains(signed, "Basic "+basic) {
		t.Errorf("the other host has seen\n%s\nthe registry\n%s", stored, signed)
	}
	given, refused := strings.Count(stored, " 200 ")+strings.Count(stored, " 206 "), strings.Count(stored, " 403 ")
	if refused == 0 || strings.Count(signed, " 307 ") != given {
		t.Errorf("%d requests were refused, %d answered; the registry has seen\n%s", refused, given, signed)
	}
	for _, b := range img.Blobs() {
		if asked := l.origin.Accesses().Gets(b.Digest.String()); len(asked) > 0 {
			t.Errorf("%v came from the origin: %v", b.Digest, asked)
		}
	}
	said := string(must(os.ReadFile(n.Process.LogFile))(t))
	if strings.Contains(said, "signature=") || strings.Contains(said, password) {
		t.Errorf("the log tells what it should not:\n%s", said)
	}
}

// nginx starts an nginx with a server of these locations, and returns its log of
// accesses: request, status, Authorization.
func (l *lab) nginx(ctx context.Context, t *testing.T, h *testhost.Host, port uint16, locations string) (log string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	log = filepath.Join(dir, "access.log")
	check(t, os.WriteFile(config, fmt.Appendf(nil, `daemon off; master_process off; user root; pid %[1]s/pid; error_log stderr;
events {}
http {
	log_format seen '$request $status $http_authorization';
	access_log %[2]s seen;
	limit_req_zone $arg_signature zone=once:1m rate=1r/m;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server {
		listen %[3]v:%[4]d;%[5]s
	}
}
`, dir, log, h.Addr, port, locations), 0o644))
	p := must(h.Start("nginx", testhost.Command{Path: must(testhost.Program("nginx"))(t), Args: []string{"-e", "stderr", "-c", config}}))(t)
	listens(ctx, t, h, port, p)
	return log
}

//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// publicAddr is an address of the internet, which the origin's host has here.
const publicAddr = "9.9.9.9"

// TestNoWayIntoTheNetwork: a client names registries that nobody listed, or one
// in public leads to them, and none of that reaches the node's own host or
// network. That the public one serves as it should shows that the rest was
// refused, not broken.
func TestNoWayIntoTheNetwork(t *testing.T) {
	ctx, l := scenario(t)
	dir, host := t.TempDir(), l.hosts[4]
	newPKI(t, dir, l.origin.Host.Addr.AsSlice())
	l.names(ctx, t, map[string]string{
		"inside.example.": "127.0.0.1", "lan.example.": l.origin.Host.Addr.String(), "any.example.": "0.0.0.0",
		"metadata.example.": "169.254.169.254", "public.example.": publicAddr,
	})
	for _, args := range []string{"-n origin addr add " + publicAddr + "/32 dev lo", fmt.Sprintf("-n %s route add %s via %v", host.Name, publicAddr, l.origin.Host.Addr)} {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	targets := []string{
		"http://127.0.0.1/x", "https://127.0.0.1/x", "https://localhost/x", "https://[::1]/x", "https://2130706433/x", "https://inside.example/x",
		"https://lan.example/v2/x", "https://any.example/x", "https://metadata.example/x", "https://public.example:5000/x", "http://public.example/x", "https://user@public.example/x",
	}
	l.public(ctx, t, dir, targets)
	var reached atomic.Int64
	trap(ctx, t, host, "127.0.0.1:80", &reached)
	trap(ctx, t, host, "127.0.0.1:443", &reached)
	trap(ctx, t, l.origin.Host, publicAddr+":80", &reached)
	trap(ctx, t, l.origin.Host, publicAddr+":5000", &reached)
	t.Setenv("SSL_CERT_FILE", filepath.Join(dir, "ca.pem"))
	key := filepath.Join(dir, "swarm.key")
	check(t, os.WriteFile(key, []byte(must(host.Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"swarm-key", "new"}}))(t)), 0o600))
	n, err := program.StartNode(ctx, host, program.NodeConfig{
		Shoal: l.shoal, Name: "shoal-guard", SwarmKey: key, Upstream: "http://127.0.0.1:9", Args: []string{"--no-mdns"}, ResolvConf: filepath.Join(l.dir, "names.conf"),
	})
	if n != nil {
		t.Cleanup(n.Kill)
	}
	check(t, err)

	before := l.origin.Accesses()
	if status, body := ask(ctx, t, n, http.MethodGet, program.MirrorURL+"/v2/public.example/team/app/manifests/good"); status != http.StatusOK || body != publicManifest {
		t.Fatalf("the public registry is not served: %d, %s", status, body)
	}
	var paths []string
	for _, name := range []string{
		"127.0.0.1", "127.0.0.1:5050", "127.0.0.1.", "127.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "[::1]", "[::1]:5050", "::1", "[::ffff:127.0.0.1]",
		"localhost", "localhost:5050", "LOCALHOST.", "10.77.0.1", "10.77.0.1:5000", "169.254.169.254", "user@127.0.0.1", "public.example@127.0.0.1", "public.example:5000",
		"public.example#@127.0.0.1", "inside.example", "INSIDE.example", "lan.example", "any.example", "metadata.example",
	} {
		paths = append(paths, "/v2/team/app/manifests/latest?ns="+url.QueryEscape(name))
		if strings.ContainsAny(name, ".:") || name == "localhost" { // else it is a folder of Docker Hub's
			paths = append(paths, "/v2/"+url.PathEscape(name)+"/team/app/manifests/latest")
		}
	}
	for i := range targets {
		paths = append(paths, fmt.Sprintf("/v2/public.example/team/app/manifests/%d", i), fmt.Sprintf("/v2/public.example/team/app/blobs/sha256:%064d", i), fmt.Sprintf("/v2/public.example/team/realm%d/manifests/latest", i))
	}
	for _, path := range paths {
		if status, body := ask(ctx, t, n, http.MethodGet, program.MirrorURL+path); status < 400 || status >= 500 {
			t.Errorf("%s: answer %d, %.200s", path, status, body)
		}
	}
	if seen := l.origin.Accesses().Since(before); reached.Load() > 0 || len(seen) > 0 {
		t.Errorf("%d connections to what nobody may reach; the origin has seen %v", reached.Load(), seen)
	}
}

// names starts a name server on the origin's host, which names.conf leads to.
func (l *lab) names(ctx context.Context, t *testing.T, zone map[string]string) {
	t.Helper()
	server := &dns.Server{Listener: must(l.origin.Host.Listen(ctx, l.origin.Host.Addr, 53))(t), Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		if addr, ok := zone[strings.ToLower(q.Question[0].Name)]; ok && q.Question[0].Qtype == dns.TypeA {
			answer.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(addr)}}
		}
		_ = w.WriteMsg(answer) // the asker may have gone
	})}
	ended := inBackground(server.ActivateAndServe)
	t.Cleanup(func() {
		check(t, server.Shutdown())
		check(t, <-ended)
	})
	check(t, os.WriteFile(filepath.Join(l.dir, "names.conf"), []byte("nameserver "+l.origin.Host.Addr.String()+"\noptions use-vc\n"), 0o644))
}

const publicManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// public starts a registry in public: it leads the manifest and the blob of
// number i to the target of that number, and the repository realm<i> has its
// token endpoint there.
func (l *lab) public(ctx context.Context, t *testing.T, dir string, targets []string) {
	t.Helper()
	cert := must(tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")))(t)
	listener := tls.NewListener(must(l.origin.Host.Listen(ctx, netip.MustParseAddr(publicAddr), 443))(t), &tls.Config{Certificates: []tls.Certificate{cert}})
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last := r.URL.Path[strings.LastIndexAny(r.URL.Path, "/:")+1:]
		var i int
		if _, err := fmt.Sscanf(r.URL.Path, "/v2/team/realm%d/", &i); err == nil {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, targets[i]))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if _, err := fmt.Sscanf(last, "%d", &i); err == nil && i < len(targets) {
			http.Redirect(w, r, targets[i], http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		_, _ = w.Write([]byte(publicManifest))
	})}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }() // ends by Close
}

// trap counts connections to an address of a host.
func trap(ctx context.Context, t *testing.T, h *testhost.Host, at string, reached *atomic.Int64) {
	t.Helper()
	addr := netip.MustParseAddrPort(at)
	listener := must(h.Listen(ctx, addr.Addr(), addr.Port()))(t)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			reached.Add(1)
			_ = conn.Close()
		}
	}()
}

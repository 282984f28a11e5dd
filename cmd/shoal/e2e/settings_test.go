//go:build linux

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// Ports on the origin's host of what these tests start there.
const (
	mutualPort = 7100
	squidPort  = 7101
)

// TestRegistrySettings: registries that need what the file says about them. Of
// each a client that has nobody else to ask copies the image.
func TestRegistrySettings(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 32, 3)
	dir := t.TempDir()
	newPKI(t, dir, l.origin.Host.Addr.AsSlice())
	l.listens(ctx, t, mutualPort, must(l.origin.Registry("mutual", fmt.Sprintf(`http:
  addr: "%v:%d"
  secret: none
  tls: {certificate: %s/server.pem, key: %[3]s/server.key, clientcas: [%[3]s/ca.pem]}`, l.origin.Host.Addr, mutualPort, dir)))(t))
	l.squid(ctx, t, dir)

	file := filepath.Join(dir, "shoal.yaml")
	check(t, os.WriteFile(file, fmt.Appendf(nil, `registry:
  mutual.example: {upstreams: ["https://%[1]v:%[2]d"], ca-file: %[3]s/ca.pem, client-cert: %[3]s/client.pem, client-key: %[3]s/client.key}
  strict.example: {upstreams: ["https://%[1]v:%[2]d"], ca-file: %[3]s/ca.pem}
  folder.example: {upstreams: ["%[4]s/v2/shoal"], proxy: none}
  inside.example: {upstreams: ["http://127.0.0.1:5001"], proxy: "http://%[1]v:%[5]d"}
  around.example: {upstreams: ["%[4]s"], proxy: none}
  picky.example: {upstreams: ["%[4]s"], deny: [shoal/image*]}
  through.example: {upstreams: ["%[4]s"]}
`, l.origin.Host.Addr, mutualPort, dir, l.origin.URL(), squidPort), 0o600))
	proxy := fmt.Sprintf("http://%v:%d", l.origin.Host.Addr, squidPort)
	t.Setenv("HTTP_PROXY", proxy) // of the nodes; what the test asks them is on loopback
	n := l.swarm(ctx, t, 1, "--config", file)[0]

	for name, ref := range map[string]string{
		"own CA and client certificate":        "mutual.example/" + img.Ref(),
		"in a folder":                          "folder.example/" + strings.TrimPrefix(img.Ref(), "shoal/"),
		"only the proxy reaches it":            "inside.example/" + img.Ref(),
		"around the proxy of the environment":  "around.example/" + img.Ref(),
		"through the proxy of the environment": "through.example/" + img.Ref(),
	} {
		t.Run(name, func(t *testing.T) {
			before := l.origin.Accesses()
			l.copies(ctx, t, n, ref)
			// Squid is on the origin's host and asks as that.
			for _, a := range l.origin.Accesses().Since(before) {
				if squid := strings.HasPrefix(ref, "through."); squid != (a.Client == l.origin.Host.Addr) {
					t.Errorf("asked by %v", a)
				}
			}
		})
	}
	for name, c := range map[string]struct{ path, why string }{
		"no client certificate": {"strict.example/" + img.Repository, "remote error: tls: "},
		"denied":                {"picky.example/" + img.Repository, `is covered by \"shoal/image*\" of deny`},
	} {
		t.Run(name, func(t *testing.T) {
			url := fmt.Sprintf("%s/v2/%s/manifests/%s", program.MirrorURL, c.path, img.Tag)
			status, _ := ask(ctx, t, n, http.MethodHead, url)
			if log := must(os.ReadFile(n.Process.LogFile))(t); status != http.StatusNotFound || !strings.Contains(string(log), c.why) {
				t.Errorf("answer %d, want 404 and a log that says %s", status, c.why)
			}
		})
	}
}

// listens waits until a process of the origin's host does so. It ends with the
// test.
func (l *lab) listens(ctx context.Context, t *testing.T, port uint16, p *testhost.Process) {
	t.Helper()
	listens(ctx, t, l.origin.Host, port, p)
}

// listens waits until a process of a host does so. It ends with the test.
func listens(ctx context.Context, t *testing.T, h *testhost.Host, port uint16, p *testhost.Process) {
	t.Helper()
	t.Cleanup(p.Kill)
	check(t, testhost.Until(ctx, 20*time.Second, func(ctx context.Context) error {
		select {
		case <-p.Ended():
			return fmt.Errorf("%s ended by itself: %w", p.Name, testhost.ErrGone)
		default:
		}
		conn, err := h.DialContext(ctx, "tcp", fmt.Sprintf("%v:%d", h.Addr, port))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}))
}

// squid starts a forward proxy on the origin's host.
func (l *lab) squid(ctx context.Context, t *testing.T, dir string) {
	t.Helper()
	config := filepath.Join(dir, "squid.conf")
	check(t, os.WriteFile(config, fmt.Appendf(nil, `http_port %v:%d
http_access allow all
cache deny all
pid_filename none
access_log none
cache_log /dev/null
cache_store_log none
pinger_enable off
netdb_filename none
`, l.origin.Host.Addr, squidPort), 0o644))
	p := must(l.origin.Host.Start("squid", testhost.Command{Path: must(testhost.Program("squid"))(t), Args: []string{"-N", "-d", "1", "-f", config}}))(t)
	l.listens(ctx, t, squidPort, p)
}

// newPKI makes a CA, which it returns, and certificates for a server at ip or
// public.example, and for a client, as NAME.pem and NAME.key in dir.
func newPKI(t *testing.T, dir string, ip net.IP) (ca *x509.Certificate, caKey *ecdsa.PrivateKey) {
	t.Helper()
	for i, name := range []string{"ca", "server", "client"} {
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
		cert := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), IPAddresses: []net.IP{ip}, DNSNames: []string{"public.example"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IsCA:        i == 0, BasicConstraintsValid: true,
		}
		if i == 0 {
			ca, caKey = cert, key
		}
		der := must(x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), caKey))(t)
		if i == 0 {
			ca = must(x509.ParseCertificate(der))(t)
		}
		secret := must(x509.MarshalPKCS8PrivateKey(key))(t)
		for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
			check(t, os.WriteFile(filepath.Join(dir, name+file), pem.EncodeToMemory(block), 0o600))
		}
	}
	return ca, caKey
}

package origin_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

func TestARegistryInAFolder(t *testing.T) {
	for _, base := range []string{"http://u.test/hub/mirror", "http://u.test/v2/hub/mirror/"} {
		inWorld(t, func(w *world) {
			t := w.t
			r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{}})
			d := r.AddBlob("hub/mirror/lib/x", []byte(data))
			c := w.client(origin.Options{Registries: origin.Registries{"r.test": {Upstreams: []string{base}}}})
			st, body, err := read(t.Context(), w.of(c, "r.test", "lib/x").Blobs(), d, whole)
			if err != nil || body != data || !strings.HasPrefix(st.Identity, "http://u.test/hub/mirror ") {
				t.Fatalf("got %q of %+v, %v", body, st, err)
			}
			var paths []string
			for _, q := range r.Requests() {
				paths = append(paths, q.Path+"?"+q.Query)
			}
			at := "/v2/hub/mirror/lib/x/blobs/" + d.Digest.String() + "?"
			if got, want := strings.Join(paths, "\n"), at+"\n/token?scope=repository%3Ahub%2Fmirror%2Flib%2Fx%3Apull&service=origintest\n"+at; got != want {
				t.Errorf("the upstream saw\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		allow, deny   []string
		yes, no       []string
		registry, why string
	}{
		{yes: []string{"a", "a/b/c"}},
		{deny: []string{"a"}, yes: []string{"b", "ab", "b/a"}, no: []string{"a", "a/b", "a/b/c"}, why: `r.test/a is covered by "a" of deny`},
		{deny: []string{"a/*", "*-x"}, yes: []string{"a", "x", "b/c-x"}, no: []string{"a/b", "a/b/c", "c-x", "c-x/d"}},
		{allow: []string{"library/*"}, yes: []string{"library/a", "library/a/b"}, no: []string{"library", "a", "team/library/a"}, why: `no pattern of allow covers r.test/library`},
		{allow: []string{"team"}, deny: []string{"team/secret"}, yes: []string{"team", "team/a"}, no: []string{"team/secret", "team/secret/a", "other"}},
		{allow: []string{"v[12]/?"}, yes: []string{"v1/a", "v2/b/c"}, no: []string{"v3/a", "v1/ab"}},
	} {
		c, err := origin.New(origin.Options{Registries: origin.Registries{"r.test": {Allow: tt.allow, Deny: tt.deny}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range tt.yes {
			if _, err := c.Repository("R.test", name); err != nil {
				t.Errorf("allow %q, deny %q: %s: %v", tt.allow, tt.deny, name, err)
			}
		}
		for i, name := range tt.no {
			_, err := c.Repository("r.test", name)
			if !errors.Is(err, origin.ErrRepositoryRefused) || !errors.Is(err, blob.ErrNotFound) || i == 0 && !strings.HasSuffix(err.Error(), tt.why) {
				t.Errorf("allow %q, deny %q: %s: error %v", tt.allow, tt.deny, name, err)
			}
		}
		if _, err := c.Repository("other.example", "a"); err != nil {
			t.Errorf("another registry: %v", err)
		}
	}
}

func TestNewRefusesSettings(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, r := range map[string]origin.Registry{
		"is no pattern of repositories":                     {Deny: []string{"a["}},
		"is no proxy":                                       {Proxy: "proxy"},
		"credentials do not belong here":                    {Proxy: "http://me:word@proxy"},
		"client-cert and client-key belong together":        {ClientCert: text},
		"client-cert and client-key: tls: failed":           {ClientCert: text, ClientKey: text},
		"ca-file: " + text + " holds no certificate in PEM": {CAFile: text},
		"ca-file: open /nowhere: no such file":              {CAFile: "/nowhere"},
	} {
		_, err := origin.New(origin.Options{Registries: origin.Registries{"r.test": r}})
		if err == nil || !strings.HasPrefix(err.Error(), "registry r.test: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "word") {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// authority is a CA that signs certificates for 127.0.0.1 and clients.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca")
	return a
}

// sign makes NAME.pem and NAME.key; the first certificate is the CA's own.
func (a *authority) sign(name string) (*x509.Certificate, ed25519.PrivateKey) {
	a.t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        a.cert == nil, BasicConstraintsValid: true,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(a.file(name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// serve starts a registry by HTTPS; ask is what it wants of clients.
func (a *authority) serve(r http.Handler, ask tls.ClientAuthType) *httptest.Server {
	a.t.Helper()
	a.sign("server")
	cert, err := tls.LoadX509KeyPair(a.file("server.pem"), a.file("server.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	s := httptest.NewUnstartedServer(r)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: ask, ClientCAs: pool}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s
}

func TestTLSOfARegistry(t *testing.T) {
	a := newAuthority(t)
	a.sign("client")
	r := origintest.New(origintest.Options{})
	d := r.AddBlob("lib/x", []byte(data))
	plain, mutual := a.serve(r, tls.NoClientCert), a.serve(r, tls.RequireAndVerifyClientCert)
	for name, tt := range map[string]struct {
		at   *httptest.Server
		r    origin.Registry
		fail string
	}{
		"unknown CA":                    {at: plain, fail: "certificate signed by unknown authority"},
		"own CA":                        {at: plain, r: origin.Registry{CAFile: a.file("ca.pem")}},
		"unverified":                    {at: plain, r: origin.Registry{InsecureSkipVerify: true}},
		"without a client certificate":  {at: mutual, r: origin.Registry{CAFile: a.file("ca.pem")}, fail: "certificate required"},
		"with a client certificate":     {at: mutual, r: origin.Registry{CAFile: a.file("ca.pem"), ClientCert: a.file("client.pem"), ClientKey: a.file("client.key")}},
		"a client certificate for none": {at: plain, r: origin.Registry{CAFile: a.file("ca.pem"), ClientCert: a.file("client.pem"), ClientKey: a.file("client.key")}},
	} {
		t.Run(name, func(t *testing.T) {
			var log syncBuffer
			tt.r.Upstreams = []string{tt.at.URL}
			c := newClient(t, origin.Options{Registries: origin.Registries{"r.test": tt.r}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			_, body, err := read(t.Context(), repository(t, c).Blobs(), d, whole)
			if tt.fail == "" && (err != nil || body != data) || tt.fail != "" && (err == nil || !strings.Contains(err.Error(), tt.fail)) {
				t.Errorf("got %q, %v", body, err)
			}
			if warned := strings.Contains(log.String(), "insecure-skip-verify"); warned != tt.r.InsecureSkipVerify {
				t.Errorf("log:\n%s", log.String())
			}
		})
	}
}

func newClient(t *testing.T, o origin.Options) *origin.Client {
	t.Helper()
	c, err := origin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func repository(t *testing.T, c *origin.Client) *origin.Repository {
	t.Helper()
	r, err := c.Repository("r.test", "lib/x")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestARenewedClientCertificate: the files are read for each connection.
func TestARenewedClientCertificate(t *testing.T) {
	a := newAuthority(t)
	old, _ := a.sign("client")
	var shown []*big.Int
	r := origintest.New(origintest.Options{})
	d := r.AddBlob("lib/x", []byte(data))
	s := a.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		shown = append(shown, req.TLS.PeerCertificates[0].SerialNumber)
		w.Header().Set("Connection", "close")
		r.ServeHTTP(w, req)
	}), tls.RequireAndVerifyClientCert)
	repo := repository(t, newClient(t, origin.Options{Registries: origin.Registries{"r.test": {
		Upstreams: []string{s.URL}, CAFile: a.file("ca.pem"), ClientCert: a.file("client.pem"), ClientKey: a.file("client.key"),
	}}}))
	pull := func() {
		t.Helper()
		if _, _, err := read(t.Context(), repo.Blobs(), d, whole); err != nil {
			t.Fatal(err)
		}
	}
	pull()
	renewed, _ := a.sign("client")
	pull()
	if len(shown) != 2 || shown[0].Cmp(old.SerialNumber) != 0 || shown[1].Cmp(renewed.SerialNumber) != 0 {
		t.Errorf("certificates %v were shown, want %v and %v", shown, old.SerialNumber, renewed.SerialNumber)
	}
}

// TestWhereARegistryLeadsTo: a host that it redirects to sees no client
// certificate and is verified, whatever is set.
func TestWhereARegistryLeadsTo(t *testing.T) {
	a := newAuthority(t)
	a.sign("client")
	shown := -1
	d := origintest.New(origintest.Options{}).AddBlob("lib/x", []byte(data))
	away := a.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		shown = len(req.TLS.PeerCertificates)
		_, _ = w.Write([]byte(data))
	}), tls.RequestClientCert)
	own := a.serve(http.RedirectHandler(away.URL+"/there", http.StatusTemporaryRedirect), tls.RequireAnyClientCert)
	r := origin.Registry{Upstreams: []string{own.URL}, ClientCert: a.file("client.pem"), ClientKey: a.file("client.key"), InsecureSkipVerify: true}
	_, _, err := read(t.Context(), repository(t, newClient(t, origin.Options{Registries: origin.Registries{"r.test": r}})).Blobs(), d, whole)
	if err == nil || !strings.Contains(err.Error(), "by way of") || !strings.Contains(err.Error(), "unknown authority") || shown != -1 {
		t.Errorf("unverified host: error %v, %d certificates shown", err, shown)
	}
	r.CAFile = a.file("ca.pem")
	if _, body, err := read(t.Context(), repository(t, newClient(t, origin.Options{Registries: origin.Registries{"r.test": r}})).Blobs(), d, whole); err != nil || body != data || shown != 0 {
		t.Errorf("verified host: %q, %v, %d certificates shown", body, err, shown)
	}
}

func TestProxies(t *testing.T) {
	toward := func(host string) func(*http.Request) (*url.URL, error) {
		return func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: host}, nil }
	}
	for name, tt := range map[string]struct {
		environment string
		proxy       string
		asked       string
	}{
		"direct":           {asked: "u.test"},
		"environment":      {environment: "env.test", asked: "env.test"},
		"of the registry":  {environment: "env.test", proxy: "http://own.test", asked: "own.test"},
		"none, explicitly": {environment: "env.test", proxy: origin.ProxyNone, asked: "u.test"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				hosts := map[string]*origintest.Registry{}
				var d blob.Descriptor
				for _, h := range []string{"u.test", "env.test", "own.test"} {
					// A registry stands for a proxy of plain HTTP: what it is
					// asked has the path of the registry behind it.
					hosts[h] = w.registry(h+":80", origintest.Options{})
					d = hosts[h].AddBlob("lib/x", []byte(data))
				}
				o := origin.Options{Registries: origin.Registries{"r.test": {Upstreams: []string{"http://u.test"}, Proxy: tt.proxy}}}
				if tt.environment != "" {
					o.Proxy = toward(tt.environment)
				}
				if _, _, err := read(t.Context(), w.of(w.client(o), "r.test", "lib/x").Blobs(), d, whole); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for h, r := range hosts {
					if n := len(r.Requests()); (n == 1) != (h == tt.asked) {
						t.Errorf("%s was asked %d times", h, n)
					}
				}
			})
		})
	}
}

// TestAnUnlistedRegistryThroughAProxy: the proxy is the operator's, so that it
// may be inside; what it is asked for is a public name and the port of HTTPS.
func TestAnUnlistedRegistryThroughAProxy(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		tunnels := make(chan string, 10)
		w.handle("10.0.0.9:3128", func(rw http.ResponseWriter, req *http.Request) {
			tunnels <- req.Method + " " + req.Host
			rw.WriteHeader(http.StatusForbidden)
		})
		c := w.client(origin.Options{Proxy: func(*http.Request) (*url.URL, error) {
			return &url.URL{Scheme: "http", Host: "10.0.0.9:3128"}, nil
		}})
		_, _, err := read(t.Context(), w.of(c, "reg.pub.com", "lib/x").Blobs(), blob.Descriptor{Digest: digest.FromString("x")}, whole)
		if !errors.Is(err, blob.ErrUnavailable) || !strings.Contains(err.Error(), "Forbidden") {
			t.Errorf("error %v", err)
		}
		if got := <-tunnels; got != "CONNECT reg.pub.com:443" {
			t.Errorf("the proxy was asked for %q", got)
		}
		if _, err := c.Repository("intranet", "lib/x"); !errors.Is(err, origin.ErrRegistryRefused) {
			t.Errorf("error %v", err)
		}
	})
}

//go:build linux

// Package program starts the real programs of the end-to-end tests and
// benchmarks on hosts of package testhost: Debian's docker-registry as the
// origin, dockerd, and shoal itself. It also makes the images that travel
// between them, and keeps the books on what leaves the origin.
//
// It knows no test: errors are returned, and what a right outcome is, the
// caller decides. It imports nothing of shoal but talks to the program as its
// users do.
//
// Every process belongs to its host and ends with it.
package program

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shoal/cmd/shoal/e2e/testhost"
)

// HubName is the name under which dockerd knows the registry behind docker.io.
// It is contacted when no mirror serves.
const HubName = "registry-1.docker.io"

// Ports of the origin.
const (
	originPort   = 5000 // plain HTTP, for shoal
	hubPort      = 443  // TLS, for clients which take it for Docker Hub
	registryPort = 5001 // docker-registry itself, on the origin's loopback only
)

// Origin is a docker-registry behind a front that counts what leaves it. It
// answers on plain HTTP, and with TLS as Docker Hub (HubName), for clients that
// trust its CA.
type Origin struct {
	Host *testhost.Host
	// CA is a file with the one certificate to trust for HubName.
	CA string

	certificate tls.Certificate
	backend     *testhost.Process
	servers     []*http.Server
	noRange     atomic.Bool

	mu       sync.Mutex
	accesses []*Access
}

// Access is one request that the origin saw.
type Access struct {
	Client netip.Addr // of the host that asked
	Hub    bool       // asked for as HubName, over TLS
	Method string
	Path   string // starts with /v2/
	Range  string // the header, if there was one

	status atomic.Int32
	bytes  atomic.Int64
}

// Bytes returns how much of the body has left so far.
func (a *Access) Bytes() int64 { return a.bytes.Load() }

// String returns the access in one line, for messages of tests.
func (a *Access) String() string {
	by := ""
	if a.Hub {
		by = " as " + HubName
	}
	return fmt.Sprintf("%v%s: %s %s %s -> %d, %d bytes", a.Client, by, a.Method, a.Path, a.Range, a.status.Load(), a.Bytes())
}

// StartOrigin starts the origin on h.
func StartOrigin(ctx context.Context, h *testhost.Host) (*Origin, error) {
	o := &Origin{Host: h, CA: filepath.Join(h.Dir, "ca.pem")}
	if err := o.makeCertificate(); err != nil {
		return nil, fmt.Errorf("origin's certificate: %w", err)
	}
	return o, o.SwitchOn(ctx)
}

// Registry starts a docker-registry on the origin's host, over its content.
// settings are the lines of its configuration that are not about content and
// log.
func (o *Origin) Registry(name, settings string) (*testhost.Process, error) {
	path, err := testhost.Program("docker-registry")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(o.Host.Dir, name+".yml")
	text := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s}}
%s
`, o.Storage(), settings)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return o.Host.Start(name, testhost.Command{Path: path, Args: []string{"serve", config}})
}

// Storage is the folder with the content of the registry.
func (o *Origin) Storage() string { return filepath.Join(o.Host.Dir, "registry") }

// URL is what shoal is told as the upstream of docker.io.
func (o *Origin) URL() string { return fmt.Sprintf("http://%s:%d", o.Host.Addr, originPort) }

// Backend is the URL of the registry itself, past the counting front, for
// clients on its host.
func (o *Origin) Backend() string { return fmt.Sprintf("http://127.0.0.1:%d", registryPort) }

// SwitchOn starts the registry and its front.
func (o *Origin) SwitchOn(ctx context.Context) error {
	var err error
	o.backend, err = o.Registry("docker-registry", fmt.Sprintf(`http: {addr: "127.0.0.1:%d", secret: none}`, registryPort))
	if err != nil {
		return err
	}
	backend := &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", registryPort)}
	if err := AwaitOK(ctx, o.Host, o.backend, backend.String()+"/v2/", 10*time.Second); err != nil {
		return err
	}
	front := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(backend); r.Out.Host = r.In.Host },
		Transport: &http.Transport{DialContext: o.Host.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 64},
		ErrorLog:  log.New(nowhere{}, "", 0), // clients that leave are part of the tests
	}
	for _, port := range []uint16{originPort, hubPort} {
		l, err := o.Host.Listen(ctx, o.Host.Addr, port)
		if err != nil {
			return err
		}
		if port == hubPort {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{o.certificate}})
		}
		server := &http.Server{Handler: o.count(front), ErrorLog: front.ErrorLog}
		o.servers = append(o.servers, server)
		go func() { _ = server.Serve(l) }() // ends by SwitchOff
	}
	return nil
}

// SwitchOff ends the registry and its front; connections to it are refused
// from then on.
func (o *Origin) SwitchOff() error {
	var errs []error
	for _, server := range o.servers {
		errs = append(errs, server.Close())
	}
	o.servers = nil
	o.backend.Kill()
	return errors.Join(errs...)
}

// IgnoreRange makes the origin answer with the whole blob whatever range it is
// asked for, as some registries do, until it is told otherwise.
func (o *Origin) IgnoreRange(yes bool) { o.noRange.Store(yes) }

// count lets next answer, and notes what it answered.
func (o *Origin) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			panic(err) // net/http sets it for TCP
		}
		a := &Access{Client: client.Addr(), Hub: r.TLS != nil, Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range")}
		o.mu.Lock()
		o.accesses = append(o.accesses, a)
		o.mu.Unlock()
		if o.noRange.Load() {
			r.Header.Del("Range")
		}
		next.ServeHTTP(&countingWriter{ResponseWriter: w, access: a}, r)
	})
}

// Accesses returns all requests since the origin was started, in the order of
// their arrival.
func (o *Origin) Accesses() Accesses {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.accesses)
}

// Accesses are requests that the origin saw.
type Accesses []*Access

// Since returns the accesses behind earlier ones of the same origin.
func (as Accesses) Since(earlier Accesses) Accesses { return as[len(earlier):] }

// Where returns the accesses for which keep holds.
func (as Accesses) Where(keep func(*Access) bool) Accesses {
	var kept Accesses
	for _, a := range as {
		if keep(a) {
			kept = append(kept, a)
		}
	}
	return kept
}

// Gets returns the GET requests for paths that end in suffix.
func (as Accesses) Gets(suffix string) Accesses {
	return as.Where(func(a *Access) bool { return a.Method == http.MethodGet && strings.HasSuffix(a.Path, suffix) })
}

// Blobs returns the GET requests for blobs: configs and layers.
func (as Accesses) Blobs() Accesses {
	return as.Where(func(a *Access) bool { return a.Method == http.MethodGet && strings.Contains(a.Path, "/blobs/") })
}

// Bytes returns the sum of the bytes of the bodies.
func (as Accesses) Bytes() int64 {
	var sum int64
	for _, a := range as {
		sum += a.Bytes()
	}
	return sum
}

// String returns one line for each access.
func (as Accesses) String() string {
	lines := make([]string, len(as))
	for i, a := range as {
		lines[i] = a.String()
	}
	return strings.Join(lines, "\n")
}

// countingWriter notes status and body bytes of an answer.
type countingWriter struct {
	http.ResponseWriter
	access *Access
}

func (w *countingWriter) WriteHeader(status int) {
	w.access.status.Store(int32(status))
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.access.bytes.Add(int64(n))
	return n, err
}

// Unwrap lets http.ResponseController reach what this one does not have.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// nowhere takes and forgets.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// makeCertificate makes a self-signed certificate for HubName, which serves
// as its own CA.
func (o *Origin) makeCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		DNSNames:              []string{HubName},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	o.certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return os.WriteFile(o.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// AwaitOK waits until a GET of url on h is answered with 200, or p ends.
func AwaitOK(ctx context.Context, h *testhost.Host, p *testhost.Process, url string, deadline time.Duration) error {
	client := h.Client(time.Second)
	return testhost.Until(ctx, deadline, func(ctx context.Context) error {
		select {
		case <-p.Ended():
			return fmt.Errorf("%s on %s ended by itself: %w", p.Name, h.Name, testhost.ErrGone)
		default:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close() // only the status matters
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s", url, resp.Status)
		}
		return nil
	})
}

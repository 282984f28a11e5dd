package origin_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an internet within a synctest bubble: registries at addresses,
// names that resolve to addresses, and nothing else.
type world struct {
	t       *testing.T
	pool    *x509.CertPool
	key     ed25519.PrivateKey
	log     syncBuffer
	metrics *prometheus.Registry
	dialled atomic.Int64 // connections
	open    atomic.Int64 // of these
	closers []func()

	mu    sync.Mutex
	pipes map[string]*origintest.Pipe // by "host:port" as it is dialled
	names map[string][]netip.Addr
	down  map[string]func(context.Context) error // addresses that cannot be dialled
}

// inWorld runs f in a bubble of its own.
func inWorld(t *testing.T, f func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t:       t,
			pool:    x509.NewCertPool(),
			key:     ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
			metrics: prometheus.NewRegistry(),
			pipes:   map[string]*origintest.Pipe{},
			names:   map[string][]netip.Addr{},
		}
		defer func() {
			for _, c := range slices.Backward(w.closers) {
				c()
			}
		}()
		f(w)
	})
}

// registry serves a registry by plain HTTP at addr, "host:port".
func (w *world) registry(addr string, o origintest.Options) *origintest.Registry {
	r := origintest.New(o)
	w.serve(addr, r, func(l net.Listener) net.Listener { return l })
	return r
}

// secure serves a registry by HTTPS under that name, which resolves to ip.
func (w *world) secure(name, ip string, o origintest.Options) *origintest.Registry {
	r := origintest.New(o)
	w.resolve(name, ip)
	cert := w.certificate(name)
	listen := func(l net.Listener) net.Listener {
		return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	w.serve(net.JoinHostPort(ip, "443"), r, listen)
	w.serve(net.JoinHostPort(name, "443"), r, listen)
	return r
}

func (w *world) serve(addr string, r *origintest.Registry, listen func(net.Listener) net.Listener) {
	pipe := origintest.NewPipe()
	s := origintest.Serve(listen(pipe), r)
	w.closers = append(w.closers, func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pipes[addr] = pipe
}

// handle serves something else than a registry at addr.
func (w *world) handle(addr string, f http.HandlerFunc) {
	pipe, server := origintest.NewPipe(), &http.Server{Handler: f}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(pipe)
	}()
	w.closers = append(w.closers, func() {
		_ = server.Close()
		<-done
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pipes[addr] = pipe
}

// pass lets d go by on the bubble's clock.
func (w *world) pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // within a synctest bubble nobody waits
}

// alias lets addr lead where to does.
func (w *world) alias(addr, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pipes[addr] = w.pipes[to]
}

func (w *world) resolve(name string, ips ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[name] = nil
	for _, ip := range ips {
		w.names[name] = append(w.names[name], netip.MustParseAddr(ip))
	}
}

// certificate returns a self-signed certificate that the world's clients
// trust.
func (w *world) certificate(name string) tls.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(nil, template, template, w.key.Public(), w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	w.pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: w.key}
}

// client returns a client of this world. o.Registries may be nil.
func (w *world) client(o origin.Options) *origin.Client {
	w.t.Helper()
	o.Dial, o.Resolver, o.Metrics = w.dial, w, w.metrics
	o.TLS = &tls.Config{RootCAs: w.pool}
	if o.Proxy == nil {
		o.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	}
	o.Logger = slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c, err := origin.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.closers = append(w.closers, c.Close)
	return c
}

// repository returns "lib/x" of the registry "r.test", which has the upstreams
// http://HOST.
func (w *world) repository(hosts ...string) *origin.Repository {
	w.t.Helper()
	var bases []string
	for _, h := range hosts {
		bases = append(bases, "http://"+h)
	}
	c := w.client(origin.Options{Registries: origin.Registries{"r.test": {Upstreams: bases}}})
	return w.of(c, "r.test", "lib/x")
}

func (w *world) of(c *origin.Client, registry, name string) *origin.Repository {
	w.t.Helper()
	r, err := c.Repository(registry, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	pipe, down := w.pipes[addr], w.down[addr]
	w.mu.Unlock()
	if down != nil {
		return nil, down(ctx)
	}
	if pipe == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	conn, err := pipe.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.dialled.Add(1)
	w.open.Add(1)
	return &countedConn{Conn: conn, open: &w.open}, nil
}

// LookupNetIP is of origin.Resolver.
func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ips := w.names[host]; len(ips) > 0 {
		return slices.Clone(ips), nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// requests returns the metric shoal_upstream_requests_total as
// "REGISTRY METHOD KIND CODE: N", sorted.
func (w *world) requests() []string {
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() != "shoal_upstream_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			l := map[string]string{}
			for _, pair := range m.GetLabel() {
				l[pair.GetName()] = pair.GetValue()
			}
			out = append(out, fmt.Sprintf("%s %s %s %s: %v", l["registry"], l["method"], l["kind"], l["code"], m.GetCounter().GetValue()))
		}
	}
	slices.Sort(out)
	return out
}

type countedConn struct {
	net.Conn
	once sync.Once
	open *atomic.Int64
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// wantLines compares what a registry saw; in want, D stands for digest.
func wantLines(t *testing.T, r *origintest.Registry, digest string, want ...string) {
	t.Helper()
	synctest.Wait()
	got := r.Lines()
	for i := range got {
		got[i] = strings.ReplaceAll(got[i], digest, "D")
	}
	if !slices.Equal(got, want) {
		t.Errorf("the upstream saw\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

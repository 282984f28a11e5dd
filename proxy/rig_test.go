package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
	"shoal/proxy/pull"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a proxy between a client and an origin, in a synctest bubble: pipes
// instead of a network, so that time passes only while everybody waits.
type rig struct {
	t       *testing.T
	hub     *origintest.Registry // docker.io
	other   *origintest.Registry // other.example
	dir     string
	cache   *blobcache.Cache
	swarm   *direct
	proxy   *Proxy
	metrics *prometheus.Registry
	log     *logBuffer
	client  *http.Client
	dial    func(context.Context, string, string) (io.ReadWriteCloser, error)
}

// options of a rig; the zero value is a healthy one.
type options struct {
	budget  int64
	largest int64 // of manifests
	auth    *origintest.TokenAuth
	fetcher Fetcher // instead of rig.swarm
	run     bool    // prefetch too
	hub     origin.Registry
	clients *clients
	pulls   *pull.Recorder
}

// bubble runs test with a rig.
func bubble(t *testing.T, o options, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newRig(t, o)) })
}

func newRig(t *testing.T, o options) *rig {
	t.Helper()
	r := &rig{
		t:       t,
		hub:     origintest.New(origintest.Options{Auth: o.auth}),
		other:   origintest.New(origintest.Options{Auth: o.auth}),
		metrics: prometheus.NewRegistry(),
		log:     &logBuffer{},
	}
	logger := slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	r.dir = t.TempDir()
	if r.cache, err = blobcache.Open(r.dir, blobcache.Options{Budget: o.budget}); err != nil {
		t.Fatal(err)
	}
	r.swarm = &direct{cache: r.cache}
	upstreams := map[string]*origintest.Pipe{"hub.test:80": r.serve(r.hub), "other.test:80": r.serve(r.other)}
	o.hub.Upstreams = []string{"http://hub.test"}
	upstream := origin.Options{
		Registries: origin.Registries{"docker.io": o.hub, "other.example": {Upstreams: []string{"http://other.test"}, Deny: []string{"team/secret-*"}}},
		Dial:       dialer(upstreams), MaxManifest: o.largest,
	}
	if o.clients != nil {
		o.clients.declare(r, &upstream, upstreams)
	}
	client, err := origin.New(upstream)
	if err != nil {
		t.Fatal(err)
	}
	fetcher := o.fetcher
	if fetcher == nil {
		fetcher = r.swarm
	}
	r.proxy, err = New(Options{Cache: r.cache, Fetcher: fetcher, Origin: client, MaxManifest: o.largest, Logger: logger, Metrics: r.metrics, Pulls: o.pulls})
	if err != nil {
		t.Fatal(err)
	}
	front := origintest.NewPipe()
	server := r.proxy.Server()
	transport := &http.Transport{DialContext: front.DialContext, DisableCompression: true}
	r.client = &http.Client{Transport: transport}
	r.dial = func(ctx context.Context, network, addr string) (io.ReadWriteCloser, error) {
		return front.DialContext(ctx, network, addr)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(front) })
	ctx, stop := context.WithCancel(context.Background())
	if o.run {
		running.Go(func() { _ = r.proxy.Run(ctx) })
	}
	t.Cleanup(func() {
		stop()
		transport.CloseIdleConnections()
		_ = server.Close()
		running.Wait()
		sleep(time.Second) // net/http lingers on connections that it has cut
		r.swarm.stop()
		if err := r.cache.Close(); err != nil {
			t.Error(err)
		}
		client.Close()
	})
	return r
}

// serve lets a registry answer on a pipe until the test ends.
func (r *rig) serve(registry *origintest.Registry) *origintest.Pipe {
	pipe := origintest.NewPipe()
	server := origintest.Serve(pipe, registry)
	r.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return pipe
}

func dialer(pipes map[string]*origintest.Pipe) origin.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		pipe, ok := pipes[addr]
		if !ok {
			return nil, fmt.Errorf("nothing listens at %s", addr)
		}
		return pipe.DialContext(ctx, network, addr)
	}
}

// answer is a response with its body.
type answer struct {
	*http.Response
	body []byte
	err  error // of reading the body: nil is a clean end
	took time.Duration
}

// do sends a request; headers are "Key: value".
func (r *rig) do(method, path string, headers ...string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://mirror"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range headers {
		key, value, _ := strings.Cut(h, ": ")
		req.Header.Add(key, value)
	}
	start := time.Now()
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, body, err, time.Since(start)}
}

func (r *rig) get(path string, headers ...string) answer {
	r.t.Helper()
	return r.do(http.MethodGet, path, headers...)
}

// asked fails unless exactly those requests reached an upstream since the last
// time, in any order.
func (r *rig) asked(registry *origintest.Registry, want ...string) {
	r.t.Helper()
	got := registry.Lines()
	registry.ResetStats()
	count := map[string]int{}
	for _, line := range got {
		count[line]++
	}
	for _, line := range want {
		count[line]--
	}
	for _, n := range count {
		if n != 0 {
			r.t.Errorf("the upstream saw\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			return
		}
	}
}

// wants fails unless a is a clean answer with that status and body.
func (a answer) wants(t *testing.T, status int, body []byte) {
	t.Helper()
	if a.StatusCode != status || a.err != nil || !bytes.Equal(a.body, body) {
		t.Errorf("status %d, %d bytes, %v; want %d, %d bytes", a.StatusCode, len(a.body), a.err, status, len(body))
	}
}

// refused fails unless a is an error document with that status and code.
func (a answer) refused(t *testing.T, status int, code string) {
	t.Helper()
	if a.StatusCode != status || !strings.Contains(string(a.body), `"code":"`+code+`"`) ||
		a.Header.Get("Content-Type") != "application/json" || a.err != nil {
		t.Errorf("status %d, %.200q, %v; want %d with %s", a.StatusCode, a.body, a.err, status, code)
	}
}

// logged tells how many log lines contain s. It is called, as counter and labelled
// are, by nobody else at the same time: the last lines and counts of an answer may
// come after its last byte.
func (r *rig) logged(s string) int {
	synctest.Wait()
	n := 0
	for line := range strings.Lines(r.log.String()) {
		if strings.Contains(line, s) {
			n++
		}
	}
	return n
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// counter returns the sum of a counter over its labels.
func (r *rig) counter(name string) float64 {
	r.t.Helper()
	synctest.Wait()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// labelled returns a counter by the value of its only label.
func (r *rig) labelled(name, value string) float64 {
	r.t.Helper()
	synctest.Wait()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == value {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// open starts a GET and returns when the headers are there.
func (r *rig) open(path string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://mirror"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// damage flips a bit of a cached blob on disk.
func (r *rig) damage(b thing) {
	r.t.Helper()
	wrong := bytes.Clone(b.bytes)
	wrong[len(wrong)/2] ^= 1
	if err := os.WriteFile(filepath.Join(r.dir, "blobs", "sha256", b.Digest.Encoded()), wrong, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// descriptorOf describes data.
func descriptorOf(data []byte) blob.Descriptor {
	return blob.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// sleep lets d pass.
func sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // within a synctest bubble nobody waits
}

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"shoal/blobcache/blob"
	"shoal/cmd/shoal/internal/config"
	"shoal/cmd/shoal/internal/runfile"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// gate is a registry whose bodies stop after some bytes until it is opened.
type gate struct {
	registry *origintest.Registry
	after    int
	open     chan struct{}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.registry.ServeHTTP(&gated{ResponseWriter: w, gate: g, ctx: r.Context(), left: g.after}, r)
}

type gated struct {
	http.ResponseWriter
	*gate
	ctx  context.Context
	left int
}

func (w *gated) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *gated) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
			return 0, err
		}
		select {
		case <-w.open:
		case <-w.ctx.Done():
		}
	}
	return w.ResponseWriter.Write(p)
}

// fixture is a running service in front of a gated registry with one blob.
type fixture struct {
	*service
	blob        blob.Descriptor
	openGate    func()
	stop, hurry context.CancelFunc
	ended       chan error
}

func start(t *testing.T) *fixture {
	t.Helper()
	g := &gate{registry: origintest.New(origintest.Options{}), after: 2_500_000, open: make(chan struct{})}
	f := &fixture{
		blob:     g.registry.AddBlob("a/b", make([]byte, 4_000_000)),
		openGate: sync.OnceFunc(func() { close(g.open) }),
		ended:    make(chan error, 1),
	}
	upstream := httptest.NewServer(g)
	t.Cleanup(upstream.Close)
	t.Cleanup(f.openGate)
	var err error
	f.service, err = newService(t.Context(), config.Config{
		DataDir: t.TempDir(), Mirror: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Swarm:      []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")},
		Registries: origin.Registries{"docker.io": {Upstreams: []string{upstream.URL}}},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var stop, hurry context.Context
	stop, f.stop = context.WithCancel(t.Context())
	hurry, f.hurry = context.WithCancel(t.Context())
	go func() { f.ended <- f.run(stop, hurry) }()
	return f
}

// download starts a pull of the blob and returns it after its first byte.
func (f *fixture) download(t *testing.T) io.ReadCloser {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + f.mirror.addr() + "/v2/a/b/blobs/" + f.blob.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("first byte: %s, %v", resp.Status, err)
	}
	return resp.Body
}

func (f *fixture) readyz() string {
	code, body, err := get("http://" + f.admin.addr() + "/readyz")
	if err != nil {
		return err.Error()
	}
	return http.StatusText(code) + ": " + strings.TrimSpace(string(body))
}

// until polls cond.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func TestFirstSignalLetsDownloadsEnd(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { // after those of start
		http.DefaultClient.CloseIdleConnections()
		goleak.VerifyNone(t, before)
	})
	f := start(t)
	until(t, "ready", func() bool { return f.readyz() == "OK: ready" })
	body := f.download(t)
	defer body.Close()
	f.stop()
	until(t, "stopping", func() bool { return f.readyz() == "Service Unavailable: stopping" })
	until(t, "no new connections", func() bool {
		_, _, err := get("http://" + f.mirror.addr() + "/v2/")
		return err != nil
	})
	select {
	case err := <-f.ended:
		t.Fatalf("ended while a download was running: %v", err)
	default:
	}
	f.openGate()
	hash := sha256.New()
	hash.Write(make([]byte, 1)) // the byte that was read
	if n, err := io.Copy(hash, body); err != nil || n != f.blob.Size-1 || [sha256.Size]byte(hash.Sum(nil)) != f.blob.Hash() {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if err := <-f.ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if _, err := runfile.Read(f.cfg.DataDir); err == nil {
		t.Error("listen.json was left behind")
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	f := start(t)
	body := f.download(t)
	defer body.Close()
	f.stop()
	until(t, "stopping", func() bool { return f.readyz() == "Service Unavailable: stopping" })
	f.hurry()
	select {
	case err := <-f.ended:
		if !errors.Is(err, errHurried) {
			t.Errorf("run: %v", err)
		}
	case <-time.After(drainPatience / 2): // it takes milliseconds
		t.Fatal("the download was waited for")
	}
	if n, err := io.Copy(io.Discard, body); err == nil {
		t.Errorf("the body ended cleanly after %d more bytes", n)
	}
}

func TestAPartThatFailsStopsTheRest(t *testing.T) {
	f := start(t)
	until(t, "ready", func() bool { return f.readyz() == "OK: ready" })
	if err := f.admin.listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-f.ended; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("run: %v", err)
	}
	if _, _, err := get("http://" + f.mirror.addr() + "/v2/"); err == nil {
		t.Error("the mirror still answers")
	}
}

func TestLasting(t *testing.T) {
	broken := errors.New("broken")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		want string
	}{
		{t.Context(), nil, "x: ended by itself"},
		{t.Context(), broken, "x: broken"},
		{ended, nil, ""},
		{ended, context.Canceled, ""},
		{ended, broken, "x: broken"},
	} {
		got := ""
		if err := lasting(tt.ctx, "x", func(context.Context) error { return tt.err }); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("ended %v, returns %v: %q, want %q", tt.ctx.Err() != nil, tt.err, got, tt.want)
		}
	}
}

package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shoal/proxy/origin/origintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small starts a registry with a small image.
func small(t *testing.T) (*origintest.Server, *origintest.Added) {
	t.Helper()
	s := origintest.Start(t, origintest.Options{})
	return s, s.Registry.AddImage(repository, tag, origintest.Image{Seed: 7, Layers: origintest.Layers(3000, 50_000, 4000, 5000)})
}

func TestClientPullsAndCounts(t *testing.T) {
	s, image := small(t)
	want := image.Platform("linux/arm64")
	c := newClient(s.URL)
	if err := c.pull(t.Context(), image.Index.Digest, want); err != nil {
		t.Fatal(err)
	}
	if got, all := c.read.Load(), image.Index.Size+want.Bytes(); got != all || c.blobs != 7 || c.elapsed <= 0 {
		t.Errorf("read %d of %d bytes, %d digests in %s", got, all, c.blobs, c.elapsed)
	}
	if left := s.Registry.Stats().BodyBytes; left != c.read.Load() {
		t.Errorf("the origin sent %d bytes, the client counted %d", left, c.read.Load())
	}
}

func TestClientFindsEveryWrongByte(t *testing.T) {
	s, image := small(t)
	p := image.Platform("linux/amd64")
	for _, d := range []string{p.Layers[1].Digest.String(), p.Config.Digest.String(), p.Manifest.Digest.String(), tag} {
		s.Registry.ClearFaults()
		s.Registry.Fault(origintest.Fault{Ref: d, Effect: origintest.Corrupt(9)})
		if err := newClient(s.URL).pull(t.Context(), image.Index.Digest, p); !errors.Is(err, ErrWrongDigest) {
			t.Errorf("%s altered: %v", d, err)
		}
	}
	s.Registry.ClearFaults()
	s.Registry.Fault(origintest.Fault{Ref: p.Layers[1].Digest.String(), Effect: origintest.CloseEarly(100)})
	if err := newClient(s.URL).pull(t.Context(), image.Index.Digest, p); err == nil {
		t.Error("a body that ended early was accepted")
	}
	s.Registry.ClearFaults()
	s.Registry.Remove(p.Layers[0].Digest)
	if err := newClient(s.URL).pull(t.Context(), image.Index.Digest, p); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("missing layer: %v", err)
	}
}

func TestOriginTellsListenersApart(t *testing.T) {
	o, image, err := startOrigin(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := o.close(); err != nil {
			t.Error(err)
		}
	}()
	var sizes int64
	for _, l := range image.Platforms[0].Layers {
		sizes += l.Size
	}
	if sizes != 67_000_000 || len(image.Platforms) != 2 || len(image.Platforms[0].Layers) != 5 {
		t.Errorf("%d bytes in %d layers of %d platforms", sizes, len(image.Platforms[0].Layers), len(image.Platforms))
	}
	c := newClient(o.url(1))
	if err := c.document(t.Context(), "manifests/"+tag, image.Index.Digest, new(any)); err != nil {
		t.Fatal(err)
	}
	c.http.CloseIdleConnections()
	if sent := o.sentAll(); sent[0] != 0 || sent[1] != image.Index.Size {
		t.Errorf("sent %v, want 0 and %d", sent, image.Index.Size)
	}
}

func TestReport(t *testing.T) {
	r := report{
		imageBytes: 100_000_000, direct: 4 * time.Second, makespan: 1500 * time.Millisecond, seeded: 100_000_000,
		rows: []row{
			{name: "node 1", took: 500 * time.Millisecond, read: 100_000_000, origin: 0, blobs: 8, seeded: true},
			{name: "node 2", took: 1500 * time.Millisecond, read: 100_000_000, origin: 30_000_000, blobs: 8},
			{name: "node 3", took: 1250 * time.Millisecond, read: 100_000_000, origin: 110_000_000, blobs: 8},
		},
	}
	got := strings.Fields(r.String())
	want := strings.Fields(`
  node     time   from origin   from peers   from own cache   digests right
node 1   0.50 s        0.0 MB       0.0 MB         100.0 MB               8
node 2   1.50 s       30.0 MB      70.0 MB           0.0 MB               8
node 3   1.25 s      110.0 MB       0.0 MB           0.0 MB               8

Makespan 1.50 s. The bound for a swarm with nothing at hand is 4.00 s: the image once over the origin's
uplink, which gave 200.0 Mbit/s of 200. Without a swarm, 3 pulls over it take 12.00 s.
Copies of the image that left the origin: 1.00 to seed node 1, 1.40 in the common pull (without a swarm: 3).`)
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got:\n%s", r)
	}
}

func TestProgress(t *testing.T) {
	c := newClient("")
	c.read.Store(50)
	var plain, terminal bytes.Buffer
	newProgress(&plain, false, []string{"node 1", "node 2"}, []*client{c, newClient("")}, 100).stop()
	if got, want := plain.String(), "   node 1  50 %   node 2   0 %\n\n"; got != want {
		t.Errorf("plain %q, want %q", got, want)
	}
	p := progress{out: &terminal, terminal: true, names: []string{"node 1"}, clients: []*client{c}, total: 100}
	p.draw()
	p.draw()
	bar := "   node 1  [###############...............]  50 %\x1b[K\n"
	if got, want := terminal.String(), bar+"\x1b[1A"+bar; got != want {
		t.Errorf("terminal %q, want %q", got, want)
	}
}

// A node that ends early ends the demo with its last words, and nothing stays.
func TestANodeThatDiesEndsTheDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	err := Run(t.Context(), Options{Executable: "/bin/false", Out: &bytes.Buffer{}})
	if err == nil || !strings.Contains(err.Error(), "node 1 ended early (exit status 1)") {
		t.Errorf("error %v", err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := Run(t.Context(), Options{Executable: "/nowhere/shoal", Out: &bytes.Buffer{}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing program: %v", err)
	}
}

// Ctrl-C while the nodes start.
func TestInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	out := &cancelOn{text: "nodes on this machine", cancel: cancel}
	if err := Run(ctx, Options{Executable: "/bin/true", Out: out}); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("error %v", err)
	}
	if !out.seen.Load() {
		t.Error("the demo did not say what it does")
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// cancelOn cancels when a text is written.
type cancelOn struct {
	text   string
	cancel context.CancelFunc
	seen   atomic.Bool
}

func (c *cancelOn) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.text) {
		c.seen.Store(true)
		c.cancel()
	}
	return len(p), nil
}

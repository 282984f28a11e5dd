package blobcache

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

const mib = blob.PieceSize

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fillForTheKill(dir)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// sample is a blob and what is known of it.
type sample struct {
	blob.Descriptor
	data  []byte
	chain proof.Chain
}

func newSample(size int, seed byte) sample {
	data := make([]byte, size)
	fill(data, seed)
	h := proof.NewHasher()
	h.Write(data)
	chain, _ := h.Chain()
	return sample{
		Descriptor: blob.Descriptor{Digest: digest.FromBytes(data), Size: int64(size)},
		data:       data, chain: chain,
	}
}

// fill fills b with what looks random and is always the same.
func fill(b []byte, seed byte) {
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
}

func (s sample) n() int { return blob.PieceCount(s.Size) }

func (s sample) piece(i int) []byte {
	r := blob.Piece(i, s.Size)
	return s.data[r.Offset : r.Offset+r.Length]
}

// wrong is piece i with one bit flipped.
func (s sample) wrong(i int) []byte {
	p := bytes.Clone(s.piece(i))
	p[len(p)/2] ^= 4
	return p
}

// all returns the numbers of all pieces, from from on.
func (s sample) all(from int) (is []int) {
	for i := from; i < s.n(); i++ {
		is = append(is, i)
	}
	return is
}

// Usual senders.
var (
	origin = Provenance{Identity: "registry.example etag 1"}
	mirror = Provenance{Identity: "mirror.example etag 1"}
	honest = Provenance{Peer: "honest"}
	liar   = Provenance{Peer: "liar"}
)

func open(t *testing.T, dir string, o Options) *Cache {
	t.Helper()
	c, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

// run has c's Run going until the end of the test, before Close.
func run(t *testing.T, c *Cache) {
	t.Helper()
	stop := running(t, c)
	t.Cleanup(stop)
}

func running(t *testing.T, c *Cache) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func put(t *testing.T, c *Cache, s sample) {
	t.Helper()
	if err := c.Put(t.Context(), s.Descriptor, bytes.NewReader(s.data)); err != nil {
		t.Fatal(err)
	}
}

func startFill(t *testing.T, c *Cache, s sample) *Fill {
	t.Helper()
	f, started, err := c.Fill(s.Descriptor)
	if err != nil || !started {
		t.Fatalf("Fill: started %v, error %v", started, err)
	}
	return f
}

func write(t *testing.T, f *Fill, s sample, from Provenance, pieces ...int) {
	t.Helper()
	for _, i := range pieces {
		if err := f.WritePiece(i, s.piece(i), from); err != nil {
			t.Fatal(err)
		}
	}
}

// ends waits for the end of f and returns its error.
func ends(t *testing.T, f *Fill) error {
	t.Helper()
	select {
	case <-f.Done():
		return f.Err()
	case <-time.After(deadline):
		t.Fatal("the fill does not end")
		return nil
	}
}

// pass lets time pass in a synctest bubble.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // fake time: it takes none
}

// deadline is for what must come, at its leisure on a busy machine.
const deadline = 60 * time.Second

// until waits for what a goroutine of the cache brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(deadline)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

// rejections waits for n rejections.
func rejections(t *testing.T, f *Fill, n int) (all []Rejection) {
	t.Helper()
	for len(all) < n {
		select {
		case <-f.Rejected():
			all = append(all, f.Rejections()...)
		case <-f.Done():
			t.Fatalf("the fill has ended (%v); rejections %v, want %d", f.Err(), all, n)
		case <-time.After(deadline):
			t.Fatalf("rejections %v, want %d", all, n)
		}
	}
	return all
}

// has checks that the cache gives out s, proven.
func has(t *testing.T, c *Cache, s sample) {
	t.Helper()
	b, err := c.Get(t.Context(), s.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(b.File())
	if err != nil || !bytes.Equal(got, s.data) || b.Descriptor().Size != s.Size {
		t.Fatalf("%d bytes, error %v; want the blob of %d", len(got), err, s.Size)
	}
}

// clean checks that everything under blobs/ is what its name says.
func clean(t *testing.T, c *Cache) {
	t.Helper()
	files, err := os.ReadDir(c.blobDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(c.blobPath(digest.NewDigestFromEncoded(digest.SHA256, file.Name())))
		if err != nil || digest.FromBytes(data).Encoded() != file.Name() {
			t.Errorf("blobs/sha256/%s is not what it says (error %v)", file.Name(), err)
		}
	}
}

// metric returns the value of a counter or gauge, summed over its labels that
// equal label ("" for all).
func metric(t *testing.T, g prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				found = true
			}
		}
	}
	if !found {
		t.Fatalf("no metric %s", name)
	}
	return sum
}

// logbook is a logger whose lines can be looked at.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.buf.Bytes(), []byte(what))
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func digestOf(sum [32]byte) digest.Digest { return digest.NewDigestFromBytes(digest.SHA256, sum[:]) }

func bytesOf(s sample) io.Reader { return bytes.NewReader(s.data) }

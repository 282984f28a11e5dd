package exchange

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/channel"
	"shoal/p2p/swarmkey"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// unhurried is how long a test waits for what a busy machine may be late with: a
// crowd under the race detector has taken 70 s on two processors that five others used.
const unhurried = 3 * time.Minute

// mesh is a swarm without a DHT: members with real caches and real piece
// channels, who learn from a table who holds what.
type mesh struct {
	t   testing.TB
	key *swarmkey.Key

	mu    sync.Mutex
	holds map[digest.Digest][]*member
}

type member struct {
	*Exchange
	id    peer.ID
	key   crypto.PrivKey
	addr  string
	dir   string
	cache *blobcache.Cache
	chann *channel.Channel
	log   *journal
	reg   *prometheus.Registry
	mesh  *mesh
	alone bool     // thinks that nobody is connected
	near  []Holder // who is
	stop  func()
}

func newMesh(tb testing.TB) *mesh {
	tb.Helper()
	return &mesh{t: tb, key: swarmkey.New(), holds: make(map[digest.Digest][]*member)}
}

// member adds a member, whose handler is wrapped if wrap is not nil.
func (m *mesh) member(wrap func(http.Handler) http.Handler) *member {
	m.t.Helper()
	id, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	mem := &member{mesh: m, key: id, dir: m.t.TempDir(), log: &journal{}}
	if mem.id, err = peer.IDFromPrivateKey(id); err != nil {
		m.t.Fatal(err)
	}
	if mem.chann, err = channel.New(id, m.key); err != nil {
		m.t.Fatal(err)
	}
	mem.open(blobcache.Options{})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	l := mem.chann.NewListener(inner, channel.ListenOptions{})
	mem.addr = l.Addr().String()
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { mem.ServeHTTP(w, r) })
	if wrap != nil {
		h = wrap(h)
	}
	srv := &http.Server{Handler: h, ConnContext: channel.ConnContext, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	mem.stop = sync.OnceFunc(func() { _ = srv.Close(); <-done })
	m.t.Cleanup(mem.stop)
	return mem
}

// open opens cache and exchange in the member's directory. It has the patience
// with which a busy machine does not change what happens; tests of deadlines set
// their own.
func (m *member) open(o blobcache.Options) {
	m.mesh.t.Helper()
	var err error
	m.reg = prometheus.NewRegistry()
	o.Logger = slog.New(m.log)
	if m.cache, err = blobcache.Open(m.dir, o); err != nil {
		m.mesh.t.Fatal(err)
	}
	m.Exchange, err = New(Options{
		Identity: m.key, Cache: m.cache, Channel: m.chann, Swarm: m, Patience: unhurried, Logger: slog.New(m.log), Metrics: m.reg,
	})
	if err != nil {
		m.mesh.t.Fatal(err)
	}
	m.mesh.t.Cleanup(func() { m.close() })
}

func (m *member) close() {
	_ = m.Close()
	_ = m.cache.Close()
}

func (m *member) Self() Holder { return Holder{Peer: m.id, Pieces: []string{m.addr}} }

func (m *member) Near(int) ([]Holder, int) {
	m.mesh.mu.Lock()
	defer m.mesh.mu.Unlock()
	if m.alone {
		return nil, 0
	}
	return slices.Clone(m.near), max(1, len(m.near))
}

func (m *member) Find(_ context.Context, d digest.Digest) <-chan Holder {
	m.mesh.mu.Lock()
	defer m.mesh.mu.Unlock()
	out := make(chan Holder, len(m.mesh.holds[d]))
	for _, h := range m.mesh.holds[d] {
		if h != m {
			out <- Holder{Peer: h.id, Pieces: []string{h.addr}}
		}
	}
	close(out)
	return out
}

func (m *member) Announce(context.Context, digest.Digest) error { return nil }

// announce lets others find m for the blob.
func (m *member) announce(d blob.Descriptor) {
	m.mesh.mu.Lock()
	defer m.mesh.mu.Unlock()
	m.mesh.holds[d.Digest] = append(m.mesh.holds[d.Digest], m)
}

// seed puts content into the cache and announces it.
func (m *member) seed(data []byte) blob.Descriptor {
	m.mesh.t.Helper()
	d := describe(data)
	if err := m.cache.Put(m.mesh.t.Context(), d, bytes.NewReader(data)); err != nil {
		m.mesh.t.Fatal(err)
	}
	m.announce(d)
	return d
}

func describe(data []byte) blob.Descriptor {
	return blob.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// content makes bytes up; the same seed gives the same.
func content(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = mrand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// pull fetches a blob and reads it to its end.
func (m *member) pull(d blob.Descriptor, src blob.Source) ([]byte, error) {
	m.mesh.t.Helper()
	ctx, cancel := context.WithTimeout(m.mesh.t.Context(), unhurried)
	defer cancel()
	f, err := m.Fetch(ctx, d, src)
	if err != nil {
		return nil, err
	}
	r, err := f.Open(ctx, blob.Range{Length: -1})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return data, err
	}
	select {
	case <-f.Done():
		return data, f.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// mustPull is pull of a blob whose bytes are data. It checks what lies under
// blobs/, too.
func (m *member) mustPull(data []byte, src blob.Source) {
	m.mesh.t.Helper()
	d := describe(data)
	got, err := m.pull(d, src)
	if err != nil {
		m.mesh.t.Fatalf("pull: %v\n%s", err, m.log)
	}
	if !bytes.Equal(got, data) {
		m.mesh.t.Fatal("the reader got other bytes")
	}
	m.checkBlobs()
}

// checkBlobs fails if a file under blobs/ does not match its name.
func (m *member) checkBlobs() {
	m.mesh.t.Helper()
	files, err := filepath.Glob(filepath.Join(m.dir, "blobs", "sha256", "*"))
	if err != nil {
		m.mesh.t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			m.mesh.t.Fatal(err)
		}
		if digest.FromBytes(data).Encoded() != filepath.Base(f) {
			m.mesh.t.Errorf("%s holds something else", f)
		}
	}
}

// spoil changes a byte of a whole blob on the disk.
func (m *member) spoil(d blob.Descriptor) {
	m.mesh.t.Helper()
	f, err := os.OpenFile(filepath.Join(m.dir, "blobs", "sha256", d.Digest.Encoded()), os.O_RDWR, 0)
	if err != nil {
		m.mesh.t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], d.Size/2); err != nil {
		m.mesh.t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], d.Size/2); err != nil {
		m.mesh.t.Fatal(err)
	}
}

// metric returns the value of a counter or gauge, with a label value or summed up.
func (m *member) metric(name, label string) int64 {
	m.mesh.t.Helper()
	families, err := m.reg.Gather()
	if err != nil {
		m.mesh.t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, c := range f.GetMetric() {
			if label == "" || len(c.GetLabel()) > 0 && c.GetLabel()[0].GetValue() == label {
				sum += c.GetCounter().GetValue() + c.GetGauge().GetValue()
			}
		}
	}
	return int64(sum)
}

// served returns the bytes of pieces that m has given, when no request is being
// answered any more: who asked has the last byte before it is counted.
func (m *member) served() int64 {
	m.mesh.t.Helper()
	eventually(m.mesh.t, "an answer does not end", func() bool {
		m.uploads.mu.Lock()
		defer m.uploads.mu.Unlock()
		return m.uploads.total == 0
	})
	return m.metric("shoal_p2p_served_bytes_total", "")
}

// registry is an origin with one blob.
type registry struct {
	*origintest.Server
	d   blob.Descriptor
	src blob.Source
}

func newRegistry(tb testing.TB, o origintest.Options, data []byte) *registry {
	tb.Helper()
	return newSlowRegistry(tb, o, data, time.Second)
}

// newSlowRegistry is newRegistry of an origin that may be silent for so long.
func newSlowRegistry(tb testing.TB, o origintest.Options, data []byte, silent time.Duration) *registry {
	tb.Helper()
	srv := origintest.Start(tb, o)
	r := &registry{Server: srv, d: srv.Registry.AddBlob("test/image", data)}
	c, err := origin.New(origin.Options{Registries: origin.Registries{"test.example": {Upstreams: []string{srv.URL}}}, NoProgress: silent})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	repo, err := c.Repository("test.example", "test/image")
	if err != nil {
		tb.Fatal(err)
	}
	r.src = repo.Blobs()
	return r
}

// gave returns the body bytes of the blob that left the origin.
func (r *registry) gave() int64 { return r.Registry.Stats().Content[r.d.Digest] }

// journal keeps log records.
type journal struct {
	mu    sync.Mutex
	lines []string
	attrs []slog.Attr
	up    *journal
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	for _, a := range j.attrs {
		line += " " + a.String()
	}
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	root := j
	for root.up != nil {
		root = root.up
	}
	root.mu.Lock()
	defer root.mu.Unlock()
	root.lines = append(root.lines, line)
	return nil
}

func (j *journal) WithAttrs(as []slog.Attr) slog.Handler {
	return &journal{attrs: append(slices.Clone(j.attrs), as...), up: j}
}

func (j *journal) WithGroup(string) slog.Handler { return j }

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

// find returns the lines that hold all of the words.
func (j *journal) find(words ...string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []string
	for _, l := range j.lines {
		all := true
		for _, w := range words {
			all = all && strings.Contains(l, w)
		}
		if all {
			found = append(found, l)
		}
	}
	return found
}

// eventually returns when ok does, and fails the test after a while.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(unhurried)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("after %v: %s", unhurried, what)
		}
		<-poll.C
	}
}

func BenchmarkOneHolder(b *testing.B) {
	const size = 512 << 20
	b.SetBytes(size)
	m := newMesh(b)
	holder := m.member(nil)
	d := holder.seed(content(1, size))
	for b.Loop() {
		b.StopTimer()
		p := m.member(nil)
		b.StartTimer()
		f, err := p.Fetch(b.Context(), d, nil)
		if err != nil {
			b.Fatal(err)
		}
		<-f.Done()
		if f.Err() != nil {
			b.Fatal(f.Err())
		}
		b.StopTimer()
		p.close()
		os.RemoveAll(p.dir)
		b.StartTimer()
	}
}

// emptyCache returns a cache for what is tested without a member.
func emptyCache(t *testing.T) *blobcache.Cache {
	t.Helper()
	c, err := blobcache.Open(t.TempDir(), blobcache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

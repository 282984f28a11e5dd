package p2p

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/swarmkey"
)

// testOptions are those of a node on loopback with a fresh identity.
func testOptions(t *testing.T, key *swarmkey.Key, join ...*Node) Options {
	t.Helper()
	id, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Identity: id, Cache: budgetCache(t, 0), Key: key, NoMDNS: true,
		Swarm:  []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, n := range join {
		o.Join = append(o.Join, n.Addrs()...)
	}
	return o
}

// start runs a node until the test ends, or until stop is called.
func start(t *testing.T, o Options) (n *Node, stop func()) {
	t.Helper()
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return n, run(t, n)
}

// run runs n until the test ends, or until stop is called.
func run(t *testing.T, n *Node) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// budgetCache opens a cache of at most so many bytes.
func budgetCache(t *testing.T, budget int64) *blobcache.Cache {
	t.Helper()
	cache, err := blobcache.Open(t.TempDir(), blobcache.Options{Budget: budget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close() })
	return cache
}

// eventually waits for a condition, and fails the test after a minute: it is for what
// takes tenths of a second on an idle machine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: %s", what)
		}
		<-poll.C
	}
}

// holders returns all holders that one lookup finds.
func holders(t *testing.T, n *Node, d digest.Digest) []Holder {
	t.Helper()
	var found []Holder
	for h := range n.Holders(t.Context(), d) {
		found = append(found, h)
	}
	return found
}

// put stores content in the node's cache and returns its digest.
func put(t *testing.T, cache *blobcache.Cache, content string) digest.Digest {
	t.Helper()
	d := digest.FromString(content)
	err := cache.Put(t.Context(), blob.Descriptor{Digest: d, Size: int64(len(content))}, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestMembersFindBlobs(t *testing.T) {
	key := swarmkey.New()
	a, _ := start(t, testOptions(t, key))
	o := testOptions(t, key, a)
	o.Zone = "here"
	b, _ := start(t, o)
	<-b.JoinTried()
	if !b.Joined() {
		t.Fatal("not joined")
	}
	d := digest.FromString("a layer")
	if err := b.Provide(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a does not find b", func() bool {
		found := holders(t, a, d)
		return len(found) == 1 && found[0].Peer == b.ID() && found[0].Zone == "here" &&
			len(found[0].Pieces) == 1 && found[0].Pieces[0] == b.pieces.Addr().String()
	})
	found := holders(t, b, d)
	if tried := testutil.ToFloat64(b.metrics.dials.WithLabelValues("error")); len(found) != 0 || tried != 0 {
		t.Errorf("b finds itself: %v, dialled itself %v times", found, tried)
	}
}

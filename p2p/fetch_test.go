package p2p_test

import (
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/p2ptest"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// content makes bytes up; the same seed gives the same.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	var key [32]byte
	key[0] = byte(seed)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// registry starts an origin with one blob, and returns it with the blob as a
// source.
func registry(tb testing.TB, o origintest.Options, data []byte) (*origintest.Server, blob.Descriptor, blob.Source) {
	tb.Helper()
	srv := origintest.Start(tb, o)
	d := srv.Registry.AddBlob("test/image", data)
	return srv, d, source(tb, srv)
}

func source(tb testing.TB, srv *origintest.Server) blob.Source {
	tb.Helper()
	c, err := origin.New(origin.Options{Registries: origin.Registries{"test.example": {Upstreams: []string{srv.URL}}}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	r, err := c.Repository("test.example", "test/image")
	if err != nil {
		tb.Fatal(err)
	}
	return r.Blobs()
}

// pull fetches a blob by m and checks every byte that a reader sees.
func pull(tb testing.TB, m *p2ptest.Member, d blob.Descriptor, src blob.Source) *blobcache.Fill {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 3*time.Minute)
	defer cancel()
	f, err := m.Fetch(ctx, d, src)
	if err != nil {
		tb.Fatal(err)
	}
	r, err := f.Open(ctx, blob.Range{Length: -1})
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	sum := digest.SHA256.Digester()
	if _, err := io.Copy(sum.Hash(), struct{ io.Reader }{r}); err != nil {
		tb.Fatal(err)
	}
	if sum.Digest() != d.Digest {
		tb.Fatalf("read %s, want %s", sum.Digest(), d.Digest)
	}
	<-f.Done()
	if err := f.Err(); err != nil {
		tb.Fatal(err)
	}
	return f
}

func TestFirstPullsFromOriginSecondFromTheFirstThirdFromBoth(t *testing.T) {
	data := content(1, 40<<20+12345)
	srv, d, src := registry(t, origintest.Options{}, data)
	c := p2ptest.NewCluster(t, 3, p2ptest.Options{Patience: 3 * time.Minute})
	a, b, e := c.Members[0], c.Members[1], c.Members[2]
	pull(t, a, d, src)
	if n := srv.Registry.Stats().Content[d.Digest]; n != d.Size {
		t.Fatalf("the first took %d bytes of %d from the origin", n, d.Size)
	}
	b.AwaitHolders(d.Digest, a)
	srv.Registry.ResetStats()
	pull(t, b, d, src)
	e.AwaitHolders(d.Digest, a, b)
	pull(t, e, d, src)
	if lines := srv.Registry.Lines(); len(lines) > 0 {
		t.Errorf("the origin saw %v", lines)
	}
}

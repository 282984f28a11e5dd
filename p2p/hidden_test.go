package p2p_test

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/p2ptest"
	"shoal/proxy/origin/origintest"
)

// What came by way of a registry that is asked in the name of clients stays on
// its node: no other finds it, though it knows the digest; not after a restart
// of the node either. When everybody may have it, others find it.
func TestWhatIsForClientsIsNotInTheSwarm(t *testing.T) {
	c := p2ptest.NewCluster(t, 3, p2ptest.Options{})
	holder, m := c.Members[0], c.Members[1]
	data := content(5, 3<<20)
	_, d, src := registry(t, origintest.Options{}, data)
	if err := holder.Cache.Restrict(blobcache.Permitted, d.Digest); err != nil {
		t.Fatal(err)
	}
	pull(t, holder, d, src)
	known := holder.Seed(content(6, 100))
	m.AwaitHolders(known.Digest, holder) // what came later is announced

	find := func() (n int) {
		for range m.Holders(t.Context(), d.Digest) {
			n++
		}
		return n
	}
	if n := find(); n > 0 {
		t.Errorf("%d holders are found", n)
	}
	if f, err := m.Fetch(t.Context(), blob.Descriptor{Digest: d.Digest, Size: blob.UnknownSize}, nil); err == nil {
		t.Errorf("fetched: %v", f.Descriptor())
	}
	if err := holder.Provide(t.Context(), d.Digest); err != nil {
		t.Fatal(err)
	}
	if n := find(); n > 0 {
		t.Errorf("%d holders are found after it was to be announced", n)
	}
	// Nor does it look for what others have.
	if err := holder.Cache.Restrict(blobcache.Permitted, m.Seed(content(7, 100)).Digest); err != nil {
		t.Fatal(err)
	}
	seeded := blob.Descriptor{Digest: digest.FromBytes(content(7, 100)), Size: 100}
	c.Members[2].AwaitHolders(seeded.Digest, m)
	for h := range holder.Holders(t.Context(), seeded.Digest) {
		t.Errorf("%v was looked up", h)
	}
	holder.Cache.Widen(d.Digest)
	m.AwaitHolders(d.Digest, holder)
	pull(t, m, d, nil)
}

package p2p_test

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/p2p/p2ptest"
	"shoal/proxy/origin/origintest"
)

// TestWhole: a member says whether it has a blob whole, and nothing of what only
// permitted clients may have; one that is not there says nothing, which is an error.
func TestWhole(t *testing.T) {
	c := p2ptest.NewCluster(t, 2, p2ptest.Options{})
	m, holder := c.Members[0], c.Members[1]
	has := func(d digest.Digest) bool {
		t.Helper()
		whole, err := m.Whole(t.Context(), holder.ID(), d)
		if err != nil {
			t.Error(err)
		}
		return whole
	}
	d := holder.Seed(content(21, 3<<20)).Digest
	if !has(d) || has(digest.FromString("elsewhere")) {
		t.Errorf("it has a blob: %v, and one that is not there: %v", has(d), has(digest.FromString("elsewhere")))
	}
	_, hidden, src := registry(t, origintest.Options{}, content(22, 1000))
	if err := holder.Cache.Restrict(blobcache.Permitted, hidden.Digest); err != nil {
		t.Fatal(err)
	}
	if pull(t, holder, hidden, src); has(hidden.Digest) {
		t.Error("it tells of what is for permitted clients")
	}
	if _, err := m.Whole(t.Context(), p2ptest.NewCluster(t, 1, p2ptest.Options{}).Members[0].ID(), d); err == nil {
		t.Error("one that is not connected says something")
	}
}

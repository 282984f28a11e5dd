package p2p

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/statement"
	"shoal/p2p/swarmkey"
	"shoal/p2p/wire"
)

func leaseOf(t *testing.T, s *statement.Signer, tag string, at time.Time) statement.Lease {
	t.Helper()
	d := blob.Descriptor{Digest: digest.FromString("a manifest"), Size: 100, MediaType: "application/vnd.oci.image.index.v1+json"}
	l, err := s.Lease(tag, d, at, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// leasing has the node note leases as it notes what it obeys.
func leasing(n *obedient) *obedient {
	n.s.Lease = func(l statement.Lease) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.images = append(n.images, l.Tag)
	}
	return n
}

// TestLeasesSpread: a lease goes through a chain, whose middle does not trust the
// key, and reaches who does, once.
func TestLeasesSpread(t *testing.T) {
	signer := statement.GenerateSigner()
	chain := startChain(t, nil, nil, []statement.Key{signer.Key()})
	for _, n := range chain {
		leasing(n)
	}
	l := leaseOf(t, signer, "docker.io/library/app:v1", time.Now())
	for range 3 {
		chain[0].SpreadLease(l)
	}
	eventually(t, "the last has no lease", func() bool { return slices.Equal(chain[2].obeyed(), []string{l.Tag}) })
	if got := slices.Concat(chain[0].obeyed(), chain[1].obeyed()); len(got) != 0 {
		t.Errorf("those that do not trust the key have %q", got)
	}
}

// TestHostileLeases: a lease that no trusted key has signed, that is altered, not of
// this time or said again is none.
func TestHostileLeases(t *testing.T) {
	key, signer := swarmkey.New(), statement.GenerateSigner()
	n := leasing(startObedient(t, testOptions(t, key), signer.Key()))
	bad := connectedRaw(t, key, n.Node)
	now := time.Now()
	good := leaseOf(t, signer, "docker.io/library/app:v1", now).Marshal()
	pushes := map[string][]byte{
		"a stranger's":   leaseOf(t, statement.GenerateSigner(), "docker.io/library/app:v1", now).Marshal(),
		"too old":        leaseOf(t, signer, "docker.io/library/app:v1", now.Add(-5*time.Minute-2*statement.LeaseSkew)).Marshal(),
		"too early":      leaseOf(t, signer, "docker.io/library/app:v1", now.Add(2*statement.LeaseSkew)).Marshal(),
		"empty":          {},
		"an order":       invalidate(t, signer, "docker.io/library/app:v1", now),
		"something more": append(bytes.Clone(good), 'x'),
	}
	for i := range good {
		altered := bytes.Clone(good)
		altered[i] ^= 1
		pushes[fmt.Sprint("altered at ", i)] = altered
	}
	for name, body := range pushes {
		n.spreader.meters.Remove(bad.ID()) // how often it may is another test's
		_ = push(t, bad, n.Node, wire.AppendPush(nil, wire.PushLease, body))
		if got := n.obeyed(); len(got) > 0 {
			t.Fatalf("%s: taken %q", name, got)
		}
	}
	for range 5 {
		if err := push(t, bad, n.Node, wire.AppendPush(nil, wire.PushLease, good)); err != nil {
			t.Errorf("what is right, by whomever it comes: %v", err)
		}
	}
	if got := n.obeyed(); len(got) != 1 {
		t.Errorf("taken %q", got)
	}
}

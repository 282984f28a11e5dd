package main

import (
	"bytes"
	"testing"

	"shoal/cmd/shoal/internal/admin"
)

func TestStatusForPeople(t *testing.T) {
	var out bytes.Buffer
	err := printStatus(&out, admin.Status{
		ID: "12D3A", Version: "v1", Ready: true, Joined: true, Peers: 2, Zone: "here", Mirror: "127.0.0.1:5000",
		Addrs:   []string{"/ip4/10.0.0.1/tcp/4001/p2p/12D3A"},
		Members: []admin.Member{{ID: "12D3B", Addr: "/ip4/10.0.0.2/tcp/4001", Zone: "there"}, {ID: "12D3C", Addr: "/ip4/10.0.0.3/tcp/4001"}},
		Bytes:   admin.Bytes{Origin: 1 << 20, Peers: 2 << 20, CacheHits: 3 << 20, ServedClients: 4 << 20, ServedPeers: 5 << 20},
		Cache:   admin.Cache{Bytes: 1 << 30, Budget: 50 << 30, Blobs: 7},
		Fills:   []admin.Fill{{Digest: "sha256:ab", Size: 10 << 20, Pieces: 10, Done: 4, Members: 2, FromOrigin: 1 << 20, FromPeers: 3 << 20}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `node      12D3A
version   v1
state     ready, 2 members connected
zone      here
mirror    http://127.0.0.1:5000
join by   /ip4/10.0.0.1/tcp/4001/p2p/12D3A
taken     1MiB from registries, 2MiB from members, 3MiB found in the cache
served    4MiB to runtimes, 5MiB to members
cache     1GiB of 50GiB, 7 blobs
member    12D3B /ip4/10.0.0.2/tcp/4001 there
member    12D3C /ip4/10.0.0.3/tcp/4001
fill      sha256:ab 10MiB, 4 of 10 pieces, 1MiB from the registry, 3MiB from 2 members
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for want, s := range map[string]admin.Status{
		"not ready, no members connected": {},
		"ready, 1 member connected":       {Ready: true, Peers: 1},
	} {
		if got := state(s); got != want {
			t.Errorf("state %q, want %q", got, want)
		}
	}
}

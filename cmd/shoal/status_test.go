package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/internal/admin"
)

func TestStatusForPeople(t *testing.T) {
	var out bytes.Buffer
	err := printStatus(&out, glance[admin.Status]{said: admin.Status{
		ID: "12D3A", Version: "v1", Ready: true, Joined: true, Peers: 2, Zone: "here", Mirror: "127.0.0.1:5000",
		Addrs:   []string{"/ip4/10.0.0.1/tcp/4001/p2p/12D3A"},
		Members: []admin.Member{{ID: "12D3B", Addr: "/ip4/10.0.0.2/tcp/4001", Zone: "there"}, {ID: "12D3C", Addr: "/ip4/10.0.0.3/tcp/4001", Way: "direct"}, {ID: "12D3D", Addr: "/ip4/10.0.0.4/tcp/4001", Way: "inbound"}},
		Reachability: admin.Reachability{
			BehindNAT: true, Relays: []string{"/ip4/10.0.0.3/tcp/4001/p2p/12D3C/p2p-circuit"},
			Relaying: admin.Relaying{Enabled: true, Bytes: 6 << 20, Circuits: 8, Reservations: 9},
		},
		Bytes: admin.Bytes{Origin: 1 << 20, Peers: 2 << 20, CacheHits: 3 << 20, ServedClients: 4 << 20, ServedPeers: 5 << 20},
		Cache: admin.Cache{Bytes: 1 << 30, Budget: 50 << 30, Blobs: 7},
		Fills: []admin.Fill{{Digest: "sha256:0123456789abcdef", Size: 10 << 20, Pieces: 10, Done: 4, Members: 2, FromOrigin: 1 << 20, FromPeers: 3 << 20}},
	}}, glance[admin.Status]{})
	if err != nil {
		t.Fatal(err)
	}
	want := `node      12D3A
version   v1
state     ready, 2 members connected
zone      here
mirror    http://127.0.0.1:5000
join by   /ip4/10.0.0.1/tcp/4001/p2p/12D3A
reached   behind NAT, by members that it is connected to and over relays
reached   /ip4/10.0.0.3/tcp/4001/p2p/12D3C/p2p-circuit
relays    6MiB between members, 8 circuits, for 9 members
taken     1MiB from registries, 2MiB from members, 3MiB found in the cache
served    4MiB to runtimes, 5MiB to members
cache     1GiB of 50GiB, 7 blobs
member    12D3B /ip4/10.0.0.2/tcp/4001 there
member    12D3C /ip4/10.0.0.3/tcp/4001
member    12D3D /ip4/10.0.0.4/tcp/4001 inbound
fill      sha256:0123456789ab [########............]  40 % of 10MiB, 1MiB from the registry, 3MiB from 2 members
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

func TestFillText(t *testing.T) {
	f := admin.Fill{Digest: "sha256:ab", Size: 100 << 20, Pieces: 100, Done: 50, Members: 1, FromOrigin: 20 << 20, FromPeers: 30 << 20}
	for name, c := range map[string]struct {
		before *admin.Fill
		since  time.Duration
		want   string
	}{
		"once": {nil, 0, "sha256:ab [##########..........]  50 % of 100MiB, 20MiB from the registry, 30MiB from 1 member"},
		"a while later": {
			&admin.Fill{FromOrigin: 18 << 20, FromPeers: 22 << 20}, 2 * time.Second,
			"sha256:ab [##########..........]  50 % of 100MiB, 20MiB (1MiB/s) from the registry, 30MiB (4MiB/s) from 1 member, 10s left",
		},
		"nothing came": {&f, time.Second, "sha256:ab [##########..........]  50 % of 100MiB, 20MiB (0B/s) from the registry, 30MiB (0B/s) from 1 member"},
		"hardly anything came": {
			&admin.Fill{FromOrigin: 20<<20 - 1, FromPeers: 30 << 20}, time.Second,
			"sha256:ab [##########..........]  50 % of 100MiB, 20MiB (1B/s) from the registry, 30MiB (0B/s) from 1 member",
		},
		"no time has passed": {
			&admin.Fill{}, 0, "sha256:ab [##########..........]  50 % of 100MiB, 20MiB from the registry, 30MiB from 1 member",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fillText(f, c.before, c.since); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestBar(t *testing.T) {
	for share, want := range map[float64]string{
		-1: "[....................]", 0: "[....................]", 0.049: "[....................]", 0.05: "[#...................]",
		0.999: "[###################.]", 1: "[####################]", 7: "[####################]",
	} {
		if got := bar(share); got != want {
			t.Errorf("%v: %s, want %s", share, got, want)
		}
	}
}

func TestFillsStandStill(t *testing.T) {
	fills := []admin.Fill{{Digest: "c", Pieces: 10, Done: 1}, {Digest: "b"}, {Digest: "a", Pieces: 10, Done: 1}, {Digest: "d", Pieces: 2, Done: 1}}
	var order string
	for _, f := range sorted(fills) {
		order += f.Digest
	}
	if order != "dacb" {
		t.Errorf("%s, want dacb", order)
	}
	before := admin.Status{Fills: []admin.Fill{{Digest: "a", Size: 1}, {Digest: "a", Size: 2, Done: 7}}}
	if got := earlier(admin.Fill{Digest: "a", Size: 2}, before); got == nil || got.Done != 7 {
		t.Errorf("%+v", got)
	}
	if got := earlier(admin.Fill{Digest: "b", Size: 2}, before); got != nil {
		t.Errorf("%+v", got)
	}
}

// A watch shows the node again and again, until it is told to end or the node
// does not answer any more.
func TestWatch(t *testing.T) {
	asked := make(chan struct{}, 10)
	answers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		_, _ = io.WriteString(w, `{"id": "12D3A", "ready": true, "fills": [{"digest": "sha256:ab", "size": 1048576, "pieces": 1, "members": 3}]}`)
	})
	srv := httptest.NewServer(answers)
	defer srv.Close()
	ctx, end := context.WithCancel(t.Context())
	var out bytes.Buffer
	ended := make(chan error)
	addr := strings.TrimPrefix(srv.URL, "http://")
	go func() {
		ended <- look(environment{ctx: ctx, stdout: &out}, true, false, asker(addr, admin.Fetch), printStatus)
	}()
	<-asked
	<-asked
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(out.String(), "node "); n < 1 || !strings.Contains(out.String(), "[....................]   0 % of 1MiB") || strings.Contains(out.String(), "\x1b") {
		t.Errorf("shown %d times:\n%s", n, out.String())
	}
	srv.Close()
	if err := look(environment{ctx: t.Context(), stdout: &out}, true, false, asker(addr, admin.Fetch), printStatus); err == nil {
		t.Error("a node that is gone is no error")
	}
}

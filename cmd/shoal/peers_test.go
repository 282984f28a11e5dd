package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
	"shoal/p2p"
	"shoal/p2p/exchange"
	"shoal/p2p/p2ptest"
	"shoal/p2p/swarmkey"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

func TestPeersForPeople(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	var out bytes.Buffer
	err := printPeers(&out, glance[admin.Peers]{at: now, said: admin.Peers{Peers: []admin.Peer{
		{Member: admin.Member{ID: "12D3KooWidle0000", Addr: "/ip4/10.0.0.2/tcp/4001/p2p/12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F/p2p-circuit", Way: "relayed"}, Connected: true},
		{Member: admin.Member{ID: "12D3KooWlate0000"}, Connected: true, Given: admin.Traffic{Bytes: 1 << 10, Blobs: 1}, Slow: now.Add(30 * time.Second)},
		{Member: admin.Member{ID: "12D3KooWmute0000"}, Given: admin.Traffic{Bytes: 1 << 9, Blobs: 1}, Slow: now.Add(time.Minute), Silent: now.Add(9500 * time.Millisecond)},
		{Member: admin.Member{ID: "12D3KooWpast0000"}, Connected: true, Given: admin.Traffic{Bytes: 1 << 8, Blobs: 1}, Slow: now, Silent: now},
		{Member: admin.Member{ID: "12D3KooWgone0000"}, Taken: admin.Traffic{Bytes: 1 << 20, Blobs: 1, Rate: 1 << 20, Last: now.Add(-time.Hour)}},
		{
			Member: admin.Member{ID: "12D3KooWbusy0000", Addr: "/ip6/fd00::1/tcp/4001", Zone: "attic", Way: "direct"}, Connected: true, RoundTrip: 0.00123,
			Taken: admin.Traffic{Bytes: 2 << 30, Blobs: 7, Rate: 100 << 20, Last: now},
			Given: admin.Traffic{Bytes: 3 << 20, Blobs: 1, Rate: 5 << 10, Last: now.Add(-time.Minute)},
		},
		{Member: admin.Member{ID: "12D3KooWliar0000"}, Ban: &admin.Ban{About: "piece 3 of sha256:ab", Until: now.Add(10 * time.Minute)}},
		{Member: admin.Member{ID: "12D3KooWidle0001", Addr: "/dns4/node7/tcp/4001"}, Connected: true},
	}}}, 7)
	if err != nil {
		t.Fatal(err)
	}
	want := `5 members connected, 3 gone, 1 banned
MEMBER    ADDRESS         WAY      ZONE   TRIP   DOWN      UP      TAKEN     GIVEN     LAST    STATE
liar0000  -               -        -      -      -         -       -         -         -       banned until 2026-01-02 03:14:05 (10m0s), lied about piece 3 of sha256:ab
busy0000  [fd00::1]:4001  direct   attic  1.2ms  100MiB/s  5KiB/s  2GiB (7)  3MiB (1)  now     connected
gone0000  -               -        -      -      1MiB/s    -       1MiB (1)  -         1h0m0s  gone
late0000  -               -        -      -      -         -       -         1KiB (1)  -       connected, slower than the registry, not waited for (30s)
mute0000  -               -        -      -      -         -       -         512B (1)  -       gone, did not answer, not waited for (10s)
past0000  -               -        -      -      -         -       -         256B (1)  -       connected
idle0000  10.0.0.2:4001   relayed  -      -      -         -       -         -         -       connected
1 more: --limit 0 shows all
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	if err := printPeers(&out, glance[admin.Peers]{}, 50); err != nil || out.String() != "0 members connected, 0 gone, 0 banned\n" {
		t.Errorf("alone: %q %v", out.String(), err)
	}
}

func TestWhoIsNotWaitedForIsShown(t *testing.T) {
	slow, silent := time.Unix(1, 0), time.Unix(2, 0)
	p := peerOf(p2p.Known{Trade: exchange.Trade{Slow: slow, Silent: silent}})
	if p.Slow != slow || p.Silent != silent || p.Connected || p.Ban != nil {
		t.Errorf("%+v", p)
	}
}

// A swarm of a thousand is a table of fifty, unless all are asked for.
func TestPeersOfALargeSwarm(t *testing.T) {
	var said admin.Peers
	for i := range 1000 {
		said.Peers = append(said.Peers, admin.Peer{
			Member: admin.Member{ID: fmt.Sprintf("%08d", i)}, Connected: true, Given: admin.Traffic{Bytes: int64(i)},
		})
	}
	for limit, lines := range map[int]int{0: 1002, 50: 53, 1000: 1002, 999: 1002} {
		var out bytes.Buffer
		if err := printPeers(&out, glance[admin.Peers]{said: said}, limit); err != nil {
			t.Fatal(err)
		}
		rows := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(rows) != lines || !strings.HasPrefix(rows[2], "00000999 ") {
			t.Errorf("limit %d: %d lines, the first member is %q", limit, len(rows), rows[2])
		}
	}
}

// Of real nodes one gives wrong pieces. The table says so, and what was traded
// with the honest one.
func TestPeersOfALiar(t *testing.T) {
	reg := origintest.Start(t, origintest.Options{})
	key := swarmkey.New()
	cluster := p2ptest.NewCluster(t, 2, p2ptest.Options{Key: key, Lies: map[int]p2ptest.Lie{1: p2ptest.WrongPiece}})
	honest, liar := cluster.Members[0], cluster.Members[1]
	keyFile := filepath.Join(t.TempDir(), "swarm.key")
	if err := os.WriteFile(keyFile, key.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Config{
		DataDir: t.TempDir(), Mirror: "127.0.0.1:0", Admin: "127.0.0.1:0", SwarmKey: keyFile, Zone: "attic", Patience: patience,
		Swarm: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}, Pieces: "127.0.0.1:0",
		Join: append(honest.Addrs(), liar.Addrs()...), Registries: origin.Registries{"docker.io": {Upstreams: []string{reg.URL}}},
	}
	s := startService(t, cfg)
	until(t, "everybody is connected", func() bool { return s.node.Peers() == 2 })

	random := rand.NewChaCha8([32]byte{1})
	pull := func(seed, other *p2ptest.Member, registry bool) string {
		t.Helper()
		content := make([]byte, 3<<20+1)
		_, _ = random.Read(content) // never fails
		d := seed.Seed(content)
		if registry {
			reg.Registry.AddBlob("a/b", content)
		}
		other.AwaitHolders(d.Digest, seed)
		s.finds(t, d.Digest)
		if err := s.request(t.Context(), http.MethodGet, "a/b/blobs/"+d.Digest.String()); err != nil {
			t.Fatal(err)
		}
		return d.Digest.String()
	}
	pull(honest, liar, false)
	lie := pull(liar, honest, true)

	show := func(args ...string) string {
		t.Helper()
		var out, complaint bytes.Buffer
		env := environment{ctx: t.Context(), stdout: &out, stderr: &complaint}
		if code := run(env, append([]string{"peers", "--admin", s.admin.addr()}, args...)); code != exitOK {
			t.Fatalf("exit %d: %s", code, complaint.String())
		}
		return out.String()
	}
	table := ""
	until(t, "the ban is shown", func() bool { table = show(); return strings.Contains(table, "1 banned") })
	end := func(m *p2ptest.Member) string { return ending(m.ID().String()) }
	for _, row := range []string{
		`^2 members connected, 0 gone, 1 banned\n`,
		`\n` + end(liar) + ` +127\.0\.0\.1:[0-9]+ .* banned until [-0-9: ]+ \((10m0s|9m5[0-9]s)\), lied about (piece [0-3]|blob) of ` + lie + `\n`,
		`\n` + end(honest) + ` +127\.0\.0\.1:[0-9]+ +direct +- +[0-9.]+ms +[0-9.]+[KMG]iB/s +- +3MiB \(1\) +- +(now|[0-9.]+s) +connected\n`,
	} {
		if !regexp.MustCompile(row).MatchString(table) {
			t.Errorf("no %s in\n%s", row, table)
		}
	}
	if text := show("--json"); !strings.Contains(text, `"about": "`) || !strings.Contains(text, `"id": "`+liar.ID().String()+`"`) {
		t.Errorf("JSON: %s", text)
	}
	until(t, "the honest one says what it gave", func() bool { // a moment after the last byte of it
		known := honest.Known()
		return len(known) == 2 && known[0].Trade.Given.Bytes+known[1].Trade.Given.Bytes == 3<<20+1
	})
}

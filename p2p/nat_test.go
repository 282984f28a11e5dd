package p2p

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/p2p/channel"
	"shoal/p2p/exchange"
	"shoal/p2p/swarmkey"
)

// hiddenMember is behind NAT: where it says that it is, nobody answers.
func hiddenMember(t *testing.T, key *swarmkey.Key, join *Node) *Node {
	t.Helper()
	o := testOptions(t, key, join)
	o.NAT, o.Announce = BehindNAT, addrs("/ip4/127.0.0.2/tcp/1")
	n, _ := start(t, o)
	return n
}

func relayNode(t *testing.T, key *swarmkey.Key, limits RelayLimits) *Node {
	t.Helper()
	o := testOptions(t, key)
	o.Relay = &limits
	n, _ := start(t, o)
	return n
}

// seed stores random bytes in the cache of n.
func seed(t *testing.T, n *Node, size int) (blob.Descriptor, []byte) {
	t.Helper()
	content := make([]byte, size)
	rand.Read(content)
	d := blob.Descriptor{Digest: digest.FromBytes(content), Size: int64(size)}
	if err := n.s.Cache.Put(t.Context(), d, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return d, content
}

// fetch has n fetch the blob from another member, as soon as they know each other,
// and checks it.
func fetch(t *testing.T, n, from *Node, d blob.Descriptor, content []byte) {
	t.Helper()
	eventually(t, "they do not know each other", func() bool {
		near, _ := (members{n}).Near(exchange.MaxNear)
		return slices.ContainsFunc(near, func(h exchange.Holder) bool { return h.Peer == from.ID() })
	})
	f, err := n.Fetch(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(t.Context(), blob.Range{Length: d.Size})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

// way is how n reaches another member; empty if it does not.
func way(n, other *Node) string {
	for _, m := range n.Members() {
		if m.Peer == other.ID() {
			return m.Way
		}
	}
	return ""
}

// TestBehindNAT: two members that nobody can dial, and that cannot get through
// to each other, trade over a relay; one that can be dialled gets pieces over
// the connection that the hidden one opened.
func TestBehindNAT(t *testing.T) {
	key := swarmkey.New()
	relay := relayNode(t, key, RelayLimits{})
	a, b := hiddenMember(t, key, relay), hiddenMember(t, key, relay)
	eventually(t, "no reservations", func() bool { return relay.Reachability().Relaying.Reservations == 2 })
	eventually(t, "no circuit address", func() bool { return len(a.Reachability().Relays) > 0 })
	if !a.Reachability().BehindNAT {
		t.Error("does not know that it is behind NAT")
	}
	if r := relay.Reachability(); r.BehindNAT || len(r.Relays) > 0 {
		t.Errorf("the relay: %+v", r)
	}
	d, content := seed(t, a, 3<<20)

	fetch(t, relay, a, d, content)
	if bytes := relay.Reachability().Relaying.Bytes; bytes > 1<<20 || way(relay, a) != WayInbound {
		t.Errorf("%d bytes were relayed to one that %s is connected to (%q)", bytes, a.ID(), way(relay, a))
	}
	d, content = seed(t, a, 3<<20)
	before := relay.Reachability().Relaying.Bytes
	fetch(t, b, a, d, content)
	if relayed := relay.Reachability().Relaying.Bytes - before; relayed < d.Size {
		t.Errorf("%d bytes were relayed of %d", relayed, d.Size)
	}
	if way(b, a) != WayRelayed || way(a, b) != WayRelayed {
		t.Errorf("b reaches a %q, a reaches b %q", way(b, a), way(a, b))
	}
	if got := (streams{b}).Way(a.ID()); got != exchange.Relayed {
		t.Errorf("b reaches a in way %d", got)
	}
}

// TestFlatNetworkNeedsNoRelay: members that can be dialled leave a relay alone.
func TestFlatNetworkNeedsNoRelay(t *testing.T) {
	key := swarmkey.New()
	relay := relayNode(t, key, RelayLimits{})
	a, _ := start(t, testOptions(t, key, relay))
	b, _ := start(t, testOptions(t, key, relay))
	eventually(t, "not all know each other", func() bool { return way(a, b) == WayDirect && way(b, a) == WayDirect })
	d, content := seed(t, a, 2<<20)
	fetch(t, b, a, d, content)
	if r := relay.Reachability(); r.Relaying != (Relaying{Enabled: true}) || r.BehindNAT {
		t.Errorf("the relay: %+v", r)
	}
	for _, n := range []*Node{a, b} {
		if r := n.Reachability(); r.BehindNAT || len(r.Relays) > 0 || n.s.reach.dialFrom(relay.host.Addrs()[0]) != 0 {
			t.Errorf("%+v", r)
		}
		if got := (streams{n}).Way(relay.ID()); got != exchange.Direct {
			t.Errorf("way %d", got)
		}
	}
}

// TestPunchedConnectionReplacesRelay: as soon as two members have got through to
// each other nothing is asked for over the relay any more.
func TestPunchedConnectionReplacesRelay(t *testing.T) {
	key := swarmkey.New()
	relay := relayNode(t, key, RelayLimits{})
	a := hiddenMember(t, key, relay)
	o := testOptions(t, key, relay) // this one can be dialled
	b, _ := start(t, o)
	eventually(t, "no circuit address", func() bool { return len(a.Reachability().Relays) > 0 })
	if err := b.host.Connect(t.Context(), peer.AddrInfo{ID: a.ID(), Addrs: a.Reachability().Relays}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no direct connection", func() bool { return way(b, a) == WayInbound && way(a, b) == WayDirect })
	d, content := seed(t, a, 3<<20)
	before := relay.Reachability().Relaying.Bytes
	fetch(t, b, a, d, content)
	if relayed := relay.Reachability().Relaying.Bytes - before; relayed > d.Size/4 {
		t.Errorf("%d bytes were relayed", relayed)
	}
}

// TestRelayRate: what is relayed keeps to the limits, that of a circuit and that
// of all.
func TestRelayRate(t *testing.T) {
	const size, rate = 3 << 20, 2 << 20
	for name, limits := range map[string]RelayLimits{"a circuit": {CircuitRate: rate}, "all": {Rate: rate}} {
		t.Run(name, func(t *testing.T) {
			key := swarmkey.New()
			relay := relayNode(t, key, limits)
			a, b := hiddenMember(t, key, relay), hiddenMember(t, key, relay)
			eventually(t, "no reservations", func() bool { return relay.Reachability().Relaying.Reservations == 2 })
			d, content := seed(t, a, size)
			began := time.Now()
			fetch(t, b, a, d, content)
			if took := time.Since(began); took < time.Second { // 1.5 s less what passes at once
				t.Errorf("%d bytes in %v at %d a second", size, took, rate)
			}
		})
	}
}

// TestCircuitsEnd: a circuit does not outlive its time.
func TestCircuitsEnd(t *testing.T) {
	key := swarmkey.New()
	relay := relayNode(t, key, RelayLimits{})
	a := hiddenMember(t, key, relay)
	m := &meteredHost{Host: relay.host, all: limiter(1 << 20), each: 1 << 20, life: 50 * time.Millisecond}
	<-a.JoinTried()
	s, err := m.NewStream(t.Context(), a.ID(), helloProtocol)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetReadDeadline(time.Now().Add(helloTimeout / 2))
	var timeout interface{ Timeout() bool }
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the stream is still open: %v", err)
	}
}

// TestRelayRoom: a relay takes no more reservations and circuits than it may.
func TestRelayRoom(t *testing.T) {
	key := swarmkey.New()
	relay := relayNode(t, key, RelayLimits{Reservations: 1, Circuits: 1})
	a := hiddenMember(t, key, relay)
	eventually(t, "no reservation", func() bool { return relay.Reachability().Relaying.Reservations == 1 })
	late := rawMember(t, key)
	if _, err := client.Reserve(t.Context(), late, peer.AddrInfo{ID: relay.ID(), Addrs: relay.host.Addrs()}); err == nil {
		t.Error("a second reservation")
	}
	info := peer.AddrInfo{ID: a.ID(), Addrs: a.Reachability().Relays}
	first, second := rawMember(t, key), rawMember(t, key)
	if err := first.Connect(network.WithForceDirectDial(t.Context(), "no relay"), info); err == nil {
		t.Error("a member behind NAT was dialled")
	}
	first.Network().(*swarm.Swarm).Backoff().Clear(a.ID())
	if err := first.Connect(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	if err := second.Connect(t.Context(), info); err == nil {
		t.Error("a second circuit")
	}
}

// TestSightings: which words of members make a node think that it is behind NAT.
func TestSightings(t *testing.T) {
	own := []netip.Prefix{netip.MustParsePrefix("192.168.1.2/24")}
	conn := func(dir network.Direction, local, remote string) network.Conn {
		return seenConn{local: ma.StringCast(local), remote: ma.StringCast(remote), dir: dir}
	}
	out := conn(network.DirOutbound, "/ip4/192.168.1.2/tcp/4001", "/ip4/192.0.2.1/tcp/4001")
	for name, test := range map[string]struct {
		o    Options
		c    network.Conn
		seen string
		want bool
	}{
		"as it is":           {Options{}, out, "192.168.1.2:4001", false},
		"translated":         {Options{}, out, "192.0.2.7:4001", true},
		"mapped":             {Options{}, out, "[::ffff:192.168.1.2]:4001", false},
		"who came in":        {Options{}, conn(network.DirInbound, "/ip4/192.168.1.2/tcp/4001", "/ip4/192.0.2.1/tcp/4001"), "192.0.2.7:4001", false},
		"over a relay":       {Options{}, conn(network.DirOutbound, "/ip4/192.168.1.2/tcp/4001", "/ip4/192.0.2.1/tcp/4001/p2p/"+someID+"/p2p-circuit"), "192.0.2.7:4001", false},
		"nonsense":           {Options{}, out, "0.0.0.0:1", false},
		"announced":          {Options{Announce: addrs("/ip4/192.0.2.7/tcp/4001")}, out, "192.0.2.7:4001", false},
		"the operator knows": {Options{NAT: NoNAT}, out, "192.0.2.7:4001", false},
		"said to be":         {Options{NAT: BehindNAT}, out, "192.168.1.2:4001", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReach(test.o)
			r.listensOn(4001)
			r.saw(test.c, test.seen, own)
			if r.behind() != test.want {
				t.Errorf("behind NAT: %v", r.behind())
			}
			if outside := r.outside(); (len(outside) > 0) != (test.seen == "192.0.2.7:4001" && test.c.Stat().Direction == network.DirOutbound && !isRelayed(test.c)) {
				t.Errorf("outside: %v", outside)
			}
		})
	}
}

// seenConn is a connection between two addresses.
type seenConn struct {
	network.Conn
	local, remote ma.Multiaddr
	dir           network.Direction
}

func (c seenConn) LocalMultiaddr() ma.Multiaddr  { return c.local }
func (c seenConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }
func (c seenConn) RemotePeer() peer.ID           { return someID }
func (c seenConn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Direction: c.dir}}
}

// TestStreamsNeedTheProof: a connection of libp2p does not make a member of who
// has another swarm's key for the piece channel.
func TestStreamsNeedTheProof(t *testing.T) {
	key := swarmkey.New()
	n, _ := start(t, testOptions(t, key))
	for name, c := range map[string]struct {
		key *swarmkey.Key
		ok  bool
	}{"a member": {key, true}, "another key": {swarmkey.New(), false}} {
		t.Run(name, func(t *testing.T) {
			raw := rawMember(t, key)
			if err := raw.Connect(t.Context(), peer.AddrInfo{ID: n.ID(), Addrs: n.host.Addrs()}); err != nil {
				t.Fatal(err)
			}
			ch, err := channel.New(raw.Peerstore().PrivKey(raw.ID()), c.key)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := gostream.Dial(t.Context(), raw, n.ID(), piecesProtocol)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := ch.DialOver(t.Context(), n.ID(), stream, false)
			if (err == nil) != c.ok || err != nil && !errors.Is(err, channel.ErrNotMember) {
				t.Errorf("error %v", err)
			}
			if err == nil {
				conn.Close()
			}
		})
	}
}

// TestMemberOfTheVersionBefore knows neither streams nor what the hello says
// about NAT, and trades with one that does, both ways.
func TestMemberOfTheVersionBefore(t *testing.T) {
	key := swarmkey.New()
	old, _ := start(t, testOptions(t, key))
	old.host.RemoveStreamHandler(piecesProtocol)
	old.host.SetStreamHandler(helloProtocol, func(s network.Stream) {
		h, err := readHello(s)
		if err == nil {
			err = writeHello(s, hello{Pieces: old.pieceAddrs(), Version: "before"})
		}
		if err == nil {
			old.greeter.put(s.Conn(), hello{Pieces: h.Pieces, Zone: h.Zone, Version: h.Version})
			_ = s.Close()
		}
	})
	n := relayNode(t, key, RelayLimits{})
	hidden := hiddenMember(t, key, old)
	for _, m := range []*Node{n, hidden} {
		if err := m.host.Connect(t.Context(), peer.AddrInfo{ID: old.ID(), Addrs: old.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	d, content := seed(t, old, 2<<20)
	fetch(t, n, old, d, content)
	fetch(t, hidden, old, d, content)
	d, content = seed(t, n, 2<<20)
	fetch(t, old, n, d, content)
}

package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"

	"shoal/p2p/swarmkey"
)

// nameServer is a DNS server on loopback. It knows the records that it was
// given last, and nothing else.
type nameServer struct {
	addr    string
	silence chan struct{} // it answers once this is closed

	mu      sync.Mutex
	records []dns.RR
}

func newNameServer(t *testing.T, silent bool) *nameServer {
	t.Helper()
	packets, streams := listenForBoth(t)
	s := &nameServer{addr: packets.LocalAddr().String(), silence: make(chan struct{})}
	end := sync.OnceFunc(func() { close(s.silence) })
	if !silent {
		end()
	}
	var running sync.WaitGroup
	var shutdown []func() error
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		running.Go(func() { _ = server.ActivateAndServe() })
		<-started
		shutdown = append(shutdown, server.Shutdown)
	}
	t.Cleanup(func() {
		end() // or who asked would wait beyond the test
		for _, stop := range shutdown {
			_ = stop() // it serves nobody any more
		}
		running.Wait()
	})
	return s
}

// listenForBoth finds a port that is free for UDP and, for answers over 512
// bytes, for TCP.
func listenForBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		streams, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, streams
		}
		_ = packets.Close() // somebody else has that one
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

// set replaces all records, in the notation of zone files.
func (s *nameServer) set(t *testing.T, records ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = nil
	for _, text := range records {
		record, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		s.records = append(s.records, record)
	}
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	<-s.silence
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := new(dns.Msg).SetReply(q)
	answer.Rcode = dns.RcodeNameError
	for _, r := range s.records {
		if strings.EqualFold(r.Header().Name, q.Question[0].Name) {
			answer.Rcode = dns.RcodeSuccess
			if r.Header().Rrtype == q.Question[0].Qtype {
				answer.Answer = append(answer.Answer, r)
			}
		}
	}
	if w.LocalAddr().Network() == "udp" {
		answer.Truncate(dns.MinMsgSize)
	}
	_ = w.WriteMsg(answer) // the asker may have gone
}

// resolver asks this server only.
func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.addr)
	}}
}

// optionsAt are those of a node on an address of the loopback network that
// joins what it is told, asking names for its way.
func optionsAt(t *testing.T, key *swarmkey.Key, at string, names *nameServer, join ...string) Options {
	t.Helper()
	o := testOptions(t, key)
	o.Swarm = addrs(at)
	o.Join, o.Resolver = addrs(join...), names.resolver()
	return o
}

// place returns the host and port of the node's only address.
func place(t *testing.T, n *Node) (host, port string) {
	t.Helper()
	host, port, err := hostPort(n.host.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// TestJoinByName: each way to say where members are leads to them, though
// nobody says which.
func TestJoinByName(t *testing.T) {
	key := swarmkey.New()
	a, _ := start(t, testOptions(t, key))
	b, _ := start(t, testOptions(t, key, a))
	<-b.JoinTried()
	_, portA := place(t, a)
	_, portB := place(t, b)
	names := newNameServer(t, false)
	names.set(t,
		"one.test. A 127.0.0.1",
		`_dnsaddr.with.test. TXT "dnsaddr=/ip4/127.0.0.1/tcp/`+portA+`/p2p/`+a.ID().String()+`"`,
		`_dnsaddr.with.test. TXT "dnsaddr=/ip4/127.0.0.1/udp/`+portA+`/quic-v1/p2p/`+a.ID().String()+`"`,
		`_dnsaddr.with.test. TXT "something else"`,
		`_dnsaddr.without.test. TXT "dnsaddr=/dns4/one.test/tcp/`+portA+`"`,
		`_dnsaddr.nested.test. TXT "dnsaddr=/dnsaddr/without.test"`,
		`_dnsaddr.both.test. TXT "dnsaddr=/ip4/127.0.0.1/tcp/`+portA+`/p2p/`+a.ID().String()+`"`,
		`_dnsaddr.both.test. TXT "dnsaddr=/ip4/127.0.0.1/tcp/`+portB+`/p2p/`+b.ID().String()+`"`,
	)
	for _, door := range []string{
		"/ip4/127.0.0.1/tcp/" + portA, "/dns4/one.test/tcp/" + portA, "/dns/one.test/tcp/" + portA,
		"/dns4/one.test/tcp/" + portA + "/p2p/" + a.ID().String(),
		"/dnsaddr/with.test", "/dnsaddr/without.test", "/dnsaddr/nested.test",
		"/dnsaddr/both.test/p2p/" + a.ID().String(),
	} {
		t.Run(door, func(t *testing.T) {
			n, stop := start(t, optionsAt(t, key, "/ip4/127.0.0.1/tcp/0", names, door))
			defer stop()
			<-n.JoinTried()
			if !n.connected(a.ID()) {
				t.Error("not joined")
			}
			found := "a blob of " + door
			d := put(t, n.s.Cache, found)
			if err := n.Provide(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			eventually(t, "b does not find what n announces", func() bool { return len(holders(t, b, d)) == 1 })
		})
	}
}

// TestHeadlessService: a name has the addresses of all members, one of them the
// node's own. It joins them all, and once it knows enough members, it looks at
// one more now and then.
func TestHeadlessService(t *testing.T) {
	const count = 21 // a bucketful of others, and the node
	key := swarmkey.New()
	names := newNameServer(t, false)
	first, _ := start(t, optionsAt(t, key, "/ip4/127.1.0.1/tcp/0", names))
	_, port := place(t, first)
	door := "/dns4/swarm.test/tcp/" + port
	nodes := []*Node{first}
	records := []string{"swarm.test. A 127.1.0.1"}
	for i := 2; i <= count; i++ {
		o := optionsAt(t, key, fmt.Sprintf("/ip4/127.1.0.%d/tcp/%s", i, port), names)
		if i == count {
			o.Join = addrs(door)
		}
		n, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
		records = append(records, fmt.Sprintf("swarm.test. A 127.1.0.%d", i))
	}
	names.set(t, records...)
	var stops []func()
	for _, n := range nodes[1:] {
		stops = append(stops, run(t, n))
	}
	defer func() { // together, as each takes a second
		var all sync.WaitGroup
		for _, stop := range stops {
			all.Go(stop)
		}
		all.Wait()
	}()
	last := nodes[count-1]
	<-last.JoinTried()
	eventually(t, "not all members are joined", func() bool { return last.Peers() == count-1 })
	if last.connected(last.ID()) {
		t.Error("the node is connected to itself")
	}
	look := func() int {
		behind, err := last.joiner.behind(t.Context(), ma.StringCast(door))
		if err != nil {
			t.Fatal(err)
		}
		return len(behind)
	}
	if n := look(); n != 0 {
		t.Errorf("%d addresses of connected members are dialled again", n)
	}
	for i := 1; i < 10; i++ {
		records = append(records, fmt.Sprintf("swarm.test. A 127.1.1.%d", i))
	}
	names.set(t, records...)
	if n := look(); n > 1 {
		t.Errorf("%d addresses are dialled by a node that knows enough members, want 1", n)
	}
}

// TestManyBehindAName: of a long answer a part is tried, another one each time.
func TestManyBehindAName(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	dialled := make(chan string, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dialled <- c.LocalAddr().String()
			c.Close()
		}
	}()
	defer func() { l.Close(); <-done }()
	names := newNameServer(t, false)
	var records []string
	for i := range 90 {
		records = append(records, fmt.Sprintf("swarm.test. A 127.2.0.%d", i+1))
	}
	names.set(t, records...)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, err := New(optionsAt(t, swarmkey.New(), "/ip4/127.0.0.1/tcp/0", names))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	seen := [2]map[string]bool{{}, {}}
	for _, round := range seen {
		if err := n.joiner.enter(t.Context(), ma.StringCast("/dns4/swarm.test/tcp/"+port)); err == nil {
			t.Error("joined nobody")
		}
		for len(dialled) > 0 {
			round[<-dialled] = true
		}
		if len(round) != maxBehindDoor {
			t.Errorf("%d addresses were dialled, want %d", len(round), maxBehindDoor)
		}
	}
	if slices.Equal(slices.Sorted(maps.Keys(seen[0])), slices.Sorted(maps.Keys(seen[1]))) {
		t.Error("the same addresses were dialled twice")
	}
}

// TestStrangersBehindAName: an address of another swarm, one that is silent and
// one where nobody is do not keep a node from the member among them.
func TestStrangersBehindAName(t *testing.T) {
	key := swarmkey.New()
	names := newNameServer(t, false)
	stranger, _ := start(t, optionsAt(t, swarmkey.New(), "/ip4/127.3.0.1/tcp/0", names))
	_, port := place(t, stranger)
	silent, err := net.Listen("tcp", "127.3.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	member, _ := start(t, optionsAt(t, key, "/ip4/127.3.0.4/tcp/"+port, names))
	names.set(t, "swarm.test. A 127.3.0.1", "swarm.test. A 127.3.0.2", "swarm.test. A 127.3.0.3", "swarm.test. A 127.3.0.4")
	n, _ := start(t, optionsAt(t, key, "/ip4/127.3.0.5/tcp/"+port, names, "/dns4/swarm.test/tcp/"+port))
	eventually(t, "the member is not joined", func() bool { return n.connected(member.ID()) })
	if n.Peers() != 1 || stranger.Joined() {
		t.Errorf("%d members are connected, one of them the stranger: %v", n.Peers(), stranger.Joined())
	}
}

// TestNameThatComesLater: a name that is not known yet, or leads nowhere, is no
// reason not to be ready; when it leads to a member, and when that moves on, the
// node follows.
func TestNameThatComesLater(t *testing.T) {
	key := swarmkey.New()
	names := newNameServer(t, false)
	a, stop := start(t, optionsAt(t, key, "/ip4/127.4.0.1/tcp/0", names))
	_, port := place(t, a)
	n, _ := start(t, optionsAt(t, key, "/ip4/127.4.0.2/tcp/"+port, names, "/dns4/swarm.test/tcp/"+port))
	<-n.JoinTried()
	if n.Joined() {
		t.Fatal("joined without a name")
	}
	names.set(t, "swarm.test. A 127.4.0.1")
	eventually(t, "not joined once the name is there", func() bool { return n.dht.RoutingTable().Find(a.ID()) != "" })
	stop()
	b, _ := start(t, optionsAt(t, key, "/ip4/127.4.0.3/tcp/"+port, names))
	names.set(t, "swarm.test. A 127.4.0.3")
	eventually(t, "not joined where the name leads now", func() bool { return n.connected(b.ID()) })
}

// TestSilentNameServer: a node is ready within 3 s though its name server does
// not answer.
func TestSilentNameServer(t *testing.T) {
	n, _ := start(t, optionsAt(t, swarmkey.New(), "/ip4/127.0.0.1/tcp/0", newNameServer(t, true), "/dns4/swarm.test/tcp/1"))
	select {
	case <-n.JoinTried():
	case <-time.After(10 * time.Second): // 3, and the rest for a busy machine; a name server may take 12
		t.Error("still waiting for a name server that does not answer")
	}
}

// TestDoorsAreLookedAtAgain: also when they led in, or two parts of a fleet
// would never meet; soon when they did not, or when all members are lost.
func TestDoorsAreLookedAtAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		lost   bool
		within time.Duration
	}{
		{"joined", nil, false, lookAgain + rejoinFirst},
		{"joined and lost", nil, true, rejoinFirst},
		{"not joined", errors.New("no such host"), false, rejoinFirst},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				j := &joiner{n: &Node{log: slog.New(slog.DiscardHandler)}}
				lost := make(chan struct{}, 1)
				var looks []time.Time
				j.keep(ctx, target{name: ma.StringCast("/dnsaddr/swarm.test"), lost: lost, again: lookAgain, join: func(context.Context) error {
					if looks = append(looks, time.Now()); len(looks) == 2 {
						cancel()
					}
					if tt.lost {
						lost <- struct{}{}
					}
					return tt.err
				}}, func() {})
				if got := looks[1].Sub(looks[0]); got > tt.within || got < tt.within/2 {
					t.Errorf("looked again after %v, want %v to %v", got, tt.within/2, tt.within)
				}
			})
		})
	}
}

package p2p

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"shoal/blobcache/blob"
	"shoal/p2p/pnet"
)

const (
	// dialTimeout bounds a dial to one address, TCP and handshakes. A member
	// that is alive answers in a few round trips; a dead host behind a router
	// that drops packets must not cost more than a pull can bear. It bounds the
	// first attempt to join, too, which must be over within 3 s (JoinTried).
	dialTimeout = 2500 * time.Millisecond
	// keepLow and keepHigh are the connection manager's marks: over keepHigh
	// connections the least useful go until keepLow are left. Both ends of one
	// cost about 160 KB; a DHT of 10,000 members needs some 150.
	keepLow, keepHigh = 192, 256
	// maxConns bounds libp2p connections: room over keepHigh for crowds that
	// the connection manager has not got round to.
	maxConns = 1024
	// relayDelay is how long a member's own addresses have before it is dialled
	// over a relay: a round trip of the network and a handshake.
	relayDelay = 300 * time.Millisecond
)

// newHost opens the libp2p host. Everything that reaches out to the public
// libp2p network (AutoNAT, AutoRelay, NAT mapping) stays off: in a swarm of
// private addresses libp2p's would see no NAT, or nothing but NATs. What takes
// its place is in reach.go, relay.go, reserve.go and punch.go.
func newHost(s settings) (host.Host, error) {
	limits, err := newLimits(openFiles())
	if err != nil {
		return nil, fmt.Errorf("p2p: resource limits: %w", err)
	}
	cm, err := connmgr.NewConnManager(keepLow, keepHigh, connmgr.WithGracePeriod(20*time.Second))
	if err != nil {
		return nil, fmt.Errorf("p2p: connection manager: %w", err)
	}
	h, err := libp2p.New(
		libp2p.Identity(s.Identity),
		libp2p.UserAgent("shoal/"+s.Version),
		libp2p.Transport(pnet.Transport(s.Key.Transport(), dialTimeout, s.reach.dialFrom)),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Muxer(yamux.ID, newMuxer()),
		libp2p.NoListenAddrs, // libp2p.New leaks a host whose addresses are taken
		libp2p.AddrsFactory(s.tell),
		libp2p.MultiaddrResolver(newResolver(s.Resolver)),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(cm),
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.SwarmOpts(swarm.WithDialTimeoutLocal(dialTimeout), swarm.WithDialRanker(rankAddrs)),
		libp2p.EnableRelay(), // to dial over relays, and to be dialled
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ForceReachabilityPublic(), // without a verdict AutoNAT would ask around
		libp2p.DisableMetrics(),
		libp2p.Ping(false),
	)
	if err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	for _, a := range s.Swarm {
		if err := listenOn(h, a); err != nil {
			_ = h.Close()
			return nil, fmt.Errorf("p2p: swarm %s: %w", a, rootCause(err))
		}
	}
	for _, a := range h.Network().ListenAddresses() {
		if at, err := tcpAddr(a); err == nil { // /p2p-circuit is none
			s.reach.listensOn(int(at.Port()))
			break
		}
	}
	return h, nil
}

// newMuxer returns yamux with a first window that holds a piece: with 256 KiB,
// which is the default, a stream stands still for a round trip after each
// quarter of one until its window has grown. A member's share of memory allows
// 64 streams, so what it can make this node hold is bounded by 64 pieces.
func newMuxer() *yamux.Transport {
	config := *yamux.DefaultTransport.Config()
	config.InitialStreamWindowSize = blob.PieceSize
	return (*yamux.Transport)(&config)
}

// rankAddrs has all addresses of a member dialled at once, but those over
// relays only when the others had their time: the relay is for those who cannot
// be reached otherwise.
func rankAddrs(addrs []ma.Multiaddr) []network.AddrDelay {
	direct := slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return !isCircuit(a) })
	ranked := make([]network.AddrDelay, 0, len(addrs))
	for _, a := range addrs {
		delay := time.Duration(0)
		if direct && isCircuit(a) {
			delay = relayDelay
		}
		ranked = append(ranked, network.AddrDelay{Addr: a, Delay: delay})
	}
	return ranked
}

// listenOn is Network().Listen with an error that can be looked into. Ports are
// shared with connections that this node opens (pnet.Transport), and not with
// another node: both would start, and each would get some of the connections.
func listenOn(h host.Host, a ma.Multiaddr) error {
	alone, err := manet.Listen(a)
	if err != nil {
		return err
	}
	if err := alone.Close(); err != nil {
		return err
	}
	if s, ok := h.Network().(*swarm.Swarm); ok {
		return s.AddListenAddr(a)
	}
	return h.Network().Listen(a)
}

// rootCause leaves out "listen tcp ADDRESS", as the address is told anyway.
func rootCause(err error) error {
	var system *net.OpError
	if errors.As(err, &system) {
		return system.Err
	}
	return err
}

// tell chooses the addresses that others hear of: those of --announce, else
// what the node listens on, without loopback if there is anything else; and
// those over relays if others cannot dial it.
func (s settings) tell(listening []ma.Multiaddr) []ma.Multiaddr {
	addrs := s.Announce
	if len(addrs) == 0 {
		addrs = distant(listening)
	}
	return append(slices.Clone(addrs), s.reach.relays()...)
}

// distant leaves out loopback and link-local addresses if there are others: a
// member elsewhere that dials 127.0.0.1 reaches itself.
func distant(addrs []ma.Multiaddr) []ma.Multiaddr {
	var far []ma.Multiaddr
	for _, a := range addrs {
		if !manet.IsIPLoopback(a) && !manet.IsIP6LinkLocal(a) {
			far = append(far, a)
		}
	}
	if len(far) == 0 {
		return addrs
	}
	return far
}

// openFiles returns how many files this process may have open.
func openFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // what Linux gives when nobody asked for more
	}
	return int(min(l.Cur, 1<<20))
}

// newLimits returns the resource manager of a process that may have files open
// files. libp2p's own lets 8 connections in from one IPv4 address, and a new
// one every 5 s: members behind one NAT, or pods behind one node's address,
// would lock each other out. Here an address may take all of the connections;
// the rate at which it may try is bounded, because a handshake costs 5 ms of
// CPU (strangers do not get that far: package pnet).
func newLimits(files int) (network.ResourceManager, error) {
	// Half of the files are left for blobs, clients and the piece channel.
	conns := max(16, min(maxConns, files/4))
	cfg := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: rcmgr.LimitVal(conns), ConnsInbound: rcmgr.LimitVal(conns * 3 / 4), ConnsOutbound: rcmgr.LimitVal(conns),
			FD: rcmgr.LimitVal(conns), Streams: 16384, StreamsInbound: 8192, StreamsOutbound: 8192, Memory: 128 << 20,
		},
		Transient: rcmgr.ResourceLimits{ // not authenticated yet
			Conns: rcmgr.LimitVal(conns / 2), ConnsInbound: rcmgr.LimitVal(conns / 4), ConnsOutbound: rcmgr.LimitVal(conns / 2),
			FD: rcmgr.LimitVal(conns / 2), Streams: 1024, StreamsInbound: 512, StreamsOutbound: 512, Memory: 32 << 20,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 8, ConnsInbound: 8, ConnsOutbound: 8, FD: 8,
			Streams: 512, StreamsInbound: 256, StreamsOutbound: 256, Memory: 16 << 20,
		},
	}
	attempts := rate.Limit{RPS: 50, Burst: maxConns}
	return rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(cfg.Build(rcmgr.InfiniteLimits)),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: conns}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: conns}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{ // not limited
				{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
			},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: attempts}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: attempts}},
				GracePeriod:      time.Minute,
			},
		}),
		rcmgr.WithMetricsDisabled(),
	)
}

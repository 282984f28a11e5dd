package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache"
	"shoal/blobcache/pace"
	"shoal/blobcache/statement"
	"shoal/blobcache/trace"
	"shoal/p2p/swarmkey"
	"shoal/p2p/wire"
)

// ErrNeedsKey says that without a swarm key a node keeps to the loopback interface.
var ErrNeedsKey = errors.New("without a swarm key only loopback addresses are allowed")

// OptionError says which option cannot be used, and why. It is the user's
// mistake; an address that is taken is not one.
type OptionError struct {
	Option string // as on the command line: "swarm", "join", "pieces", ...
	Value  string
	Err    error
}

func (e *OptionError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: %v", e.Option, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.Option, e.Value, e.Err)
}

func (e *OptionError) Unwrap() error { return e.Err }

// Options say who a node is and where it meets others.
type Options struct {
	Identity crypto.PrivKey   // required
	Cache    *blobcache.Cache // required: what is announced, served and filled
	// Key closes the swarm. Nil means a swarm of the loopback interface.
	Key *swarmkey.Key
	// Swarm are the TCP addresses to listen on. Default: port 4001 of all
	// IPv4 interfaces with a key, of 127.0.0.1 without.
	Swarm []ma.Multiaddr
	// Announce are the addresses to tell others instead of those that the node
	// finds itself (containers, NAT). The piece channel is announced under
	// their hosts, with its own port.
	Announce []ma.Multiaddr
	// Join are members to start from, /ip4/1.2.3.4/tcp/4001/p2p/ID, or places
	// where members are: /ip4/1.2.3.4/tcp/4001, /dns4/NAME/tcp/4001 with any
	// number of addresses, /dnsaddr/NAME. The node itself may be among them.
	Join []ma.Multiaddr
	// Resolver looks up the names in Join; nil is the system's.
	Resolver *net.Resolver
	// Pieces is the "host:port" of the piece channel. Default: the host of the
	// first swarm address, any free port.
	Pieces string
	// PieceListener is used instead of opening Pieces, for sockets that somebody
	// else opened; the node closes it.
	PieceListener net.Listener
	// WrapPieces wraps the handler of the piece channel; nil leaves it as it is.
	WrapPieces func(http.Handler) http.Handler
	// NoMDNS turns off the search for members on the local network, which is
	// never done without a key.
	NoMDNS bool
	// Zone names the place that the node is in; pieces come from the own zone
	// first. At most wire.MaxZone bytes of printable ASCII. May be empty.
	Zone string
	// NAT says whether others can dial the node from outside its network.
	// Default: it finds out, unless Announce says where.
	NAT NAT
	// Relay has the node carry bytes between members that cannot reach each
	// other; nil: it does not.
	Relay *RelayLimits
	// TrustedKeys are those whose statements count: Obey is called, from any
	// goroutine, once for each that members tell.
	TrustedKeys []statement.Key
	Obey        func(statement.Invalidation)
	// Lease is called like Obey, for leases of tags; nil passes them on only.
	Lease func(statement.Lease)
	// Upload and Download limit the bytes of pieces to members and from them; nil
	// does not.
	Upload, Download *pace.Limiter
	// Patience is that of the exchange, for tests; 0 is as nodes run.
	Patience time.Duration
	// Preheat fetches what a trusted key orders, and tells how far it is, in
	// at most wire.MaxPush bytes; it returns when it has ended or ctx has. Nil
	// refuses.
	Preheat func(ctx context.Context, said statement.Preheat, tell func([]byte))
	// Version of the software, told to other members.
	Version string
	Logger  *slog.Logger          // required
	Metrics prometheus.Registerer // nil: none
	// Trace is shown each fill when it begins, and must return at once; nil: none
	// is recorded.
	Trace func(*trace.Live)
}

// settings are checked Options with the defaults filled in.
type settings struct {
	Options
	id     peer.ID
	join   []peer.AddrInfo // without this node
	doors  []ma.Multiaddr  // what to join that does not say who is there
	pieces string
	reach  *reach
}

func (o Options) check() (settings, error) {
	s := settings{Options: o, reach: newReach(o)}
	if o.Identity == nil || o.Cache == nil || o.Logger == nil {
		return s, errors.New("p2p: identity, cache and logger are required")
	}
	id, err := peer.IDFromPrivateKey(o.Identity)
	if err != nil {
		return s, fmt.Errorf("p2p: %w", err)
	}
	s.id = id
	keyless := o.Key == nil || o.Key.Loopback()
	if keyless {
		s.Key, s.NoMDNS = swarmkey.Loopback(), true
	}
	if len(s.Swarm) == 0 {
		s.Swarm = []ma.Multiaddr{ma.StringCast("/ip4/0.0.0.0/tcp/4001")}
		if keyless {
			s.Swarm[0] = ma.StringCast("/ip4/127.0.0.1/tcp/4001")
		}
	}
	if err := s.checkAddresses(keyless); err != nil {
		return s, err
	}
	if !wire.ValidText(o.Zone, wire.MaxZone) {
		return s, &OptionError{"zone", "", fmt.Errorf("at most %d printable ASCII characters", wire.MaxZone)}
	}
	return s, nil
}

func (s *settings) checkAddresses(keyless bool) error {
	for _, a := range s.Swarm {
		if _, err := tcpAddr(a); err != nil {
			return &OptionError{"swarm", a.String(), err}
		}
		if keyless && !manet.IsIPLoopback(a) {
			return &OptionError{"swarm", a.String(), ErrNeedsKey}
		}
	}
	for _, a := range s.Announce {
		if keyless && !manet.IsIPLoopback(a) {
			return &OptionError{"announce", a.String(), ErrNeedsKey}
		}
		if _, _, err := hostPort(a); err != nil {
			return &OptionError{"announce", a.String(), err}
		}
	}
	for _, a := range s.Join {
		if err := s.checkJoin(a, keyless); err != nil {
			return &OptionError{"join", a.String(), err}
		}
	}
	return s.checkPieces(keyless)
}

// checkJoin sorts an address to join: it is a member's, or a door.
func (s *settings) checkJoin(a ma.Multiaddr, keyless bool) error {
	place, id := peer.SplitAddr(a)
	if keyless && !manet.IsIPLoopback(place) {
		return ErrNeedsKey
	}
	byName := len(place) == 1 && place[0].Protocol().Code == ma.P_DNSADDR
	if _, _, err := hostPort(place); err != nil && !byName {
		return errors.New("want /ip4/192.0.2.1/tcp/4001/p2p/ID (`shoal id` prints the ID), /dns4/NAME/tcp/4001 or /dnsaddr/NAME")
	}
	switch {
	case byName || id == "":
		s.doors = append(s.doors, a)
	case id != s.id:
		s.join = append(s.join, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{place}})
	}
	return nil
}

func (s *settings) checkPieces(keyless bool) error {
	s.pieces = s.Pieces
	if s.pieces == "" {
		first, err := tcpAddr(s.Swarm[0])
		if err != nil {
			return &OptionError{"swarm", s.Swarm[0].String(), err}
		}
		s.pieces = netip.AddrPortFrom(first.Addr(), 0).String()
	}
	host, _, err := net.SplitHostPort(s.pieces)
	if err != nil {
		return &OptionError{"pieces", s.pieces, errors.New("want HOST:PORT")}
	}
	if ip, err := netip.ParseAddr(host); keyless && host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return &OptionError{"pieces", s.pieces, ErrNeedsKey}
	}
	return nil
}

// tcpAddr returns the IP address and TCP port that a names.
func tcpAddr(a ma.Multiaddr) (netip.AddrPort, error) {
	host, port, err := hostPort(a)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return addr, errors.New("want an IP address to listen on")
	}
	return addr, nil
}

// hostPort returns the host and TCP port of an address of the form
// /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT and nothing behind it.
func hostPort(a ma.Multiaddr) (host, port string, err error) {
	bad := errors.New("want /ip4/ADDRESS/tcp/PORT (ip6, dns, dns4, dns6)")
	if len(a) != 2 || a[1].Protocol().Code != ma.P_TCP {
		return "", "", bad
	}
	switch a[0].Protocol().Code {
	case ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
		return a[0].Value(), a[1].Value(), nil
	}
	return "", "", bad
}

package p2p

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"

	"shoal/p2p/exchange"
)

// piecesProtocol is the piece channel over a stream of a libp2p connection: the
// same as on its own port, TLS and the proof of membership included. That both
// are there already does not matter: a relay or a NAT changes who carries the
// bytes, not what a member has to prove before it gets any, and the proof is
// bound to the TLS session, of which a stream has none of its own.
const piecesProtocol = protocol.ID("/shoal/pieces/1")

// streams reach members whose piece channel cannot be dialled.
type streams struct{ n *Node }

// Way returns how a member is reached now.
func (s streams) Way(id peer.ID) exchange.Way {
	h, ok := s.n.greeter.get(id)
	if !ok || !h.NAT {
		return exchange.Direct
	}
	way := exchange.Relayed
	for _, c := range s.n.host.Network().ConnsToPeer(id) {
		switch {
		case isRelayed(c):
		case slices.Contains(hosts(h.Pieces), ipOf(c)):
			// It is seen under an address of its own: there is no NAT between.
			return exchange.Direct
		default:
			way = exchange.Stream
		}
	}
	return way
}

// Open opens a stream, over the best connection to the member that there is or
// that its known addresses lead to.
func (s streams) Open(ctx context.Context, id peer.ID) (net.Conn, error) {
	return gostream.Dial(ctx, s.n.host, id, piecesProtocol)
}

// listenOnStreams returns the listener of streams to the piece channel.
func (n *Node) listenOnStreams() (net.Listener, error) {
	l, err := gostream.Listen(n.host, piecesProtocol)
	if err != nil {
		return nil, fmt.Errorf("p2p: streams: %w", err)
	}
	return l, nil
}

// hosts returns the IP addresses among "host:port" addresses.
func hosts(addrs []string) []netip.Addr {
	var ips []netip.Addr
	for _, a := range addrs {
		if at, err := netip.ParseAddrPort(a); err == nil {
			ips = append(ips, at.Addr().Unmap())
		}
	}
	return ips
}

// Ways in which a member is reached, for people.
const (
	WayDirect      = "direct"
	WayInbound     = "inbound"      // over the connection that it opened: it cannot be dialled
	WayHolePunched = "hole-punched" // both dialled at once, through their NATs
	WayRelayed     = "relayed"      // another member carries the bytes
)

// wayOf says how the member at the other end of c is reached.
func (n *Node) wayOf(c network.Conn, h hello) string {
	switch {
	case isRelayed(c):
		return WayRelayed
	case n.puncher.made(c):
		return WayHolePunched
	case h.NAT && c.Stat().Direction == network.DirInbound && !slices.Contains(hosts(h.Pieces), ipOf(c)):
		return WayInbound
	}
	return WayDirect
}

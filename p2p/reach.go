package p2p

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"shoal/blobcache/lru"
)

// NAT says whether a node is behind one: others cannot dial it from outside its
// own network, because of address translation or a firewall.
type NAT int

// What is known, or said by the operator.
const (
	// NATUnknown: the node finds out by what members see of it.
	NATUnknown NAT = iota
	BehindNAT
	NoNAT
)

// maxSightings is how many members' words on where they see this node are kept.
const maxSightings = 64

// reach is what a node knows of how others reach it.
//
// A member sees each connection under an address. If that is not one of this
// node's own, addresses are translated between the two, and the member could
// not have dialled. Address ranges say nothing: swarms live in private ones,
// and so do edge sites. What looks flat is left as it is: nobody is asked to
// dial back. A firewall that translates nothing is not noticed; the operator
// says so.
type reach struct {
	said NAT // by the operator

	mu        sync.Mutex
	sightings *lru.Cache[peer.ID, sighting]
	port      int            // that the node listens on
	circuits  []ma.Multiaddr // by which relays lead here
}

// sighting is where a member sees this node.
type sighting struct {
	at      netip.AddrPort
	foreign bool // it is not this node's own address
	listens bool // the connection came from the port that the node listens on
}

func newReach(o Options) *reach {
	r := &reach{said: o.NAT}
	if r.said == NATUnknown && len(o.Announce) > 0 {
		r.said = NoNAT // the operator knows addresses that lead here
	}
	r.sightings = lru.New[peer.ID, sighting](maxSightings)
	return r
}

// behind reports whether the node is behind NAT, as far as is known.
func (r *reach) behind() bool {
	if r.said != NATUnknown {
		return r.said == BehindNAT
	}
	return slices.ContainsFunc(r.sightings.Values(), func(s sighting) bool { return s.foreign })
}

// saw takes in where a member says that it sees this node's end of c, and
// reports whether that changed what is known. Only what this node dialled
// counts: of a connection that came in the other end is where it is dialled.
func (r *reach) saw(c network.Conn, seen string, own []netip.Prefix) (changed bool) {
	at, err := netip.ParseAddrPort(seen)
	local, lerr := tcpAddr(c.LocalMultiaddr())
	if err != nil || lerr != nil || c.Stat().Direction != network.DirOutbound || isRelayed(c) {
		return false
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return false
	}
	before := r.behind()
	r.mu.Lock()
	listens := int(local.Port()) == r.port
	r.mu.Unlock()
	isOwn := slices.ContainsFunc(own, func(n netip.Prefix) bool { return n.Addr() == at.Addr() })
	r.sightings.Add(c.RemotePeer(), sighting{at: at, foreign: !isOwn, listens: listens})
	return r.behind() != before
}

// outside are the addresses under which the port that the node listens on is
// seen beyond the NAT. Who dials one gets through only while the node dials
// back from that port.
func (r *reach) outside() []ma.Multiaddr {
	var all []ma.Multiaddr
	for _, s := range r.sightings.Values() {
		if !s.foreign || !s.listens {
			continue
		}
		if a, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(s.at)); err == nil {
			all = append(all, a)
		}
	}
	return ma.Unique(all)
}

// dialFrom is the port that a connection to an address is to be opened from, 0
// for any: a NAT sends what comes back for that port here, so that others can
// get through. Within a network there is no NAT to get through, and two that
// dial each other from the ports that they listen on make one connection, on
// which both are the dialler.
func (r *reach) dialFrom(to ma.Multiaddr) int {
	if !r.behind() || onLink(to) {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.port
}

func (r *reach) listensOn(port int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.port = port
}

// relayedBy sets the circuit addresses that others are told, and reports
// whether they are new.
func (r *reach) relayedBy(circuits []ma.Multiaddr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	same := slices.EqualFunc(r.circuits, circuits, ma.Multiaddr.Equal)
	r.circuits = circuits
	return !same
}

// relays are the circuit addresses that others are told.
func (r *reach) relays() []ma.Multiaddr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.circuits)
}

// ownNetworks are the addresses of this machine, with the networks that they
// are in.
func ownNetworks() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // then everything is foreign
	}
	var own []netip.Prefix
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix)
		}
	}
	return own
}

// onLink reports whether an address is in a network that this machine is in.
func onLink(a ma.Multiaddr) bool {
	at, err := tcpAddr(a)
	return err == nil && slices.ContainsFunc(ownNetworks(), func(n netip.Prefix) bool { return n.Contains(at.Addr().Unmap()) })
}

// isRelayed reports whether another member carries the connection.
func isRelayed(c network.ConnMultiaddrs) bool { return isCircuit(c.RemoteMultiaddr()) }

func isCircuit(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

package p2p

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Member is a connected member of the swarm, for people to look at.
type Member struct {
	Peer peer.ID
	Addr ma.Multiaddr // its end of the connection
	// Zone and Version are what it said in its hello; empty before.
	Zone, Version string
	Way           string // WayDirect, ...
}

// Members returns the members that are connected, in the order of their IDs.
func (n *Node) Members() []Member {
	var members []Member
	for _, c := range n.host.Network().Conns() {
		h, _ := n.greeter.get(c.RemotePeer())
		members = append(members, Member{Peer: c.RemotePeer(), Addr: c.RemoteMultiaddr(), Zone: h.Zone, Version: h.Version, Way: n.wayOf(c, h)})
	}
	relayed := func(m Member) int { return number(m.Way == WayRelayed) }
	slices.SortStableFunc(members, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Peer, b.Peer), relayed(a)-relayed(b)) })
	// There may be several connections to one.
	return slices.CompactFunc(members, func(a, b Member) bool { return a.Peer == b.Peer })
}

// countWays returns how many members are reached which way.
func (n *Node) countWays() map[string]int {
	count := make(map[string]int)
	for _, m := range n.Members() {
		count[m.Way]++
	}
	return count
}

// Reachability is how others reach a node, and what it does for those that
// cannot be reached, for people to look at.
type Reachability struct {
	BehindNAT bool
	// Relays are the circuit addresses under which others reach it.
	Relays []ma.Multiaddr
	// Relaying is what it carries for others; zero if it is no relay.
	Relaying Relaying
}

// Relaying is what a relay carries.
type Relaying struct {
	Enabled                bool
	Bytes                  int64 // since its start
	Circuits, Reservations int   // now
}

// Reachability returns how others reach this node.
func (n *Node) Reachability() Reachability {
	r := Reachability{BehindNAT: n.s.reach.behind(), Relays: n.s.reach.relays()}
	if n.relay != nil {
		r.Relaying = Relaying{
			Enabled: true, Bytes: n.relay.bytes.Load(),
			Circuits: int(n.relay.circuits.Load()), Reservations: int(n.relay.reservations.Load()),
		}
	}
	return r
}

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
}

// Members returns the members that are connected, in the order of their IDs.
func (n *Node) Members() []Member {
	var members []Member
	for _, c := range n.host.Network().Conns() {
		h, _ := n.greeter.get(c.RemotePeer())
		members = append(members, Member{Peer: c.RemotePeer(), Addr: c.RemoteMultiaddr(), Zone: h.Zone, Version: h.Version})
	}
	byPeer := func(a, b Member) int { return cmp.Compare(a.Peer, b.Peer) }
	slices.SortStableFunc(members, byPeer)
	// There may be several connections to one.
	return slices.CompactFunc(members, func(a, b Member) bool { return a.Peer == b.Peer })
}

package p2p

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

// searchLocally announces this node on the local network and connects to the
// members that it sees there, until ctx is done. The service names come from
// the swarm key, so members of other swarms do not answer. A machine without
// multicast is no error: mDNS is one way of several.
func (n *Node) searchLocally(ctx context.Context) {
	for _, name := range n.s.Key.ServiceNames() {
		service := mdns.NewMdnsService(n.host, name, notifee{ctx, n})
		if err := service.Start(); err != nil {
			n.log.Info("mDNS is not available", "err", err)
			return
		}
		defer func() { _ = service.Close() }()
	}
	<-ctx.Done()
}

// notifee connects to members that mDNS found.
type notifee struct {
	ctx context.Context // of searchLocally: the interface hands none down
	n   *Node
}

// HandlePeerFound runs in a goroutine of the mDNS service, one per member.
func (f notifee) HandlePeerFound(info peer.AddrInfo) {
	ctx, end, ok := f.n.tasks.begin(f.ctx)
	if !ok {
		return
	}
	defer end()
	if f.n.connected(info.ID) {
		return
	}
	info.Addrs = distant(info.Addrs) // mDNS announces 127.0.0.1 too
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := f.n.host.Connect(ctx, info); err != nil {
		f.n.log.Debug("member on the local network not reached", "peer", info.ID, "err", err)
	}
}

package p2p

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
)

// relayedFor is how long a relayed connection lives on beside a direct one:
// what is on its way over the relay comes to its end, nothing new begins.
const relayedFor = 10 * time.Second

// puncher replaces relayed connections by direct ones: over the relayed one the
// two agree to dial each other at the same moment, so that each NAT takes what
// comes from outside for an answer (DCUtR of libp2p). libp2p tells the other end
// public addresses only; here it is where members see the node.
type puncher struct {
	n       *Node
	service *holepunch.Service

	mu      sync.Mutex
	punched map[peer.ID]bool // members with a direct connection that was made so
}

func newPuncher(n *Node) *puncher { return &puncher{n: n, punched: make(map[peer.ID]bool)} }

// start begins to replace connections.
func (p *puncher) start() (err error) {
	p.service, err = holepunch.NewService(p.n.host, p.ids(), p.addrs,
		holepunch.DirectDialTimeout(dialTimeout), holepunch.WithTracer(p), holepunch.WithAddrFilter(p))
	if err != nil {
		return fmt.Errorf("p2p: hole punching: %w", err)
	}
	p.n.host.Network().Notify(&network.NotifyBundle{ConnectedF: p.connected, DisconnectedF: p.disconnected})
	return nil
}

// ids is the service by which members tell their addresses.
func (p *puncher) ids() identify.IDService {
	return p.n.host.(interface{ IDService() identify.IDService }).IDService() // every host of libp2p.New has one
}

// close ends what runs.
func (p *puncher) close() {
	if p.service != nil {
		_ = p.service.Close() // it says nothing
	}
}

// addrs are those that the other end dials.
func (p *puncher) addrs() []ma.Multiaddr {
	own := slices.DeleteFunc(p.n.host.Addrs(), isCircuit)
	return append(p.n.s.reach.outside(), own...)
}

// FilterLocal tells a member no addresses that can be dialled itself: it needs
// no hole (reverse), and two that take each other for somebody behind NAT would
// wait for each other. Which of them it is the hello says, which is on its way.
func (p *puncher) FilterLocal(id peer.ID, own []ma.Multiaddr) []ma.Multiaddr {
	ctx, end, ok := p.n.tasks.begin(context.Background())
	if !ok {
		return nil
	}
	defer end()
	if h, err := p.n.greeter.ask(ctx, id); err != nil || !h.NAT {
		return nil
	}
	return own
}

// FilterRemote leaves what a member tells as it is.
func (p *puncher) FilterRemote(_ peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr { return addrs }

// reverse dials a member that came over a relay, on c, and can be dialled itself,
// once it has told its addresses.
func (p *puncher) reverse(c network.Conn) {
	ctx, end, ok := p.n.tasks.begin(context.Background())
	if !ok {
		return
	}
	go func() {
		defer end()
		select {
		case <-p.ids().IdentifyWait(c):
		case <-ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "instead of a relay"), dialTimeout)
		defer cancel()
		if err := p.n.host.Connect(ctx, peer.AddrInfo{ID: c.RemotePeer()}); err != nil {
			p.n.log.Debug("member on a relay not reached directly", "peer", c.RemotePeer(), "err", err)
		}
	}()
}

// Trace hears how attempts went.
func (p *puncher) Trace(e *holepunch.Event) {
	end, ok := e.Evt.(*holepunch.EndHolePunchEvt)
	if !ok {
		return
	}
	p.n.log.Debug("hole punch", "peer", e.Remote, "ok", end.Success, "err", end.Error)
	if !end.Success {
		p.n.metrics.punches.WithLabelValues("failed").Inc()
		return
	}
	p.n.metrics.punches.WithLabelValues("ok").Inc()
	p.mu.Lock()
	defer p.mu.Unlock()
	if direct(p.n.host, e.Remote) {
		p.punched[e.Remote] = true
	}
}

// made reports whether c leads through a hole.
func (p *puncher) made(c network.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.punched[c.RemotePeer()] && !isRelayed(c)
}

// connected lets relayed connections to a member go when there is a direct one.
func (p *puncher) connected(_ network.Network, c network.Conn) {
	if isRelayed(c) {
		return
	}
	var relayed []network.Conn
	for _, other := range p.n.host.Network().ConnsToPeer(c.RemotePeer()) {
		if isRelayed(other) {
			relayed = append(relayed, other)
		}
	}
	if len(relayed) == 0 {
		return
	}
	time.AfterFunc(relayedFor, func() {
		if !c.IsClosed() {
			for _, r := range relayed {
				_ = r.Close() // it may be gone already
			}
		}
	})
}

func (p *puncher) disconnected(_ network.Network, c network.Conn) {
	if !direct(p.n.host, c.RemotePeer()) {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.punched, c.RemotePeer())
	}
}

// direct reports whether there is a connection to a member that nobody relays.
func direct(h host.Host, id peer.ID) bool {
	return slices.ContainsFunc(h.Network().ConnsToPeer(id), func(c network.Conn) bool { return !isRelayed(c) })
}

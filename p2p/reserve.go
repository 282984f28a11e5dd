package p2p

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"shoal/p2p/penalty"
)

const (
	// maxRelays is how many relays a node asks to lead others to it: one may
	// die.
	maxRelays = 2
	// maxCircuitAddrs bounds the addresses that are told for one relay.
	maxCircuitAddrs = 4
	// reserveTimeout bounds a reservation: a new connection, if there has to be
	// one, and a round trip.
	reserveTimeout = 5 * time.Second
	// renewEarly is how long before its end a reservation is renewed.
	renewEarly = 5 * time.Minute
	// reserveCheck is how often reservations are looked after when nothing
	// happens, and reserveAgain how soon while there is none, but could be: what
	// was refused waits for longer each time.
	reserveCheck = time.Minute
	reserveAgain = time.Second
	// meetings is how often a node that has become reachable looks for others,
	// meetEvery: what one of these is told about the other may take a moment.
	meetings  = 4
	meetEvery = 2 * time.Second
)

// reserver keeps a node that is behind NAT reachable over relays: connected
// members that say that they are one. A node that is not asks nobody.
type reserver struct {
	n       *Node
	woken   chan struct{} // holds a value if something changed
	refused *penalty.Box  // relays that had no room
	held    map[peer.ID]reservation
}

type reservation struct {
	until time.Time
	addrs []ma.Multiaddr // circuit addresses of this node
}

func newReserver(n *Node) *reserver {
	return &reserver{
		n: n, woken: make(chan struct{}, 1), held: make(map[peer.ID]reservation),
		refused: penalty.NewBox(penalty.Terms{First: reserveAgain, Most: 10 * time.Minute, Members: 64}),
	}
}

// heard takes in a hello that came on c.
func (v *reserver) heard(c network.Conn, h hello) {
	changed := h.Seen != "" && v.n.s.reach.saw(c, h.Seen, ownNetworks())
	if changed {
		v.n.log.Info("reachability", "behind_nat", v.n.s.reach.behind(), "seen_as", h.Seen, "by", c.RemotePeer())
	}
	if changed || h.Relay {
		v.wake()
	}
}

func (v *reserver) wake() {
	select {
	case v.woken <- struct{}{}:
	default:
	}
}

// run keeps the reservations until ctx is done.
func (v *reserver) run(ctx context.Context) error {
	addresses, err := v.n.host.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated))
	if err != nil {
		return fmt.Errorf("p2p: relays: %w", err)
	}
	defer addresses.Close()
	meet := 0
	told := v.n.s.reach.said == BehindNAT // what members were told in the first place
	for {
		behind := v.n.s.reach.behind()
		v.update(ctx, behind)
		if v.n.s.reach.relayedBy(v.circuits()) {
			// Whatever it says, the event makes libp2p look at its addresses, and
			// tell them.
			if err := addresses.Emit(event.EvtAutoRelayAddrsUpdated{}); err != nil {
				return fmt.Errorf("p2p: relays: %w", err)
			}
			meet = meetings
		}
		if behind != told {
			v.n.greeter.greetAll(ctx)
			told = behind
		}
		pause := reserveCheck
		if behind && len(v.held) == 0 && len(v.candidates()) > 0 {
			pause = reserveAgain
		}
		if meet > 0 { // others of the kind can be met now
			meet--
			v.n.dht.RefreshRoutingTable()
			pause = min(pause, meetEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-v.woken:
		case <-time.After(pause):
		}
	}
}

// update drops reservations that are over and makes those that are missing.
func (v *reserver) update(ctx context.Context, behind bool) {
	now := time.Now()
	for id, r := range v.held {
		if !behind || !v.n.connected(id) || now.After(r.until) {
			delete(v.held, id)
			v.n.host.ConnManager().Unprotect(id, relayTag)
		}
	}
	if !behind {
		return
	}
	for _, id := range v.candidates() {
		r, has := v.held[id]
		if has && now.Add(renewEarly).Before(r.until) || !has && len(v.held) >= maxRelays || v.refused.Holds(id, now) {
			continue
		}
		r, err := v.reserve(ctx, id, has)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			v.n.log.Warn("relay refused; others of the swarm cannot reach this node over it", "relay", id, "err", err, "again_in", v.refused.Add(id, now))
			continue
		}
		v.refused.Pardon(id)
		if !has {
			v.n.log.Info("reachable over a relay", "relay", id)
		}
		v.held[id] = r
		v.n.host.ConnManager().Protect(id, relayTag)
	}
}

// relayTag protects connections to relays.
const relayTag = "shoal-relay"

// candidates are connected members that are relays, those first that are used.
func (v *reserver) candidates() []peer.ID {
	var ids []peer.ID
	v.n.greeter.mu.Lock()
	for id, h := range v.n.greeter.known {
		if h.Relay {
			ids = append(ids, id)
		}
	}
	v.n.greeter.mu.Unlock()
	rank := func(id peer.ID) int {
		if _, ok := v.held[id]; ok {
			return 0
		}
		return 1
	}
	slices.SortFunc(ids, func(a, b peer.ID) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a, b)) })
	return ids
}

// reserve has a relay lead others here, again or for the first time. Then the
// connection to it is to come from the port that this node listens on, so that
// the relay sees where the NAT has it.
func (v *reserver) reserve(ctx context.Context, id peer.ID, again bool) (reservation, error) {
	ctx, cancel := context.WithTimeout(ctx, reserveTimeout)
	defer cancel()
	if !again {
		if err := v.fromPort(ctx, id); err != nil {
			return reservation{}, err
		}
	}
	got, err := client.Reserve(network.WithNoDial(ctx, "relay"), v.n.host, peer.AddrInfo{ID: id})
	if err != nil {
		return reservation{}, err
	}
	r := reservation{until: got.Expiration}
	addrs := got.Addrs
	for _, c := range v.n.host.Network().ConnsToPeer(id) { // where it surely is
		if at, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{c.RemoteMultiaddr()}}); err == nil && c.Stat().Direction == network.DirOutbound && !isRelayed(c) {
			addrs = append(at, addrs...)
		}
	}
	for _, a := range ma.Unique(addrs) {
		if _, relay := peer.SplitAddr(a); relay == id && !isCircuit(a) && len(r.addrs) < maxCircuitAddrs {
			r.addrs = append(r.addrs, a.Encapsulate(ma.StringCast("/p2p-circuit")))
		}
	}
	return r, nil
}

// fromPort opens the connection to a relay again if it began before the node
// knew that it is behind NAT.
func (v *reserver) fromPort(ctx context.Context, id peer.ID) error {
	for _, c := range v.n.host.Network().ConnsToPeer(id) {
		port := v.n.s.reach.dialFrom(c.RemoteMultiaddr())
		if at, err := tcpAddr(c.LocalMultiaddr()); err == nil && (port == 0 || int(at.Port()) == port) {
			return nil
		}
	}
	if err := v.n.host.Network().ClosePeer(id); err != nil {
		return err
	}
	if err := v.n.host.Connect(ctx, peer.AddrInfo{ID: id}); err != nil {
		return err
	}
	_, err := v.n.greeter.ask(ctx, id)
	return err
}

// circuits are the addresses under which relays lead here.
func (v *reserver) circuits() []ma.Multiaddr {
	var all []ma.Multiaddr
	for _, id := range slices.Sorted(maps.Keys(v.held)) {
		all = append(all, v.held[id].addrs...)
	}
	return all
}

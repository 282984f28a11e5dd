package p2p

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	manet "github.com/multiformats/go-multiaddr/net"

	"shoal/p2p/wire"
)

// The hello: the side that dialled opens a stream and sends its own, the other
// answers with its own, and both close. A hello is four bytes of length, big
// endian, and a JSON object; members ignore fields that they do not know.
const (
	helloProtocol = protocol.ID("/shoal/hello/1")
	// helloTimeout bounds the exchange on an open connection: one round trip.
	helloTimeout = 2 * time.Second
	maxHello     = 4 << 10 // in bytes
	// maxSeen bounds an IPv6 address with zone and port, in bytes.
	maxSeen = 80
	// greetMost bounds the pause between attempts, and so their number: a
	// member that has not answered by then is none of this version.
	greetMost = 30 * time.Second
)

// hello is what members tell each other when they connect.
type hello struct {
	Pieces  []string `json:"pieces"`            // "host:port" of the piece channel, best first
	Zone    string   `json:"zone,omitempty"`    // see Options.Zone
	Version string   `json:"version,omitempty"` // of the software, for people
	// Seen is the "ip:port" under which the teller sees the other end of the
	// connection; empty if that is not known.
	Seen string `json:"seen,omitempty"`
	// NAT says that the teller cannot be dialled from outside its network.
	NAT bool `json:"nat,omitempty"`
	// Relay says that the teller carries bytes for those.
	Relay bool `json:"relay,omitempty"`
}

// check drops nothing: a hello with one bad field is refused as a whole, as
// its sender is broken or hostile.
func (h hello) check() error {
	if err := (wire.Member{Pieces: h.Pieces, Zone: h.Zone}).Check(); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if !wire.ValidText(h.Version, 64) {
		return errors.New("hello: bad version")
	}
	if _, err := netip.ParseAddrPort(h.Seen); err != nil && h.Seen != "" || !wire.ValidText(h.Seen, maxSeen) {
		return errors.New("hello: bad address seen")
	}
	return nil
}

func writeHello(w io.Writer, h hello) error {
	body, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

func readHello(r io.Reader) (hello, error) {
	var h hello
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return h, fmt.Errorf("hello: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxHello {
		return h, fmt.Errorf("hello: %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return h, fmt.Errorf("hello: %w", err)
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("hello: %w", err)
	}
	return h, h.check()
}

// greeter exchanges hellos and remembers those of connected members.
type greeter struct {
	n *Node

	mu    sync.Mutex
	known map[peer.ID]hello // of connected members only
}

func newGreeter(n *Node) *greeter {
	g := &greeter{n: n, known: make(map[peer.ID]hello)}
	n.host.SetStreamHandler(helloProtocol, g.serve)
	return g
}

// own is what this node tells on a connection.
func (g *greeter) own(c network.Conn) hello {
	behind := g.n.s.reach.behind()
	h := hello{Pieces: g.n.pieceAddrs(), Zone: g.n.s.Zone, Version: g.n.s.Version, NAT: behind, Relay: g.n.relay != nil && !behind}
	if at, err := tcpAddr(c.RemoteMultiaddr()); err == nil { // not over a relay
		h.Seen = at.String()
	}
	return h
}

// greetAll tells all connected members what has changed about this node.
func (g *greeter) greetAll(ctx context.Context) {
	for _, id := range g.n.host.Network().Peers() {
		ctx, end, ok := g.n.tasks.begin(ctx)
		if !ok {
			return
		}
		go func() {
			defer end()
			if _, err := g.say(ctx, id); err != nil {
				g.n.log.Debug("no hello", "peer", id, "err", err)
			}
		}()
	}
}

// serve answers a hello. libp2p runs it in a goroutine of its own, which ends
// with the connection or the deadline.
func (g *greeter) serve(s network.Stream) {
	if err := g.exchange(s, false); err != nil {
		g.n.log.Debug("hello refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

// ask returns the hello of a connected member, exchanging one if there was
// none on this connection yet.
func (g *greeter) ask(ctx context.Context, id peer.ID) (hello, error) {
	if h, ok := g.get(id); ok {
		return h, nil
	}
	return g.say(ctx, id)
}

// say exchanges hellos with a connected member.
func (g *greeter) say(ctx context.Context, id peer.ID) (hello, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	s, err := g.n.host.NewStream(network.WithNoDial(ctx, "hello"), id, helloProtocol)
	if err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := g.exchange(s, true); err != nil { //nolint:contextcheck // what follows from a hello outlives it
		return hello{}, err
	}
	h, _ := g.get(id)
	return h, nil
}

// greet exchanges hellos with a member that has just connected, and tries
// again if it was too busy: without one it is no use to this node.
func (g *greeter) greet(ctx context.Context, id peer.ID) {
	for pause := time.Second; g.n.connected(id); pause *= 2 {
		_, err := g.ask(ctx, id)
		if err == nil || pause > greetMost {
			return
		}
		g.n.log.Debug("no hello", "peer", id, "err", err)
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

func (g *greeter) exchange(s network.Stream, first bool) (err error) {
	defer func() {
		if err != nil {
			_ = s.Reset()
		} else {
			err = s.Close()
		}
	}()
	if err := s.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	send := func() error { return writeHello(s, g.own(s.Conn())) }
	if first {
		if err := send(); err != nil {
			return fmt.Errorf("hello: %w", err)
		}
	}
	h, err := readHello(s)
	if err != nil {
		return err
	}
	if !first {
		if err := send(); err != nil {
			return fmt.Errorf("hello: %w", err)
		}
	}
	g.put(s.Conn(), h)
	return nil
}

func (g *greeter) get(id peer.ID) (hello, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h, ok := g.known[id]
	return h, ok
}

func (g *greeter) put(c network.Conn, h hello) {
	h.Pieces = wire.Dialable(h.Pieces, ipOf(c))
	g.mu.Lock()
	// The connection may have gone meanwhile, and with it what is known.
	if g.n.host.Network().Connectedness(c.RemotePeer()) == network.Connected {
		g.known[c.RemotePeer()] = h
	}
	g.mu.Unlock()
	g.n.reserver.heard(c, h)
	if isRelayed(c) && !h.NAT {
		g.n.puncher.reverse(c)
	}
}

// forget drops what a member told: after it comes back it may be another
// process, with another port.
func (g *greeter) forget(id peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n.host.Network().Connectedness(id) != network.Connected {
		delete(g.known, id)
	}
}

// ipOf returns where the other end of a connection is; the zero value if that
// is not known, as over a relay.
func ipOf(c network.Conn) netip.Addr {
	if isRelayed(c) {
		return netip.Addr{}
	}
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

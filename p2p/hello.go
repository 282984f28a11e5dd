package p2p

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	manet "github.com/multiformats/go-multiaddr/net"
)

// The hello: the side that dialled opens a stream and sends its own, the other
// answers with its own, and both close. A hello is four bytes of length, big
// endian, and a JSON object; members ignore fields that they do not know.
const (
	helloProtocol = protocol.ID("/shoal/hello/1")
	// helloTimeout bounds the exchange on an open connection: one round trip.
	helloTimeout = 2 * time.Second
	// maxHello bounds a hello in bytes, maxPieceAddrs the addresses in one.
	maxHello      = 4 << 10
	maxPieceAddrs = 16
)

// hello is what members tell each other when they connect.
type hello struct {
	Pieces  []string `json:"pieces"`            // "host:port" of the piece channel, best first
	Zone    string   `json:"zone,omitempty"`    // see Options.Zone
	Version string   `json:"version,omitempty"` // of the software, for people
}

// check drops nothing: a hello with one bad field is refused as a whole, as
// its sender is broken or hostile.
func (h hello) check() error {
	if len(h.Pieces) > maxPieceAddrs {
		return fmt.Errorf("hello: %d addresses", len(h.Pieces))
	}
	for _, a := range h.Pieces {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || !validText(a, 256) {
			return errors.New("hello: bad piece channel address")
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("hello: bad piece channel port")
		}
	}
	if !validText(h.Zone, maxZone) || !validText(h.Version, 64) {
		return errors.New("hello: bad zone or version")
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

// own is what this node tells.
func (g *greeter) own() hello {
	return hello{Pieces: g.n.pieceAddrs(), Zone: g.n.s.Zone, Version: g.n.s.Version}
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
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	s, err := g.n.host.NewStream(network.WithNoDial(ctx, "hello"), id, helloProtocol)
	if err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := g.exchange(s, true); err != nil {
		return hello{}, err
	}
	h, _ := g.get(id)
	return h, nil
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
	send := func() error { return writeHello(s, g.own()) }
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
	h.Pieces = order(h.Pieces, c)
	g.mu.Lock()
	defer g.mu.Unlock()
	// The connection may have gone meanwhile, and with it what is known.
	if g.n.host.Network().Connectedness(c.RemotePeer()) == network.Connected {
		g.known[c.RemotePeer()] = h
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

// order puts first the addresses with the IP that libp2p reaches the member
// by, and drops those of this machine's own loopback unless that is where the
// member is: a stranger must not choose what this node connects to here.
func order(addrs []string, c network.Conn) []string {
	var remote netip.Addr
	if ip, err := manet.ToIP(c.RemoteMultiaddr()); err == nil {
		remote, _ = netip.AddrFromSlice(ip)
		remote = remote.Unmap()
	}
	var same, other []string
	for _, a := range addrs {
		host, _, _ := net.SplitHostPort(a)
		ip, err := netip.ParseAddr(host)
		switch ip = ip.Unmap(); {
		case err == nil && ip == remote:
			same = append(same, a)
		case err == nil && (ip.IsLoopback() || ip.IsUnspecified()) && !remote.IsLoopback():
		default:
			other = append(other, a)
		}
	}
	return append(same, other...)
}

// Package pnet is libp2p's private network with a key that can be rotated: a
// TCP transport on which only those get a word in who know the pre-shared key.
// On the wire it is the libp2p pnet of one key (specs/pnet: a 24-byte nonce in
// each direction, then XSalsa20); libp2p's own takes a single key, so that a
// swarm would fall apart in the middle of a rotation.
//
// A listener accepts every key that it was given: a connection begins with the
// header of multistream-select, so the first key that decrypts it is the one
// that the other side uses, and answers are encrypted with it. A dialler uses
// the first key. A connection that no key fits is closed before libp2p spends
// a handshake on it, after HeaderTimeout at the latest.
//
// It is TCP only. Two that dial each other at the same moment, through NATs,
// from the ports that they listen on, make one connection: libp2p says which of
// them is the dialler on it.
//
// XSalsa20 authenticates nothing; that is the work of the TLS which libp2p
// runs on top. The package starts no goroutines, but the timer of a connection
// may close it.
package pnet

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/davidlazar/go-crypto/salsa20"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-reuseport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// HeaderTimeout is how long an accepted connection may take to show that it
// knows the key: its dialler sends the header as soon as it is connected.
const HeaderTimeout = 3 * time.Second

// header is what every libp2p connection begins with (multistream-select 1.0).
const header = "\x13/multistream/1.0.0\n"

const nonceSize = 24

// maxHeld bounds what a listener may write before the key is known, in bytes.
// libp2p writes the header, 20 bytes, and then waits for the dialler's.
const maxHeld = 1 << 10

// ErrNotMember means that the other side does not use a key of this swarm.
var ErrNotMember = errors.New("private network: not a member of this swarm")

// Transport returns a constructor of the TCP transport for libp2p.Transport.
// keys holds at least one key. A connection that takes longer than dialTimeout
// to be established is an error. from, unless it is nil, returns the port to
// open a connection from, 0 for any: one that the transport listens on, as
// holes in a NAT are punched from there. The port of a listener can be shared
// (SO_REUSEPORT): whoever listens makes sure that nobody else does.
func Transport(keys [][32]byte, dialTimeout time.Duration, from func(to ma.Multiaddr) int) func(transport.Upgrader, network.ResourceManager) (*tcp.TcpTransport, error) {
	return func(u transport.Upgrader, rm network.ResourceManager) (*tcp.TcpTransport, error) {
		if len(keys) == 0 {
			return nil, errors.New("private network: no key")
		}
		options := []tcp.Option{tcp.WithConnectionTimeout(dialTimeout), tcp.DisableReuseport()}
		if from != nil {
			options[1] = tcp.WithDialerForAddr(func(to ma.Multiaddr) (tcp.ContextDialer, error) { return dialer{from(to)}, nil })
		}
		return tcp.NewTCPTransport(upgrader{u, keys}, rm, nil, options...)
	}
}

// dialer opens connections from a port that is listened on, 0 for any.
type dialer struct{ from int }

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var plain net.Dialer
	if d.from == 0 {
		return plain.DialContext(ctx, network, address)
	}
	shared := net.Dialer{LocalAddr: &net.TCPAddr{Port: d.from}, Control: reuseport.Control}
	c, err := shared.DialContext(ctx, network, address)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		// There is a connection from here to there already.
		return plain.DialContext(ctx, network, address)
	}
	return c, err
}

// upgrader encrypts connections before the inner upgrader negotiates on them.
type upgrader struct {
	transport.Upgrader
	keys [][32]byte
}

//nolint:revive // argument-limit: the signature is libp2p's
func (u upgrader) Upgrade(ctx context.Context, t transport.Transport, c manet.Conn, dir network.Direction, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	if dir == network.DirOutbound {
		return u.Upgrader.Upgrade(ctx, t, newConn(c, u.keys[:1], true), dir, p, scope)
	}
	// Both dialled, through a NAT, and agreed that this side takes the other part.
	return u.Upgrader.Upgrade(ctx, t, newConn(c, u.keys, false), dir, p, scope)
}

func (u upgrader) UpgradeListener(t transport.Transport, l manet.Listener) transport.Listener {
	return u.UpgradeGatedMaListener(t, u.GateMaListener(l))
}

func (u upgrader) UpgradeGatedMaListener(t transport.Transport, l transport.GatedMaListener) transport.Listener {
	return u.Upgrader.UpgradeGatedMaListener(t, listener{l, u.keys})
}

// listener encrypts what it accepts; the inner upgrader takes it from there.
type listener struct {
	transport.GatedMaListener
	keys [][32]byte
}

func (l listener) Accept() (manet.Conn, network.ConnManagementScope, error) {
	c, scope, err := l.GatedMaListener.Accept()
	if err != nil {
		return nil, scope, err
	}
	return newConn(c, l.keys, false), scope, nil
}

// conn encrypts both directions of a connection. One goroutine reads and one
// writes at a time, as on any libp2p connection.
type conn struct {
	manet.Conn
	keys  [][32]byte
	timer *time.Timer // closes an accepted connection that shows no header

	reader cipher.Stream // of the reading goroutine; nil before the first Read
	ahead  []byte        // of the reading goroutine: decrypted, not yet read

	mu     sync.Mutex
	writer cipher.Stream // nil while the key or the nonce is missing
	key    *[32]byte     // nil while it is not known
	held   []byte        // what was written before that
}

func newConn(c manet.Conn, keys [][32]byte, dialled bool) *conn {
	p := &conn{Conn: c, keys: keys}
	if dialled {
		p.key = &keys[0]
	} else {
		p.timer = time.AfterFunc(HeaderTimeout, func() { c.Close() })
	}
	return p
}

// Read decrypts. The first one finds the key.
func (c *conn) Read(b []byte) (int, error) {
	if c.reader == nil {
		if err := c.start(); err != nil {
			c.Conn.Close()
			return 0, err
		}
	}
	if len(c.ahead) > 0 {
		n := copy(b, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b)
	c.reader.XORKeyStream(b[:n], b[:n])
	return n, err
}

// start reads the other side's nonce and header, chooses the key that fits,
// and sends what was held back.
func (c *conn) start() error {
	var first [nonceSize + len(header)]byte
	if _, err := io.ReadFull(c.Conn, first[:]); err != nil {
		return fmt.Errorf("private network: %w", err)
	}
	nonce, sealed := first[:nonceSize], first[nonceSize:]
	for i := range c.keys {
		stream := salsa20.New(&c.keys[i], nonce)
		plain := make([]byte, len(sealed))
		stream.XORKeyStream(plain, sealed)
		if string(plain) != header {
			continue
		}
		if c.timer != nil && !c.timer.Stop() {
			return fmt.Errorf("private network: %w", context.DeadlineExceeded)
		}
		c.reader, c.ahead = stream, plain
		return c.release(&c.keys[i])
	}
	return ErrNotMember
}

func (c *conn) release(key *[32]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == nil {
		c.key = key
	}
	held := c.held
	c.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := c.write(held)
	return err
}

// Write encrypts. An accepted connection holds back what is written before
// the key is known.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key != nil {
		return c.write(b)
	}
	if len(c.held)+len(b) > maxHeld {
		return 0, errors.New("private network: too much written before the first read")
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

func (c *conn) write(b []byte) (int, error) {
	sealed := make([]byte, 0, nonceSize+len(b))
	if c.writer == nil {
		var nonce [nonceSize]byte
		rand.Read(nonce[:]) // never fails (crypto/rand)
		c.writer = salsa20.New(c.key, nonce[:])
		sealed = append(sealed, nonce[:]...)
	}
	lead := len(sealed)
	sealed = sealed[:lead+len(b)]
	c.writer.XORKeyStream(sealed[lead:], b)
	n, err := c.Conn.Write(sealed)
	return max(0, n-lead), err
}

// Close closes the connection.
func (c *conn) Close() error {
	if c.timer != nil {
		c.timer.Stop()
	}
	return c.Conn.Close()
}

var _ net.Conn = (*conn)(nil)

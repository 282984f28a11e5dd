package channel

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	ic "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/p2p/swarmkey"
)

// HandshakeTimeout is the longest that TLS and the membership proof may take
// together. Three round trips over the worst link a swarm is likely to span
// take well under a second; the rest is for busy machines.
const HandshakeTimeout = 3 * time.Second

// ErrNotMember means that the other side did not prove that it holds the swarm key.
var ErrNotMember = errors.New("not a member of this swarm")

const (
	proofVersion  = 1
	proofSize     = 1 + sha256.Size
	labelDialler  = "shoal/1 pieces dialler"
	labelListener = "shoal/1 pieces listener"
	exporterLabel = "EXPORTER-shoal-membership"
)

// Conn is an authenticated connection between two members. Close may be
// called from any goroutine; one reader and any number of writers may work at
// the same time.
type Conn struct {
	raw     *buffered
	tls     *tls.Conn
	key     *swarmkey.Key
	local   peer.ID
	dialled bool
	trip    time.Duration
	keys    <-chan ic.PubKey // of the TLS handshake
	settled func()           // called when the handshake ended, either way

	once   sync.Once
	err    error       // of the handshake, written under once
	remote peer.ID     // written under once
	proven atomic.Bool // the handshake succeeded

	closing sync.Once // guards closed
	closed  func()    // called when the connection is closed

	wmu sync.Mutex // one outer Write at a time, so that cork can be undone
}

// RemotePeer returns who is on the other side. On an accepted connection it is
// empty until the first Read returned.
func (c *Conn) RemotePeer() peer.ID { return c.remote }

// RoundTrip returns the shortest round trip of the network that the kernel saw
// while the connection was opened, or, where it does not say, how long that took
// before TLS. It is zero on a connection that was accepted, or opened by somebody
// else (DialOver).
func (c *Conn) RoundTrip() time.Duration { return c.trip }

// handshake runs TLS and the proof, once.
func (c *Conn) handshake(ctx context.Context) error {
	c.once.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
		defer cancel()
		c.err = c.authenticate(ctx)
		if ctx.Err() != nil {
			c.err = fmt.Errorf("piece channel handshake: %w", context.Cause(ctx))
		}
		if c.err != nil {
			c.raw.Close()
		}
		c.proven.Store(c.err == nil)
		c.settled()
	})
	return c.err
}

func (c *Conn) authenticate(ctx context.Context) error {
	// Closing is the one way to end reads and writes that leaves the deadlines
	// to the user of the connection, who may have set some already.
	stop := context.AfterFunc(ctx, func() { c.raw.Close() })
	defer stop()
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("piece channel: %w", err)
	}
	select {
	case key, ok := <-c.keys:
		if !ok {
			return errors.New("piece channel: no identity in the certificate")
		}
		id, err := peer.IDFromPublicKey(key)
		if err != nil {
			return fmt.Errorf("piece channel: %w", err)
		}
		c.remote = id
	default:
		return errors.New("piece channel: the certificate was not checked")
	}
	return c.proveMembership()
}

// proveMembership is the exchange that the package comment describes.
func (c *Conn) proveMembership() error {
	state := c.tls.ConnectionState()
	exporter, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return fmt.Errorf("piece channel: %w", err)
	}
	if c.dialled {
		if err := c.sendProof(proofMessage(labelDialler, exporter, c.local, c.remote)); err != nil {
			return err
		}
		return c.checkProof(proofMessage(labelListener, exporter, c.local, c.remote))
	}
	if err := c.checkProof(proofMessage(labelDialler, exporter, c.remote, c.local)); err != nil {
		return err
	}
	return c.sendProof(proofMessage(labelListener, exporter, c.remote, c.local))
}

func proofMessage(label string, exporter []byte, dialler, listener peer.ID) []byte {
	m := append([]byte(label), 0)
	m = append(m, exporter...)
	m = append(m, dialler.String()...)
	m = append(m, 0)
	return append(m, listener.String()...)
}

func (c *Conn) sendProof(message []byte) error {
	proof := c.key.Prove(message)
	if _, err := c.tls.Write(append([]byte{proofVersion}, proof[:]...)); err != nil {
		return fmt.Errorf("piece channel: %w", err)
	}
	return nil
}

func (c *Conn) checkProof(message []byte) error {
	var got [proofSize]byte
	if _, err := io.ReadFull(c.tls, got[:]); err != nil {
		// A listener that does not believe us closes without a word.
		return fmt.Errorf("piece channel: %s: %w: %w", c.remote, ErrNotMember, err)
	}
	if got[0] != proofVersion || !c.key.Verify(message, [sha256.Size]byte(got[1:])) {
		return fmt.Errorf("piece channel: %s: %w", c.remote, ErrNotMember)
	}
	return nil
}

// Read reads from the connection, after the handshake.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.handshake(context.Background()); err != nil {
		return 0, err
	}
	return c.tls.Read(p)
}

// Write writes to the connection, after the handshake. All of p is on its way
// when Write returns.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.handshake(context.Background()); err != nil {
		return 0, err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.raw.cork()
	n, err := c.tls.Write(p)
	if ferr := c.raw.uncork(); ferr != nil && err == nil {
		n, err = 0, ferr
	}
	return n, err
}

// Close closes the connection; a Read or Write that is under way ends.
func (c *Conn) Close() error {
	defer c.closing.Do(c.closed)
	if c.proven.Load() {
		return c.tls.Close()
	}
	// Nobody waits for a handshake that is under way; one that never began
	// must not begin.
	err := c.raw.Close()
	c.once.Do(func() {
		c.err = net.ErrClosed
		c.settled()
	})
	return err
}

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline sets the deadline of reads and writes. The handshake has its own.
func (c *Conn) SetDeadline(t time.Time) error { return c.raw.SetDeadline(t) }

// SetReadDeadline sets the deadline of reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.raw.SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.raw.SetWriteDeadline(t) }

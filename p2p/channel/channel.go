package channel

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	ic "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"shoal/p2p/swarmkey"
)

// protocol is what both sides must name in the TLS handshake (ALPN), so that
// neither a libp2p connection nor a web server is taken for a piece channel.
const protocol = "shoal-pieces/1"

// DefaultMaxPending is how many accepted connections may be in the handshake
// at the same time. Members need some milliseconds for theirs; 256 strangers
// cost a few MiB.
const DefaultMaxPending = 256

// Channel makes and accepts connections for one member.
type Channel struct {
	id       peer.ID
	identity *libp2ptls.Identity
	key      *swarmkey.Key
	buffers  *sync.Pool
}

// New returns the channel of the member that owns the identity key.
func New(identity ic.PrivKey, key *swarmkey.Key) (*Channel, error) {
	if identity == nil || key == nil {
		return nil, errors.New("piece channel: identity and swarm key are required")
	}
	id, err := peer.IDFromPrivateKey(identity)
	if err != nil {
		return nil, fmt.Errorf("piece channel: %w", err)
	}
	cert, err := libp2ptls.NewIdentity(identity)
	if err != nil {
		return nil, fmt.Errorf("piece channel: %w", err)
	}
	return &Channel{id: id, identity: cert, key: key, buffers: newBufferPool()}, nil
}

// ID returns the peer ID of this member.
func (ch *Channel) ID() peer.ID { return ch.id }

// Dial connects to the member id at addr ("host:port") and returns once both
// sides proved who they are; ctx bounds that, and HandshakeTimeout the
// handshake. ErrNotMember if the other side did not prove its membership, or
// closed because it did not believe ours.
func (ch *Channel) Dial(ctx context.Context, id peer.ID, addr string) (*Conn, error) {
	return ch.dial(ctx, id, addr, readBuffer)
}

// DialQuiet is Dial for a connection that lasts and carries little: it holds a
// few KiB of memory instead of 128.
func (ch *Channel) DialQuiet(ctx context.Context, id peer.ID, addr string) (*Conn, error) {
	return ch.dial(ctx, id, addr, requestBuffer)
}

func (ch *Channel) dial(ctx context.Context, id peer.ID, addr string, buffer int) (*Conn, error) {
	if err := id.Validate(); err != nil {
		// An empty ID would accept anybody.
		return nil, fmt.Errorf("piece channel: %w", err)
	}
	var d net.Dialer
	began := time.Now()
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("piece channel: %w", err)
	}
	return ch.over(ctx, id, raw, buffer, roundTrip(raw, time.Since(began)))
}

// DialOver is Dial over a connection to the member that somebody else opened,
// a stream of libp2p for instance; it is closed if the other side does not
// prove who it is. Quiet is as for DialQuiet.
func (ch *Channel) DialOver(ctx context.Context, id peer.ID, raw net.Conn, quiet bool) (*Conn, error) {
	if err := id.Validate(); err != nil {
		raw.Close()
		return nil, fmt.Errorf("piece channel: %w", err)
	}
	buffer := readBuffer
	if quiet {
		buffer = requestBuffer
	}
	return ch.over(ctx, id, raw, buffer, 0)
}

// over proves both sides on raw, which took trip to open.
func (ch *Channel) over(ctx context.Context, id peer.ID, raw net.Conn, buffer int, trip time.Duration) (*Conn, error) {
	config, keys := ch.config(id)
	b := newBuffered(raw, buffer, ch.buffers)
	c := &Conn{
		raw: b, tls: tls.Client(b, config), key: ch.key, local: ch.id, dialled: true, trip: trip, keys: keys,
		settled: func() {}, closed: func() {},
	}
	if err := c.handshake(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// config returns a fresh TLS configuration that accepts id only, or with an
// empty id everybody who owns the identity that the certificate states. It is
// good for one connection: the channel yields that connection's key.
func (ch *Channel) config(id peer.ID) (*tls.Config, <-chan ic.PubKey) {
	config, keys := ch.identity.ConfigForPeer(id)
	config.NextProtos = []string{protocol}
	// Bodies are large: full records from the first byte on.
	config.DynamicRecordSizingDisabled = true
	return config, keys
}

// ListenOptions bound what a Listener holds. Zero values mean the defaults.
type ListenOptions struct {
	// MaxPending bounds connections that are not authenticated yet. Over it
	// the oldest of them is closed, so that silent strangers cannot keep
	// members out. Default: DefaultMaxPending.
	MaxPending int
	// MaxConns bounds all open connections; those over it are closed at once.
	// Default: no limit.
	MaxConns int
}

// NewListener accepts connections from members on inner, which it owns from
// then on.
func (ch *Channel) NewListener(inner net.Listener, o ListenOptions) *Listener {
	if o.MaxPending <= 0 {
		o.MaxPending = DefaultMaxPending
	}
	return &Listener{Listener: inner, ch: ch, o: o, pending: list.New()}
}

// Listener accepts connections from members. Accept returns before the
// handshake, which runs in the first Read or Write of the connection; Close
// does not close connections that were accepted.
type Listener struct {
	net.Listener
	ch *Channel
	o  ListenOptions

	mu      sync.Mutex
	pending *list.List // of net.Conn, oldest first
	open    int        // connections not closed yet
}

// Accept returns the next connection, a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err // as it is: net/http looks at its type
		}
		if c := l.admit(raw); c != nil {
			return c, nil
		}
		raw.Close()
	}
}

// admit makes a Conn of raw, or returns nil if there is no room for it.
func (l *Listener) admit(raw net.Conn) *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.o.MaxConns > 0 && l.open >= l.o.MaxConns {
		return nil
	}
	if l.pending.Len() >= l.o.MaxPending {
		oldest := l.pending.Front()
		l.pending.Remove(oldest)
		oldest.Value.(net.Conn).Close()
	}
	l.open++
	entry := l.pending.PushBack(raw)
	config, keys := l.ch.config("")
	b := newBuffered(raw, requestBuffer, l.ch.buffers)
	return &Conn{
		raw: b, tls: tls.Server(b, config), key: l.ch.key, local: l.ch.id, keys: keys,
		settled: func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.pending.Remove(entry) // does nothing for one that had to go
		},
		closed: func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.open--
		},
	}
}

type connKey struct{}

// ConnContext puts c into ctx: use it as http.Server.ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if conn, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, conn)
	}
	return ctx
}

// RemotePeer returns the member on the other side of the connection that an
// HTTP request came on, if the server has ConnContext.
func RemotePeer(ctx context.Context) (peer.ID, bool) {
	conn, ok := ctx.Value(connKey{}).(*Conn)
	if !ok || !conn.proven.Load() {
		return "", false
	}
	return conn.remote, true
}

package exchange

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/p2p/channel"
)

const (
	// deafFor is how long a member whose addresses did not answer is asked over
	// streams only, if that works: each attempt at an address that nobody
	// answers costs dialTimeout.
	deafFor = time.Minute
	// maxDeaf bounds how many of those are remembered.
	maxDeaf = 1024
)

// Way is how a member is reached.
type Way int

// The ways, the best one first.
const (
	Direct  Way = iota // its piece channel can be dialled, as far as is known
	Stream             // by streams of a connection that there is
	Relayed            // by streams that another member relays
)

// Streams reach members that cannot be dialled, over connections that somebody
// else keeps.
type Streams interface {
	// Way returns how a member is reached now. It does not wait.
	Way(id peer.ID) Way
	// Open opens a stream to the piece channel of a member.
	Open(ctx context.Context, id peer.ID) (net.Conn, error)
}

// link is a connection to a member, on its piece channel.
type link struct {
	*channel.Conn
	outdated func() bool // there is a better way by now
}

// errOutdated ends a relayed connection to a member to which there is a better
// way; net/http opens another one, as nothing of the request was sent.
var errOutdated = errors.New("there is a better way to the member now")

// Write sends a request, unless there is a better way: what is on its way in
// comes to its end, but nothing new is asked for over the relay.
func (l *link) Write(p []byte) (int, error) {
	if l.outdated != nil && l.outdated() {
		l.Close()
		return 0, errOutdated
	}
	return l.Conn.Write(p)
}

func (c *client) way(id peer.ID) Way {
	if c.streams == nil {
		return Direct
	}
	return c.streams.Way(id)
}

// reachable reports whether there is any way to a member.
func (c *client) reachable(h Holder) bool { return len(h.Pieces) > 0 || c.way(h.Peer) != Direct }

// reach connects to a member at one of the addresses, or by a stream if it
// cannot be dialled. quiet is for a connection that carries little.
func (c *client) reach(ctx context.Context, id peer.ID, addrs []string, quiet bool) (*link, error) {
	way := c.way(id)
	if way != Direct || c.isDeaf(id) {
		return c.stream(ctx, id, way, quiet)
	}
	err := errors.New("no address known")
	for _, a := range addrs {
		var conn *channel.Conn
		if conn, err = c.dialOne(ctx, id, a, quiet); err == nil {
			return &link{Conn: conn}, nil
		}
	}
	if c.streams != nil && ctx.Err() == nil && !errors.Is(err, channel.ErrNotMember) {
		if l, serr := c.stream(ctx, id, way, quiet); serr == nil {
			c.noteDeaf(id)
			return l, nil
		}
	}
	return nil, fmt.Errorf("dial %s: %w", id, err)
}

// stream connects to a member by a stream.
func (c *client) stream(ctx context.Context, id peer.ID, way Way, quiet bool) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := c.streams.Open(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("stream to %s: %w", id, err)
	}
	conn, err := c.ch.DialOver(ctx, id, raw, quiet)
	if err != nil {
		return nil, fmt.Errorf("stream to %s: %w", id, err)
	}
	l := &link{Conn: conn}
	if way == Relayed {
		l.outdated = func() bool { return c.way(id) != Relayed }
	}
	return l, nil
}

func (c *client) dialOne(ctx context.Context, id peer.ID, addr string, quiet bool) (*channel.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if quiet {
		return c.ch.DialQuiet(ctx, id, addr)
	}
	conn, err := c.ch.Dial(ctx, id, addr)
	if err == nil {
		c.met.meet(id).tripped(conn.RoundTrip())
	}
	return conn, err
}

// isDeaf reports whether the addresses of a member did not answer lately.
func (c *client) isDeaf(id peer.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.deaf[id])
}

func (c *client) noteDeaf(id peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.deaf) >= maxDeaf {
		clear(c.deaf)
	}
	c.deaf[id] = time.Now().Add(deafFor)
}

package p2ptest

import (
	"net"
	"sync"
)

// gate is a listener whose connections can be frozen.
type gate struct {
	net.Listener
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	open chan struct{} // closed while nothing is frozen
}

func newGate(inner net.Listener) *gate {
	g := &gate{Listener: inner, closed: make(chan struct{}), open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		g.open = make(chan struct{})
	default: // is frozen
	}
}

func (g *gate) thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// wait returns when the gate is open, or quit is closed.
func (g *gate) wait(quit <-chan struct{}) {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
	case <-quit:
	}
}

func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g.wait(g.closed)
	return &frozenConn{Conn: c, g: g, closed: make(chan struct{})}, nil
}

func (g *gate) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Listener.Close()
}

// frozenConn passes a byte only while the gate is open. It asks again after
// each Read: what came in while the process stood still stays unread.
type frozenConn struct {
	net.Conn
	g      *gate
	closed chan struct{}
	once   sync.Once
}

func (c *frozenConn) Read(p []byte) (int, error) {
	c.g.wait(c.closed)
	n, err := c.Conn.Read(p)
	c.g.wait(c.closed)
	return n, err
}

// Write goes out in small parts, so that a freeze hits the middle of a body.
func (c *frozenConn) Write(p []byte) (int, error) {
	const part = 64 << 10
	written := 0
	for {
		c.g.wait(c.closed)
		n, err := c.Conn.Write(p[written:min(len(p), written+part)])
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

func (c *frozenConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

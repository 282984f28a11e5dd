//go:build linux

package rig

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Client asks a server over HTTP/1.1 and keeps nothing. What it gets is moved to
// /dev/null by splice(2), and never read: with six clients beside six nodes on
// two processors, copying and hashing would be measured too. So it proves
// nothing; Hash does, when a clock has stopped.
type Client struct {
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Base string // URL of the server, with an IP address
}

// manifestTypes are what clients accept.
const manifestTypes = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"

// Hash gets a path and compares its SHA-256 sum.
func (c Client) Hash(ctx context.Context, path, hexSum string) error {
	conn, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	sum := sha256.New()
	if err := conn.get(http.MethodGet, path, -1, func(r io.Reader) error {
		_, err := io.Copy(sum, r)
		return err
	}); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hexSum {
		return fmt.Errorf("%s%s has the digest %s", c.Base, path, got)
	}
	return nil
}

// Connection is a kept connection to the server, for one goroutine.
type Connection struct {
	conn net.Conn
	in   *bufio.Reader
	null *os.File
	host string
	stop func() bool

	first time.Duration
}

// Connect connects to the server. When ctx ends, so does the connection.
func (c Client) Connect(ctx context.Context) (*Connection, error) {
	base, err := url.Parse(c.Base)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	conn, err := c.Dial(ctx, "tcp", base.Host)
	if err != nil {
		return nil, errors.Join(err, null.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // what it was doing fails
	return &Connection{conn: conn, in: bufio.NewReaderSize(conn, 4<<10), null: null, host: base.Host, stop: stop}, nil
}

// Close closes the connection.
func (c *Connection) Close() {
	c.stop()
	_ = c.conn.Close() // read to its end or given up
	_ = c.null.Close()
}

// First returns how long after the last request the first byte of its body had
// come; of a HEAD, the answer.
func (c *Connection) First() time.Duration { return c.first }

// Discard gets a path and throws the body away, which must be of that size.
func (c *Connection) Discard(method, path string, size int64) error {
	return c.get(method, path, size, func(body io.Reader) error {
		_, err := io.Copy(c.null, body)
		return err
	})
}

// get asks for path and lets read read the body. A size that is not negative
// is what the body must have.
func (c *Connection) get(method, path string, size int64, read func(io.Reader) error) error {
	asked := time.Now()
	_, err := fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: shoal-benchmarks\r\nAccept: %s\r\n\r\n", method, path, c.host, manifestTypes)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	// The answer to a HEAD has no body: it is left where it is.
	resp, err := http.ReadResponse(c.in, &http.Request{Method: http.MethodHead})
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	_ = resp.Body.Close() // empty
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	case resp.ContentLength < 0:
		return fmt.Errorf("%s %s: no Content-Length", method, path)
	case size >= 0 && resp.ContentLength != size:
		return fmt.Errorf("%s %s: %d bytes, not %d", method, path, resp.ContentLength, size)
	case method == http.MethodHead:
		c.first = time.Since(asked)
		return nil
	}
	// A body that is missing shows below.
	_, _ = c.in.Peek(int(min(1, resp.ContentLength)))
	c.first = time.Since(asked)
	// What came with the header is in the buffer. The rest is read from the
	// connection itself, so that it can be spliced.
	buffered := min(int64(c.in.Buffered()), resp.ContentLength)
	if err := read(io.LimitReader(c.in, buffered)); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	rest := &io.LimitedReader{R: c.conn, N: resp.ContentLength - buffered}
	if err := read(rest); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if rest.N > 0 {
		return fmt.Errorf("%s %s: %d bytes are missing: %w", method, path, rest.N, io.ErrUnexpectedEOF)
	}
	return nil
}

// Goodput downloads a path of the given size as curl does, and returns the
// bytes per second, from the request to the last byte.
func (c Client) Goodput(ctx context.Context, path string, size int64) (float64, error) {
	conn, err := c.Connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	started := time.Now()
	err = conn.Discard(http.MethodGet, path, size)
	return float64(size) / time.Since(started).Seconds(), err
}

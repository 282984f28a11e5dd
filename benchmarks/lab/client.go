//go:build linux

package main

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

	"golang.org/x/sync/errgroup"
)

// client takes images from a registry and keeps nothing. What it gets is moved
// to /dev/null by splice(2), and never read: with six clients beside six nodes
// on two processors, copying and hashing would be measured too. So it proves
// nothing; hash does, when the clock has stopped.
type client struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	base string // URL of the registry, with an IP address
}

// manifestTypes are what clients accept.
const manifestTypes = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"

// pull asks for the image as dockerd does: HEAD of the tag, the manifest by its
// digest, then the blobs, parallel at once. It returns when it has the last
// byte of the last one.
func (c client) pull(ctx context.Context, img *image) error {
	first, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer first.close()
	if err := first.discard(http.MethodHead, img.path("manifests", tag), img.manifest.size); err != nil {
		return err
	}
	if err := first.discard(http.MethodGet, img.path("manifests", img.manifest.digest()), img.manifest.size); err != nil {
		return err
	}
	blobs := make(chan blobFile, len(img.blobs))
	for _, b := range img.blobs {
		blobs <- b
	}
	close(blobs)
	group, ctx := errgroup.WithContext(ctx)
	for range img.parallel {
		group.Go(func() error {
			conn, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer conn.close()
			for b := range blobs {
				if err := conn.discard(http.MethodGet, img.path("blobs", b.digest()), b.size); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// hash gets a path and compares its SHA-256 sum.
func (c client) hash(ctx context.Context, path, hexSum string) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.close()
	sum := sha256.New()
	if err := conn.get(http.MethodGet, path, -1, func(r io.Reader) error {
		_, err := io.Copy(sum, r)
		return err
	}); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hexSum {
		return fmt.Errorf("%s%s has the digest %s", c.base, path, got)
	}
	return nil
}

// connection is a kept connection to the registry.
type connection struct {
	conn net.Conn
	in   *bufio.Reader
	null *os.File
	host string
	stop func() bool
}

// connect connects to the registry. When ctx ends, so does the connection.
func (c client) connect(ctx context.Context) (*connection, error) {
	base, err := url.Parse(c.base)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx, "tcp", base.Host)
	if err != nil {
		return nil, errors.Join(err, null.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // what it was doing fails
	return &connection{conn: conn, in: bufio.NewReaderSize(conn, 4<<10), null: null, host: base.Host, stop: stop}, nil
}

func (c *connection) close() {
	c.stop()
	_ = c.conn.Close() // read to its end or given up
	_ = c.null.Close()
}

// discard gets a path and throws the body away, which must be of that size.
func (c *connection) discard(method, path string, size int64) error {
	return c.get(method, path, size, func(body io.Reader) error {
		_, err := io.Copy(c.null, body)
		return err
	})
}

// get asks for path and lets read read the body. A size that is not negative
// is what the body must have.
func (c *connection) get(method, path string, size int64, read func(io.Reader) error) error {
	_, err := fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: lab\r\nAccept: %s\r\n\r\n", method, path, c.host, manifestTypes)
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
		return nil
	}
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

// goodput downloads a path of the given size as curl does, and returns the
// bytes per second, from the request to the last byte.
func (c client) goodput(ctx context.Context, path string, size int64) (float64, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.close()
	started := time.Now()
	err = conn.discard(http.MethodGet, path, size)
	return float64(size) / time.Since(started).Seconds(), err
}

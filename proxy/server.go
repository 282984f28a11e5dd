package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// Limits on what a client may take of the mirror.
const (
	headerPatience = 10 * time.Second // for a request to arrive
	idlePatience   = 2 * time.Minute  // between requests of a connection
	pushPatience   = 3 * time.Second  // for the body of a push, so that its client gets the answer
	maxHeaderBytes = 64 << 10         // tokens of cloud registries take some KiB
	// A client must take writeChunk bytes in writePatience, or is cut: a
	// modem does, a client that takes a byte a minute does not. Chunks cost
	// nothing worth measuring: each is one sendfile and one change of a timer.
	writeChunk    = 256 << 10
	writePatience = 2 * time.Minute
)

// localBuffer is what the kernel holds in bytes (socket(7) doubles it) of what
// a client on this machine has not read yet. Left to itself it lets megabytes
// pile up, which leave the processor's cache before they are read, and behind
// which other connections wait. Measured beside nginx: a cached blob reached 16
// clients as fast and half of their first bytes came after 15 ms, 1 in 100 after
// 47 (nginx: 10 and 24); with this buffer 1.7 times as fast, after 1.6 and 13. A
// client elsewhere needs the kernel's: it is as far away as its window is large.
const localBuffer = 256 << 10

// Server returns an http.Server for the proxy, with limits on slow and greedy
// clients. The caller serves and shuts it down.
func (p *Proxy) Server() *http.Server {
	return &http.Server{
		Handler:           p,
		ReadHeaderTimeout: headerPatience,
		IdleTimeout:       idlePatience,
		MaxHeaderBytes:    maxHeaderBytes,
		// For small answers; bodies of blobs move it on as they progress.
		WriteTimeout: writePatience,
		ConnContext:  suitBuffer,
		ErrorLog:     slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
}

// suitBuffer is an http.Server's ConnContext that gives connections of clients
// on this machine their localBuffer.
func suitBuffer(ctx context.Context, c net.Conn) context.Context {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return ctx
	}
	if client, ok := c.RemoteAddr().(*net.TCPAddr); ok && client.IP.IsLoopback() {
		_ = tcp.SetWriteBuffer(localBuffer) // without it, it is only slower
	}
	return ctx
}

// sink is the body of one response on its way to the client. It moves the
// write deadline on with every chunk and tells onWrite what went out, and since when
// and until when it was on its way. It wraps
// the copy, not the ResponseWriter, so that net/http still sees the file behind
// an io.LimitedReader and sends it by sendfile.
type sink struct {
	w       http.ResponseWriter
	onWrite func(n int64, since, until time.Time)
}

// Write is of io.Writer.
func (s *sink) Write(b []byte) (n int, err error) {
	now := time.Now()
	for n < len(b) && err == nil {
		var m int
		s.extend(now)
		m, err = s.w.Write(b[n:min(n+writeChunk, len(b))])
		n += m
		now = s.wrote(int64(m), now)
	}
	return n, clientError(err)
}

// ReadFrom is of io.ReaderFrom, which io.Copy prefers: it passes src on in
// chunks, each an io.LimitedReader directly around what src limits, because
// sendfile looks through one such wrapper only.
func (s *sink) ReadFrom(src io.Reader) (n int64, err error) {
	to, ok := s.w.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{s}, src)
	}
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: 1<<63 - 1}
	}
	now := time.Now()
	for limited.N > 0 {
		chunk := &io.LimitedReader{R: limited.R, N: min(writeChunk, limited.N)}
		s.extend(now)
		m, err := to.ReadFrom(chunk)
		n += m
		limited.N -= m
		now = s.wrote(m, now)
		if err != nil || chunk.N > 0 { // chunk.N > 0: src has ended
			return n, clientError(err)
		}
	}
	return n, nil
}

// errClient is in the chain of errors that are the client's doing.
var errClient = errors.New("the client has left, or is too slow")

// clientError marks the errors of a connection. What is copied there comes
// from files, never from another connection.
func clientError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.ErrClosedPipe) {
		return fmt.Errorf("%w: %w", errClient, err)
	}
	return err
}

// wrote tells onWrite of a chunk that was on its way since a time, and returns the
// time.
func (s *sink) wrote(n int64, since time.Time) time.Time {
	now := time.Now()
	s.onWrite(n, since, now)
	return now
}

// extend moves the write deadline. A ResponseWriter without deadlines, as in tests,
// has nobody to wait for.
func (s *sink) extend(now time.Time) {
	_ = http.NewResponseController(s.w).SetWriteDeadline(now.Add(writePatience))
}

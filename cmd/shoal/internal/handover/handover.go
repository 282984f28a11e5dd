// Package handover gives an open file of a program to a node on the same
// machine, beside an HTTP request: the node then reads or writes it by itself,
// without the bytes going through a connection. The two meet at a Unix socket
// without a place in the file system (unix(7), "abstract"), which reaches as far
// as the loopback interface does, whatever folders either of them sees, and whose
// name only the node can tell. The node opens nothing by name: what it is given is
// what the program could open. Linux only; elsewhere Listen and Dial return
// errors.ErrUnsupported. It starts no goroutines.
package handover

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// prefix makes the sockets recognisable in lists of them.
const prefix = "@shoal-"

// Listen opens a socket for an http.Server whose ConnContext is Context. Its
// address is the name for Dial.
func Listen(ctx context.Context) (net.Listener, error) {
	if runtime.GOOS != "linux" {
		return nil, errors.ErrUnsupported
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", prefix+rand.Text())
	if err != nil {
		return nil, err
	}
	return listener{l}, nil
}

type listener struct{ net.Listener }

// Accept is of net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &taker{UnixConn: c.(*net.UnixConn)}, nil
}

// taker is the node's end of a connection: it keeps the file that comes with
// what is read.
type taker struct {
	*net.UnixConn
	mu     sync.Mutex
	file   *os.File // nil if none has come
	closed bool
}

// Read is of net.Conn.
func (t *taker) Read(p []byte) (int, error) {
	beside := make([]byte, unix.CmsgSpace(4)) // of one file; the kernel closes more
	n, m, _, _, err := t.ReadMsgUnix(p, beside)
	if m > 0 {
		t.take(beside[:m])
	}
	if n < 0 {
		n = 0
	}
	return n, err
}

// take keeps the first file; others are closed.
func (t *taker) take(beside []byte) {
	all, err := unix.ParseSocketControlMessage(beside)
	if err != nil {
		return
	}
	for _, m := range all {
		files, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // something else
		}
		for _, fd := range files {
			f := os.NewFile(uintptr(fd), "the file")
			t.mu.Lock()
			if t.file == nil && !t.closed {
				t.file, f = f, nil
			}
			t.mu.Unlock()
			if f != nil {
				f.Close()
			}
		}
	}
}

// Close is of net.Conn. The file is closed with the connection.
func (t *taker) Close() error {
	t.mu.Lock()
	t.closed = true
	f := t.file
	t.mu.Unlock()
	if f != nil {
		f.Close()
	}
	return t.UnixConn.Close()
}

type connKey struct{}

// Context is the ConnContext of an http.Server.
func Context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// File returns the file that came with the request whose context it is, and false
// if there is none. It must be a regular one: others can keep whoever reads them
// waiting for ever. It is closed with the connection.
func File(ctx context.Context) (*os.File, bool) {
	t, ok := ctx.Value(connKey{}).(*taker)
	if !ok {
		return nil, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.file, t.file != nil && IsRegular(t.file)
}

// IsRegular tells whether f is a plain file.
func IsRegular(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// Dial connects to the socket of that name. f goes with the first bytes that are
// written; the caller may close it when the answer is there.
func Dial(ctx context.Context, name string, f *os.File) (net.Conn, error) {
	if runtime.GOOS != "linux" || len(name) <= len(prefix) || name[:len(prefix)] != prefix {
		return nil, fmt.Errorf("hand a file over at %q: %w", name, errors.ErrUnsupported)
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	return &giver{UnixConn: c.(*net.UnixConn), file: f}, nil
}

// giver is the program's end of a connection.
type giver struct {
	*net.UnixConn
	file *os.File // nil when it is gone
}

// Write is of net.Conn.
func (g *giver) Write(p []byte) (n int, err error) {
	if g.file == nil || len(p) == 0 {
		return g.UnixConn.Write(p)
	}
	conn, err := g.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var errSend error
	if err := conn.Control(func(fd uintptr) { n, _, errSend = g.WriteMsgUnix(p, unix.UnixRights(int(fd)), nil) }); err != nil {
		return 0, err
	}
	if errSend != nil {
		return n, errSend
	}
	g.file = nil
	if n == len(p) {
		return n, nil
	}
	more, err := g.UnixConn.Write(p[n:])
	return n + more, err
}

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/origin"
)

// What net/http hands to the connection must be a file behind one
// io.LimitedReader: only that goes out by sendfile. So the connection is
// watched, under the whole of the proxy.
func TestBlobsGoOutBySendfile(t *testing.T) {
	cache, err := blobcache.Open(t.TempDir(), blobcache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	data := random(1, 3*blob.PieceSize+5)
	d := descriptorOf(data)
	if err := cache.Put(t.Context(), d, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	running := random(2, 3*blob.PieceSize+5)
	fill, _, err := cache.Fill(descriptorOf(running))
	if err != nil {
		t.Fatal(err)
	}
	client, err := origin.New(origin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Cache: cache, Fetcher: fetched{fill}, Origin: client})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	watched := &watchedListener{Listener: listener}
	server := p.Server()
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(watched) })
	defer serving.Wait()
	defer func() { _ = server.Close() }()

	go func() {
		for i := range blob.PieceCount(int64(len(running))) {
			r := blob.Piece(i, int64(len(running)))
			if err := fill.WritePiece(i, running[r.Offset:r.Offset+r.Length], blobcache.Provenance{Identity: "x"}); err != nil {
				t.Error(err)
			}
		}
	}()
	for name, want := range map[string][]byte{"cache": data, "fill": running} {
		watched.reset()
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /v2/app/blobs/%s HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n", descriptorOf(want).Digest)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		conn.Close()
		if err != nil || !bytes.Equal(body, want) {
			t.Errorf("%s: %d bytes, %v", name, len(body), err)
		}
		// net/http looks at the first 512 bytes itself, if it had no reason
		// to send the headers before them.
		if got := watched.files.Load(); got < int64(len(want))-512 {
			t.Errorf("%s: %d of %d bytes came to the connection as a file", name, got, len(want))
		}
	}
}

// fetched is a Fetcher that has one fill.
type fetched struct{ fill *blobcache.Fill }

func (f fetched) Fetch(context.Context, blob.Descriptor, blob.Source) (*blobcache.Fill, error) {
	return f.fill, nil
}

// watchedListener counts the bytes that connections get as a file.
type watchedListener struct {
	net.Listener
	files atomic.Int64
}

func (l *watchedListener) reset() { l.files.Store(0) }

func (l *watchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{c.(*net.TCPConn), l}, nil
}

type watchedConn struct {
	*net.TCPConn
	l *watchedListener
}

func (c *watchedConn) ReadFrom(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = limited.R.(*os.File)
	}
	n, err := c.TCPConn.ReadFrom(r)
	if ok {
		c.l.files.Add(n)
	}
	return n, err
}

// brokenWriter is a connection that its client has reset.
type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) ReadFrom(io.Reader) (int64, error) {
	return 0, &net.OpError{Op: "readfrom", Err: os.NewSyscallError("sendfile", syscall.ECONNRESET)}
}

func TestClientsThatLeaveAreNoNews(t *testing.T) {
	s := &sink{w: brokenWriter{httptest.NewRecorder()}, onWrite: func(int64, time.Time, time.Time) {}}
	_, err := io.CopyN(s, strings.NewReader("body"), 4)
	if !errors.Is(err, errClient) || !errors.Is(err, syscall.ECONNRESET) || gravity(err) != slog.LevelDebug {
		t.Errorf("%v is logged as %v", err, gravity(err))
	}
}

func TestLocalClientsHaveTheirBuffer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := writeBuffer(t, conn); got <= 2*localBuffer {
		t.Fatalf("every connection has a buffer of %d: nothing can be told", got)
	}
	p := &Proxy{log: slog.New(slog.DiscardHandler)}
	p.Server().ConnContext(t.Context(), conn)
	// The kernel doubles it, and may have a lower limit of its own.
	if got := writeBuffer(t, conn); got > 2*localBuffer {
		t.Errorf("a buffer of %d, want at most %d", got, 2*localBuffer)
	}
}

func writeBuffer(t *testing.T, conn net.Conn) (size int) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		size, failed = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return size
}

// A client that takes a little all the time is served, one that takes next to
// nothing is cut off.
func TestSlowClients(t *testing.T) {
	for _, c := range []struct {
		name  string
		take  int64
		every time.Duration
		clean bool
	}{
		{"a modem", 64 << 10, 15 * time.Second, true},
		{"a byte a minute", 1, time.Minute, false},
		{"nothing", 0, time.Minute, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				t := r.t
				b := addBlob(r.hub, "library/app", random(1, 2*blob.PieceSize))
				conn, err := r.dial(t.Context(), "tcp", "mirror:80")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprintf(conn, "GET /v2/library/app/blobs/%s HTTP/1.1\r\nHost: mirror\r\n\r\n", b.ref())
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				got := &strings.Builder{}
				start := time.Now()
				for err == nil && got.Len() < len(b.bytes) && time.Since(start) < time.Hour {
					sleep(c.every)
					_, err = io.CopyN(got, resp.Body, c.take)
				}
				if c.clean {
					if err != nil || got.Len() != len(b.bytes) {
						t.Errorf("%d bytes in %v, %v", got.Len(), time.Since(start), err)
					}
					return
				}
				// What was on its way is all that is left to be read.
				rest, err := io.ReadAll(resp.Body)
				if n := got.Len() + len(rest); err == nil || n > blob.PieceSize {
					t.Errorf("%d bytes in %v, %v; want to be cut off", n, time.Since(start), err)
				}
				if r.logged("level=WARN") != 0 {
					t.Errorf("a slow client is no news:\n%s", r.log)
				}
			})
		})
	}
}

func TestSlowRequests(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		for name, start := range map[string]string{
			"no request": "", "half a header": "GET /v2/ HTTP/1.1\r\nHost: mir",
		} {
			conn, err := r.dial(t.Context(), "tcp", "mirror:80")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, start)
			since := time.Now()
			_, _ = io.ReadAll(conn)
			if took := time.Since(since); took > headerPatience {
				t.Errorf("%s: cut after %v", name, took)
			}
			conn.Close()
		}
		conn, err := r.dial(t.Context(), "tcp", "mirror:80")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go fmt.Fprintf(conn, "GET /v2/ HTTP/1.1\r\nHost: mirror\r\nX: %s\r\n\r\n", strings.Repeat("x", 2*maxHeaderBytes))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
}

// A push ends its connection, so that nobody waits for its body.
func TestPushIsNotWaitedFor(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		conn, err := r.dial(t.Context(), "tcp", "mirror:80")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		start := time.Now()
		go fmt.Fprint(conn, "PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: mirror\r\nContent-Length: 1000\r\n\r\n{")
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("status %d", resp.StatusCode)
		}
		_, _ = io.Copy(io.Discard, in)
		if took := time.Since(start); took > 2*pushPatience {
			t.Errorf("the connection was open for %v", took)
		}
	})
}

// A blob whose proof is old is hashed again, which may take long: the headers
// do not wait for it.
func TestOldProofs(t *testing.T) {
	for name, rotten := range map[string]bool{"sound": false, "rotten": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{}, func(r *rig) {
				t := r.t
				b := addBlob(r.hub, "library/app", random(1, 16*blob.PieceSize))
				path := "/v2/library/app/blobs/" + b.ref()
				r.get(path).wants(t, http.StatusOK, b.bytes)
				r.hub.ResetStats()
				sleep(25 * time.Hour)
				if rotten {
					r.damage(b)
				}
				r.proxy.reprovePatience = 0 // which is over before 16 MiB are hashed
				r.get(path, "Range: bytes=5-").wants(t, http.StatusPartialContent, b.bytes[5:])
				if rotten {
					r.asked(r.hub, "GET blob "+b.ref()+" -> 200")
				} else {
					r.asked(r.hub)
				}
			})
		})
	}
}

package origintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// Server serves a Registry on a port, and its CDN on a second one.
type Server struct {
	// Registry is what is served.
	Registry *Registry
	// URL is the base URL, such as "http://127.0.0.1:34567".
	URL string

	servers  []*http.Server
	running  sync.WaitGroup // listeners and connections
	accepted atomic.Int64
}

// Listen serves r at the TCP address addr, such as "127.0.0.1:0". If r
// redirects blobs and names no CDN, that is served at another port of the same
// host.
func Listen(addr string, r *Registry) (*Server, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("origintest: %w", err)
	}
	s := Serve(l, r)
	if !r.o.RedirectBlobs || r.o.CDN != "" {
		return s, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("origintest: %w", err), s.Close())
	}
	second, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("origintest: %w", err), s.Close())
	}
	r.mu.Lock()
	r.cdn = "http://" + second.Addr().String()
	r.mu.Unlock()
	s.serve(second)
	return s, nil
}

// Serve serves r on l, which it closes at the end.
func Serve(l net.Listener, r *Registry) *Server {
	s := &Server{Registry: r, URL: "http://" + l.Addr().String()}
	s.serve(l)
	return s
}

func (s *Server) serve(l net.Listener) {
	h := &http.Server{
		Handler: s.Registry,
		// Connections that faults abort are not worth a line.
		ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.accepted.Add(1)
				s.running.Add(1)
			case http.StateClosed, http.StateHijacked:
				s.running.Done()
			}
		},
	}
	s.servers = append(s.servers, h)
	s.running.Go(func() {
		// It returns when the server is closed, and only then.
		_ = h.Serve(l)
	})
}

// Host returns the address as it stands in URL, such as "127.0.0.1:34567".
func (s *Server) Host() string { return s.URL[len("http://"):] }

// Connections returns how many connections were accepted so far.
func (s *Server) Connections() int64 { return s.accepted.Load() }

// Close cuts all connections and returns when all that they did has ended.
func (s *Server) Close() error {
	var errs []error
	for _, h := range s.servers {
		errs = append(errs, h.Close())
	}
	s.running.Wait()
	return errors.Join(errs...)
}

// TB is what Start needs of a testing.TB.
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
}

// Start serves a new Registry on a free port of the loopback until the test
// ends.
func Start(t TB, o Options) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", New(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return s
}

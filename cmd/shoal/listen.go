package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
)

// endpoint is an HTTP server and where it listens.
type endpoint struct {
	listener net.Listener
	server   *http.Server
}

func (e endpoint) addr() string { return e.listener.Addr().String() }

// serve answers requests until the server is shut down or closed.
func (e endpoint) serve() error {
	if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listen opens the TCP address of a flag.
func listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, cannotListen(flag, addr, err)
	}
	return l, nil
}

// probe finds out whether the TCP address of a flag can be listened on, for
// those who do it elsewhere and cannot say what is wrong.
func probe(ctx context.Context, flag, addr string) error {
	l, err := listen(ctx, flag, addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// cannotListen says what to do about the common reasons.
func cannotListen(flag, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use by another program: stop that one (is a node running already?) or choose another address with --%s", addr, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is no address of this machine: choose another with --%s", addr, flag)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s may not be listened on by this user: choose a port above 1023 with --%s", addr, flag)
	}
	return fmt.Errorf("--%s: %w", flag, err)
}

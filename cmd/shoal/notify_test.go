package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// serviceManager is the socket of one, as a service sees it.
type serviceManager struct{ *net.UnixConn }

// newServiceManager makes one with a watchdog of that patience; 0 means none.
func newServiceManager(t *testing.T, watchdog time.Duration) serviceManager {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // a socket that was only read
	t.Setenv("NOTIFY_SOCKET", socket)
	if watchdog > 0 {
		t.Setenv("WATCHDOG_USEC", strconv.FormatInt(watchdog.Microseconds(), 10))
	}
	return serviceManager{conn}
}

// hearWithin returns the next state that it is told.
func (m serviceManager) hearWithin(limit time.Duration) (string, error) {
	b := make([]byte, 100)
	if err := m.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	n, err := m.Read(b)
	return string(b[:n]), err
}

func (m serviceManager) hear(t *testing.T) string {
	t.Helper()
	state, err := m.hearWithin(patience)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// A service manager hears when the node is ready and, before downloads have
// ended, that it stops.
func TestServiceManagerIsTold(t *testing.T) {
	manager := newServiceManager(t, 0)
	f := start(t)
	if got := manager.hear(t); got != "READY=1" {
		t.Errorf("heard %q first", got)
	}
	if got := f.readyz(); got != "OK: ready" {
		t.Errorf("told that the node is ready, which says %q", got)
	}
	body := f.download(t)
	defer body.Close()
	f.stop()
	if got := manager.hear(t); got != "STOPPING=1" {
		t.Errorf("heard %q at the end", got)
	}
	select {
	case err := <-f.ended:
		t.Fatalf("ended while a download was running: %v", err)
	default:
	}
	f.openGate()
	body.Close()
	if err := <-f.ended; err != nil {
		t.Error(err)
	}
}

// A watchdog hears of a node that answers, also while it drains, and not of one
// that does not.
func TestWatchdog(t *testing.T) {
	manager := newServiceManager(t, 60*time.Millisecond)
	f := start(t)
	if got := manager.hear(t); got != "READY=1" {
		t.Errorf("heard %q first", got)
	}
	for range 3 {
		if got := manager.hear(t); got != "WATCHDOG=1" {
			t.Errorf("heard %q of a node that lives", got)
		}
	}
	body := f.download(t)
	defer body.Close()
	f.stop()
	for got := manager.hear(t); got != "STOPPING=1"; got = manager.hear(t) {
		if got != "WATCHDOG=1" {
			t.Errorf("heard %q", got)
		}
	}
	if got := manager.hear(t); got != "WATCHDOG=1" {
		t.Errorf("heard %q of a node that drains", got)
	}
	if err := f.admin.server.Close(); err != nil {
		t.Fatal(err)
	}
	// What was on its way may still come.
	for n := 0; ; n++ {
		got, err := manager.hearWithin(500 * time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if n > 5 {
			t.Fatalf("still heard %q of a node that does not answer", got)
		}
	}
}

package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// start serves what the node sees of the file that is handed over.
func start(t *testing.T) (name string, seen chan string) {
	t.Helper()
	l, err := Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen = make(chan string, 1)
	srv := &http.Server{ConnContext: Context, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		f, ok := File(r.Context())
		if !ok {
			seen <- "no file"
			return
		}
		text, err := io.ReadAll(f)
		seen <- fmt.Sprint(string(text), err)
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-ended })
	return l.Addr().String(), seen
}

// ask sends a request by a connection.
func ask(t *testing.T, conn net.Conn) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://node/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func textFile(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// openFiles counts what the process has open.
func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestHandedOver(t *testing.T) {
	name, seen := start(t)
	pipe, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer in.Close()
	for what, c := range map[string]struct {
		file *os.File
		want string
	}{
		"a file": {textFile(t, "its text"), "its text<nil>"},
		"a pipe": {pipe, "no file"}, // it could keep the node waiting for ever
	} {
		conn, err := Dial(t.Context(), name, c.file)
		if err != nil {
			t.Fatal(err)
		}
		ask(t, conn)
		if got := <-seen; got != c.want {
			t.Errorf("%s: %s", what, got)
		}
	}
	// A client without a file is one like any other.
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", name)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, conn)
	if got := <-seen; got != "no file" {
		t.Errorf("without a file: %s", got)
	}
}

// However many files somebody sends, the node keeps one of a connection, and none
// after it.
func TestOneFileOfAConnection(t *testing.T) {
	l, err := Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := textFile(t, "x")
	before := openFiles(t)
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	node, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	rights := unix.UnixRights(int(f.Fd()), int(f.Fd()), int(f.Fd()))
	buf := make([]byte, 10)
	for range 20 {
		if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte("a"), rights, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := node.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	if n := openFiles(t) - before; n != 3 { // two ends and a file
		t.Errorf("%d files are open", n)
	}
	conn.Close()
	if _, err := node.Read(buf); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	node.Close()
	if n := openFiles(t) - before; n != 0 {
		t.Errorf("%d files stay open", n)
	}
}

// A program goes where a node of shoal listens and nowhere else, whatever it is
// told.
func TestDialOtherSockets(t *testing.T) {
	for _, name := range []string{"", "@", "@shoal-", "/run/docker.sock", "@other"} {
		if conn, err := Dial(t.Context(), name, textFile(t, "x")); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%q: %v, %v", name, conn, err)
		}
	}
	if _, err := Dial(t.Context(), "@shoal-gone", textFile(t, "x")); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("nobody listens: %v", err)
	}
}

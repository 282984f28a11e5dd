//go:build linux

package rig

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func clientOf(url string) Client {
	return Client{Dial: (&net.Dialer{}).DialContext, Base: url}
}

func TestClientNoticesABrokenBody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(make([]byte, 50000)) // the rest is missing: net/http cuts the connection
	}))
	defer server.Close()
	if _, err := clientOf(server.URL).Goodput(t.Context(), "/", 100000); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want that of an unexpected end", err)
	}
}

func TestClientLeavesWithItsContext(t *testing.T) {
	asked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-asked
		cancel()
	}()
	if _, err := clientOf(server.URL).Goodput(ctx, "/", 1); err == nil {
		t.Error("no error")
	}
}

func TestLoad(t *testing.T) {
	busy, steal, err := parseStat("cpu  100 20 30 5000 60 7 8 9 0 0\ncpu0 1 2 3\n")
	if err != nil || busy != 165 || steal != 9 {
		t.Errorf("busy %d, steal %d, %v; want 165, 9", busy, steal, err)
	}
	used, err := parseProcess("42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7")
	if err != nil || used != 100 {
		t.Errorf("process used %d, %v; want 100", used, err)
	}
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8", "cpu a 2 3 4 5 6 7 8"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
	now := time.Now()
	got := loadBetween(usage{at: now, busy: 1000, steal: 10, own: 100}, usage{at: now.Add(time.Second), busy: 1150, steal: 30, own: 200}, 2)
	if want := (Load{CPUs: 2, Busy: 0.75, Others: 0.25, Steal: 0.1}); got != want {
		t.Errorf("load %+v, want %+v", got, want)
	}
}

func TestTurns(t *testing.T) {
	contenders := []string{"a", "b", "c"}
	for round, want := range [][]string{{"a", "b", "c"}, {"b", "c", "a"}, {"c", "a", "b"}, {"a", "b", "c"}} {
		if got := Turns(contenders, round+1); !slices.Equal(got, want) {
			t.Errorf("round %d: %v, want %v", round+1, got, want)
		}
	}
	if got := Turns([]string(nil), 3); got != nil {
		t.Errorf("nobody's turns are %v", got)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   string
	}{
		{nil, "-"},
		{[]float64{2}, "2.00"},
		{[]float64{3, 1, 2}, "2.00 (1.00-3.00)"},
		{[]float64{4, 1, 3, 2}, "2.50 (1.00-4.00)"},
	} {
		if got := SpreadOf(test.values).String(); got != test.want {
			t.Errorf("%v: %s, want %s", test.values, got, test.want)
		}
	}
}

// The first byte of a body may come long after the header.
func TestFirstByte(t *testing.T) {
	const pause = 30 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "3")
		_ = http.NewResponseController(w).Flush()
		if r.Method == http.MethodHead {
			<-r.Context().Done() // who waited for a body would wait for ever
			return
		}
		<-time.After(pause)
		_, _ = io.WriteString(w, "abc")
	}))
	defer server.Close()
	conn, err := clientOf(server.URL).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Discard(http.MethodGet, "/", 3); err != nil || conn.First() < pause {
		t.Errorf("first byte after %v, want at least %v (%v)", conn.First(), pause, err)
	}
	if err := conn.Discard(http.MethodHead, "/", 3); err != nil || conn.First() <= 0 {
		t.Errorf("an answer without a body after %v (%v)", conn.First(), err)
	}
}

package p2ptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCluster(t *testing.T) {
	c := NewCluster(t, 3, Options{})
	for i, m := range c.Members {
		if !m.Joined() {
			t.Errorf("member %d is alone", i)
		}
	}
	d := c.Members[1].Seed([]byte("hello"))
	c.Members[2].AwaitHolders(d.Digest, c.Members[1])
	c.Add().AwaitHolders(d.Digest, c.Members[1])
	c.Members[1].Stop()
	Eventually(t, "a stopped member is still connected", func() bool {
		for _, other := range c.Members[2].Members() {
			if other.Peer == c.Members[1].ID() {
				return false
			}
		}
		return true
	})
}

// TestFreeze looks at the gate alone: bytes stop, and go on after the thaw.
func TestFreeze(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(inner)
	defer func() { _ = g.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := g.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	}()
	c, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	echo := func() error {
		_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	Eventually(t, "no echo", func() bool { return echo() == nil })
	g.freeze()
	var slow net.Error
	if err := echo(); !errors.As(err, &slow) || !slow.Timeout() {
		t.Errorf("a frozen connection answers: %v", err)
	}
	g.thaw()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("after the thaw: %v", err)
	}
	c.Close()
	<-done
}

// TestLies shows that each lie is what it says, against an honest handler that
// answers every request with ten bytes.
func TestLies(t *testing.T) {
	truth := []byte("0123456789")
	honest := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(truth) })
	for _, lie := range Lies() {
		t.Run(string(lie), func(t *testing.T) {
			srv := httptest.NewServer(lie.Wrap(honest))
			defer srv.Close()
			defer srv.CloseClientConnections()
			patience := 10 * time.Second
			if lie == Nothing { // which is what it takes
				patience = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			status, body, err := ask(ctx, srv.URL+pieces+"x")
			got := fmt.Sprintf("%d %d %v", status, len(body), err != nil)
			want := map[Lie]string{
				TooMuch: "200 100010 false", TooLittle: "200 5 true", Short: "200 9 false",
				WrongPiece: "200 10 false", OneBit: "200 10 false", Garbage: "0 0 true",
				Nothing: "0 0 true", Refuses: "404 19 false",
				RefusesPieces: "404 19 false",
			}[lie]
			if lie == Endless {
				if status != 200 || err == nil || len(body) < 100*len(truth) {
					t.Errorf("%s", got)
				}
				return
			}
			if got != want {
				t.Errorf("status, length, error: %s, want %s", got, want)
			}
			if bytes.Equal(body, truth) {
				t.Error("the truth")
			}
			if lie != Refuses {
				if _, body, err := ask(t.Context(), srv.URL+"/shoal/1/info/x"); err != nil || !bytes.Equal(body, truth) {
					t.Errorf("info is a lie, too: %q %v", body, err)
				}
			}
		})
	}
}

func ask(ctx context.Context, url string) (status int, body []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && len(body) == 1<<20 {
		err = errors.New("no end")
	}
	return resp.StatusCode, body, err
}

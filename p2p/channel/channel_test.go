package channel

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	ic "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"

	"shoal/p2p/swarmkey"
)

// newMember returns a channel with a fresh identity.
func newMember(tb testing.TB, key *swarmkey.Key) *Channel {
	tb.Helper()
	priv, _, err := ic.GenerateEd25519Key(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	ch, err := New(priv, key)
	if err != nil {
		tb.Fatal(err)
	}
	return ch
}

// listen accepts on loopback until the test ends.
func listen(tb testing.TB, ch *Channel, o ListenOptions) *Listener {
	tb.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	l := ch.NewListener(inner, o)
	tb.Cleanup(func() { l.Close() })
	return l
}

// serve runs an HTTP server on l until the test ends.
func serve(tb testing.TB, l net.Listener, h http.Handler) {
	tb.Helper()
	srv := &http.Server{Handler: h, ConnContext: ConnContext}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	tb.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
}

func TestHTTPBetweenMembers(t *testing.T) {
	key := swarmkey.New()
	alice, bob := newMember(t, key), newMember(t, key)
	body := make([]byte, 3<<20+17)
	rand.Read(body)
	l := listen(t, bob, ListenOptions{})
	callers := make(chan peer.ID, 2)
	serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, ok := RemotePeer(r.Context())
		if !ok {
			t.Error("the handler does not know who asks")
		}
		callers <- id
		_, _ = w.Write(body)
	}))
	c, err := alice.Dial(t.Context(), bob.id, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if c.RemotePeer() != bob.id {
		t.Errorf("dialled %s, is %s", bob.id, c.RemotePeer())
	}
	got := get(t, c)
	if !bytes.Equal(got, body) {
		t.Errorf("body differs (%d bytes of %d)", len(got), len(body))
	}
	if id := <-callers; id != alice.id {
		t.Errorf("handler saw %s, want %s", id, alice.id)
	}
}

// get sends one request over c and returns the body.
func get(tb testing.TB, c net.Conn) []byte {
	tb.Helper()
	used := false
	tr := &http.Transport{DisableKeepAlives: true}
	tr.DialContext = func(_ context.Context, _, _ string) (net.Conn, error) {
		if used {
			return nil, errors.New("a second connection")
		}
		used = true
		return c, nil
	}
	client := http.Client{Transport: tr, Timeout: 10 * time.Second}
	resp, err := client.Get("http://member/")
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestStrangersAreRefused(t *testing.T) {
	key := swarmkey.New()
	for name, test := range map[string]struct {
		dialler *swarmkey.Key
		ask     func(listener peer.ID) peer.ID
		want    func(error) bool
	}{
		"wrong key": {
			dialler: swarmkey.New(),
			ask:     func(id peer.ID) peer.ID { return id },
			want:    func(err error) bool { return errors.Is(err, ErrNotMember) },
		},
		"right key, another peer than asked for": {
			dialler: key,
			ask:     func(peer.ID) peer.ID { return newMember(t, key).id },
			want: func(err error) bool {
				var mismatch sec.ErrPeerIDMismatch
				return errors.As(err, &mismatch)
			},
		},
		"no peer named": {
			dialler: key,
			ask:     func(peer.ID) peer.ID { return "" },
			want:    func(err error) bool { return errors.Is(err, peer.ErrEmptyPeerID) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			bob := newMember(t, key)
			l := listen(t, bob, ListenOptions{})
			serve(t, l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Error("a request of a stranger was served")
			}))
			c, err := newMember(t, test.dialler).Dial(t.Context(), test.ask(bob.id), l.Addr().String())
			if err == nil {
				_ = c.Close()
				t.Fatal("connected")
			}
			if !test.want(err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

package p2p

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/opencontainers/go-digest"

	"shoal/p2p/swarmkey"
	"shoal/p2p/wire"
)

// frame puts the length in front.
func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func badHellos() map[string][]byte {
	many := strings.Repeat(`"192.0.2.1:1",`, wire.MaxAddrs) + `"192.0.2.1:1"`
	return map[string][]byte{
		"nothing":                 {},
		"half a length":           {0, 0},
		"no body":                 {0, 0, 0, 10},
		"half a body":             frame(`{"pieces":[]}`)[:9],
		"four GiB announced":      {0xff, 0xff, 0xff, 0xff},
		"one byte too long":       frame(`{"zone":"` + strings.Repeat("z", maxHello-10) + `"}`),
		"padded over the limit":   frame(`{"pieces":[]}` + strings.Repeat(" ", maxHello)),
		"garbage":                 frame("\x00\xff\xfe garbage"),
		"no object":               frame(`[1,2,3]`),
		"deeply nested":           frame(`{"x":` + strings.Repeat("[", 4000)),
		"wrong type":              frame(`{"pieces":"192.0.2.1:1"}`),
		"too many addresses":      frame(`{"pieces":[` + many + `]}`),
		"an address without port": frame(`{"pieces":["192.0.2.1"]}`),
		"port 0":                  frame(`{"pieces":["192.0.2.1:0"]}`),
		"port by name":            frame(`{"pieces":["192.0.2.1:http"]}`),
		"port 65536":              frame(`{"pieces":["192.0.2.1:65536"]}`),
		"no host":                 frame(`{"pieces":[":80"]}`),
		"a line break in a host":  frame(`{"pieces":["a\nb:80"]}`),
		"an endless host":         frame(`{"pieces":["` + strings.Repeat("a", 300) + `:80"]}`),
		"a zone with escapes":     frame(`{"zone":"\u001b[31m"}`),
		"a zone of 65 bytes":      frame(`{"zone":"` + strings.Repeat("z", wire.MaxZone+1) + `"}`),
		"seen at no address":      frame(`{"seen":"here"}`),
		"seen without a port":     frame(`{"seen":"192.0.2.1"}`),
		"an endless zone seen":    frame(`{"seen":"[fe80::1%` + strings.Repeat("z", 80) + `]:1"}`),
		"no truth about NAT":      frame(`{"nat":"yes"}`),
		"an endless version":      frame(`{"version":"` + strings.Repeat("1", 65) + `"}`),
	}
}

func TestBadHellosAreRefused(t *testing.T) {
	for name, b := range badHellos() {
		t.Run(name, func(t *testing.T) {
			if h, err := readHello(bytes.NewReader(b)); err == nil {
				t.Errorf("read %+v", h)
			}
		})
	}
}

func TestHelloIsReadBack(t *testing.T) {
	for _, h := range []hello{
		{},
		{Pieces: []string{"192.0.2.1:7001", "[2001:db8::1]:7001", "node.example:65535"}, Zone: "rack 7", Version: "1.2.3-rc1+x"},
		{Seen: "[2001:db8::1]:4001", NAT: true, Relay: true},
	} {
		var b bytes.Buffer
		if err := writeHello(&b, h); err != nil {
			t.Fatal(err)
		}
		got, err := readHello(&b)
		if err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("%+v became %+v, %v", h, got, err)
		}
	}
	// What a later version may add does not matter.
	h, err := readHello(bytes.NewReader(frame(`{"pieces":["192.0.2.1:1"],"load":0.5,"new":{"a":[1]}}`)))
	if err != nil || len(h.Pieces) != 1 {
		t.Errorf("%+v, %v", h, err)
	}
}

func FuzzReadHello(f *testing.F) {
	for _, b := range badHellos() {
		f.Add(b)
	}
	f.Add(frame(`{"pieces":["192.0.2.1:1"],"zone":"z"}`))
	f.Add(frame(`{"seen":"192.0.2.1:4001","nat":true,"relay":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(bytes.NewReader(b))
		if err != nil {
			return
		}
		// What was accepted can be told on.
		var out bytes.Buffer
		if err := writeHello(&out, h); err != nil {
			t.Fatal(err)
		}
		if again, err := readHello(&out); err != nil || fmt.Sprint(again) != fmt.Sprint(h) {
			t.Errorf("%+v became %+v, %v", h, again, err)
		}
	})
}

// rawMember is in the swarm, but speaks only what the test makes it speak.
func rawMember(t *testing.T, key *swarmkey.Key) host.Host {
	t.Helper()
	s, err := testOptions(t, key).check()
	if err != nil {
		t.Fatal(err)
	}
	h, err := newHost(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// TestHostileAsker: whatever a member sends, it gets no answer to nonsense,
// its stream ends, nothing is remembered, and others are served.
func TestHostileAsker(t *testing.T) {
	key := swarmkey.New()
	n, _ := start(t, testOptions(t, key))
	bad := rawMember(t, key)
	if err := bad.Connect(t.Context(), peer.AddrInfo{ID: n.ID(), Addrs: n.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	for name, b := range badHellos() {
		t.Run(name, func(t *testing.T) {
			s, err := bad.NewStream(t.Context(), n.ID(), helloProtocol)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Reset() }()
			_, _ = s.Write(b)
			_ = s.CloseWrite()
			_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
			var timeout interface{ Timeout() bool }
			got, err := io.ReadAll(s)
			if len(got) > 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	if h, known := n.greeter.get(bad.ID()); known {
		t.Errorf("remembers %+v", h)
	}
	good, _ := start(t, testOptions(t, key, n))
	eventually(t, "no hello with an honest member", func() bool {
		_, known := n.greeter.get(good.ID())
		return known
	})
}

// TestSilentAsker opens a stream and says nothing: the stream ends by itself.
func TestSilentAsker(t *testing.T) {
	key := swarmkey.New()
	n, _ := start(t, testOptions(t, key))
	bad := rawMember(t, key)
	if err := bad.Connect(t.Context(), peer.AddrInfo{ID: n.ID(), Addrs: n.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	s, err := bad.NewStream(t.Context(), n.ID(), helloProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte{0, 0}); err != nil { // begins, and stops
		t.Fatal(err)
	}
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	var timeout interface{ Timeout() bool }
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the stream is still open: %v", err)
	}
}

// TestHostileHolder announces a blob and answers the hello with nonsense, or
// not at all: the lookup ends without it, and yields the honest holder.
func TestHostileHolder(t *testing.T) {
	for name, answer := range map[string]func(network.Stream){
		"garbage": func(s network.Stream) { _, _ = s.Write(frame("garbage")); s.Close() },
		"silence": func(network.Stream) {},
		"reset":   func(s network.Stream) { _ = s.Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			key := swarmkey.New()
			n, _ := start(t, testOptions(t, key))
			bad, _ := start(t, testOptions(t, key, n))
			<-bad.JoinTried()
			// The hello of the join is forgotten, the next one is a lie.
			eventually(t, "no hello", func() bool { _, ok := n.greeter.get(bad.ID()); return ok })
			bad.host.SetStreamHandler(helloProtocol, answer)
			n.greeter.mu.Lock()
			delete(n.greeter.known, bad.ID())
			n.greeter.mu.Unlock()
			good, _ := start(t, testOptions(t, key, n))
			<-good.JoinTried()
			d := digest.FromString("wanted")
			for _, h := range []*Node{bad, good} {
				if err := h.Provide(t.Context(), d); err != nil {
					t.Fatal(err)
				}
			}
			for _, h := range []*Node{bad, good} {
				eventually(t, "no record", func() bool { return knows(t, []*Node{n}, h, d) == 1 })
			}
			found := holders(t, n, d)
			if len(found) != 1 || found[0].Peer != good.ID() {
				t.Errorf("found %v", found)
			}
		})
	}
}

// TestHelloIsTriedAgain: a member that was too busy for the first hello is
// known all the same.
func TestHelloIsTriedAgain(t *testing.T) {
	key := swarmkey.New()
	busy, _ := start(t, testOptions(t, key))
	first := make(chan struct{})
	var once sync.Once
	busy.host.SetStreamHandler(helloProtocol, func(s network.Stream) {
		tried := false
		once.Do(func() { tried = true; close(first) })
		if tried {
			_ = s.Reset()
			return
		}
		busy.greeter.serve(s)
	})
	n, _ := start(t, testOptions(t, key, busy))
	<-first
	eventually(t, "no hello", func() bool { _, ok := n.greeter.get(busy.ID()); return ok })
}

// atAddr is a connection to that address.
type atAddr struct {
	network.Conn
	addr ma.Multiaddr
}

func (c atAddr) RemoteMultiaddr() ma.Multiaddr { return c.addr }

func TestWhereAConnectionLeads(t *testing.T) {
	for addr, want := range map[string]string{
		"/ip4/192.0.2.9/tcp/4001":     "192.0.2.9",
		"/ip6/2001:db8::1/tcp/1":      "2001:db8::1",
		"/dns4/node.example/tcp/4001": "invalid IP",
	} {
		if got := ipOf(atAddr{addr: ma.StringCast(addr)}).String(); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

package pnet

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// newHost opens a libp2p host on loopback until the test ends.
func newHost(t *testing.T, transport ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(append(transport,
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ForceReachabilityPublic(),
		libp2p.ResourceManager(&network.NullResourceManager{}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func ours(keys ...[32]byte) libp2p.Option {
	return libp2p.Transport(Transport(keys, 2*time.Second, nil))
}

func key(t *testing.T) (k [32]byte) {
	t.Helper()
	rand.Read(k[:])
	return k
}

func connect(t *testing.T, from, to host.Host) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return from.Connect(ctx, peer.AddrInfo{ID: to.ID(), Addrs: to.Addrs()})
}

func TestWhoMeetsWhom(t *testing.T) {
	a, b := key(t), key(t)
	for name, test := range map[string]struct {
		from, to libp2p.Option
		meet     bool
	}{
		"one key":                             {ours(a), ours(a), true},
		"another key":                         {ours(a), ours(b), false},
		"no key":                              {libp2p.Transport(tcp.NewTCPTransport), ours(a), false},
		"to one without a key":                {ours(a), libp2p.Transport(tcp.NewTCPTransport), false},
		"rotation, step 1: new key second":    {ours(a), ours(a, b), true},
		"rotation, step 1, other way":         {ours(a, b), ours(a), true},
		"rotation, step 2: new key first":     {ours(a, b), ours(b, a), true},
		"rotation, step 2, other way":         {ours(b, a), ours(a, b), true},
		"rotation, step 3: old key taken out": {ours(b, a), ours(b), true},
		"rotation, step 3, other way":         {ours(b), ours(b, a), true},
		"after the rotation":                  {ours(a), ours(b, key(t)), false},
	} {
		t.Run(name, func(t *testing.T) {
			err := connect(t, newHost(t, test.from), newHost(t, test.to))
			if met := err == nil; met != test.meet {
				t.Errorf("connected: %v (%v)", met, err)
			}
		})
	}
}

// TestSameWireFormat meets libp2p's own private network in both directions.
func TestSameWireFormat(t *testing.T) {
	k := key(t)
	theirs := func() host.Host {
		return newHost(t, libp2p.Transport(tcp.NewTCPTransport), libp2p.PrivateNetwork(k[:]))
	}
	if err := connect(t, newHost(t, ours(k)), theirs()); err != nil {
		t.Errorf("dialling libp2p: %v", err)
	}
	if err := connect(t, theirs(), newHost(t, ours(key(t), k))); err != nil {
		t.Errorf("libp2p dialling: %v", err)
	}
}

func TestNoKeyIsAnError(t *testing.T) {
	if _, err := Transport(nil, time.Second, nil)(nil, nil); err == nil {
		t.Error("a private network without a key")
	}
}

// maPipe makes a manet.Conn of a net.Pipe.
type maPipe struct{ net.Conn }

func (maPipe) LocalMultiaddr() ma.Multiaddr  { return ma.StringCast("/ip4/192.0.2.1/tcp/1") }
func (maPipe) RemoteMultiaddr() ma.Multiaddr { return ma.StringCast("/ip4/192.0.2.2/tcp/2") }

func pipe() (a, b manet.Conn) {
	x, y := net.Pipe()
	return maPipe{x}, maPipe{y}
}

func TestNothingIsToldToStrangers(t *testing.T) {
	inside, outside := pipe()
	c := newConn(inside, [][32]byte{key(t), key(t)}, false)
	if _, err := io.WriteString(c, header); err != nil { // libp2p writes first
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 64))
		read <- err
	}()
	garbage := make([]byte, nonceSize+len(header))
	rand.Read(garbage)
	if _, err := outside.Write(garbage); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, ErrNotMember) {
		t.Errorf("error %v", err)
	}
	if n, err := outside.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the stranger got %d bytes, %v", n, err)
	}
}

func TestSilentStrangerIsCutOff(t *testing.T) {
	k := key(t)
	synctest.Test(t, func(t *testing.T) {
		inside, outside := pipe()
		defer outside.Close()
		c := newConn(inside, [][32]byte{k}, false)
		began := time.Now()
		if _, err := c.Read(make([]byte, 64)); err == nil {
			t.Error("read from a silent stranger")
		}
		if took := time.Since(began); took != HeaderTimeout {
			t.Errorf("took %v, want %v", took, HeaderTimeout)
		}
	})
}

func TestMemberMayBeSilentLater(t *testing.T) {
	k := key(t)
	synctest.Test(t, func(t *testing.T) {
		inside, outside := pipe()
		listener, dialler := newConn(inside, [][32]byte{key(t), k}, false), newConn(outside, [][32]byte{k}, true)
		go func() {
			_, _ = io.WriteString(dialler, header)
			<-time.After(2 * HeaderTimeout) // fake time
			_, _ = io.WriteString(dialler, "late")
		}()
		got := make([]byte, len(header)+4)
		// In small reads, so that what was decrypted ahead is handed out.
		for i := range got {
			if _, err := io.ReadFull(listener, got[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if string(got) != header+"late" {
			t.Errorf("read %q", got)
		}
		_ = listener.Close()
		_ = dialler.Close()
	})
}

func TestHeldBackWritesAreBounded(t *testing.T) {
	inside, outside := pipe()
	defer outside.Close()
	c := newConn(inside, [][32]byte{key(t)}, false)
	defer func() { _ = c.Close() }()
	if _, err := c.Write(make([]byte, maxHeld)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{0}); err == nil {
		t.Error("no bound on what is held back")
	}
}

package p2p

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"shoal/p2p/swarmkey"
)

func addrs(texts ...string) (out []ma.Multiaddr) {
	for _, s := range texts {
		out = append(out, ma.StringCast(s))
	}
	return out
}

const someID = "12D3KooWGRYZ3u6FPi3XfqkMnYdZuG8vLdXsUDNrMqDGCXkCYzqL"

func TestDefaults(t *testing.T) {
	for name, test := range map[string]struct {
		key           *swarmkey.Key
		swarm, pieces string
		mdns          bool
	}{
		"with a key": {swarmkey.New(), "/ip4/0.0.0.0/tcp/4001", "0.0.0.0:0", true},
		"keyless":    {nil, "/ip4/127.0.0.1/tcp/4001", "127.0.0.1:0", false},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t, test.key)
			o.Swarm, o.NoMDNS = nil, false
			s, err := o.check()
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Swarm) != 1 || s.Swarm[0].String() != test.swarm || s.pieces != test.pieces || s.NoMDNS == test.mdns {
				t.Errorf("swarm %v, pieces %s, no mDNS %v", s.Swarm, s.pieces, s.NoMDNS)
			}
		})
	}
}

func TestOptionsThatCannotBeUsed(t *testing.T) {
	key := swarmkey.New()
	far, near := addrs("/ip4/192.0.2.1/tcp/4001"), addrs("/ip4/127.0.0.1/tcp/4001")
	for name, test := range map[string]struct {
		change func(*Options)
		option string
		want   error // nil: any
	}{
		"keyless, listening beyond loopback":   {func(o *Options) { o.Swarm = far }, "swarm", ErrNeedsKey},
		"keyless, listening everywhere":        {func(o *Options) { o.Swarm = addrs("/ip4/0.0.0.0/tcp/4001") }, "swarm", ErrNeedsKey},
		"keyless, second address beyond":       {func(o *Options) { o.Swarm = append(near, far...) }, "swarm", ErrNeedsKey},
		"keyless, joining beyond loopback":     {func(o *Options) { o.Join = addrs("/ip4/192.0.2.1/tcp/1/p2p/" + someID) }, "join", ErrNeedsKey},
		"keyless, joining a name":              {func(o *Options) { o.Join = addrs("/dns4/example.org/tcp/1/p2p/" + someID) }, "join", ErrNeedsKey},
		"keyless, announcing":                  {func(o *Options) { o.Announce = far }, "announce", ErrNeedsKey},
		"keyless, pieces beyond loopback":      {func(o *Options) { o.Pieces = "0.0.0.0:0" }, "pieces", ErrNeedsKey},
		"keyless, pieces on all":               {func(o *Options) { o.Pieces = ":7000" }, "pieces", ErrNeedsKey},
		"keyless, pieces on a name":            {func(o *Options) { o.Pieces = "example.org:7000" }, "pieces", ErrNeedsKey},
		"the loopback key opens nothing":       {func(o *Options) { o.Key, o.Swarm = swarmkey.Loopback(), far }, "swarm", ErrNeedsKey},
		"QUIC":                                 {func(o *Options) { o.Key, o.Swarm = key, addrs("/ip4/0.0.0.0/udp/4001/quic-v1") }, "swarm", nil},
		"TCP and more":                         {func(o *Options) { o.Key, o.Swarm = key, addrs("/ip4/0.0.0.0/tcp/4001/ws") }, "swarm", nil},
		"listening on a name":                  {func(o *Options) { o.Key, o.Swarm = key, addrs("/dns4/example.org/tcp/4001") }, "swarm", nil},
		"keyless, joining whoever is beyond":   {func(o *Options) { o.Join = far }, "join", ErrNeedsKey},
		"keyless, joining by dnsaddr":          {func(o *Options) { o.Join = addrs("/dnsaddr/example.org") }, "join", ErrNeedsKey},
		"joining a dnsaddr with a port":        {func(o *Options) { o.Key, o.Join = key, addrs("/dnsaddr/example.org/tcp/1") }, "join", nil},
		"joining over TCP and more":            {func(o *Options) { o.Key, o.Join = key, addrs("/ip4/192.0.2.1/tcp/1/ws") }, "join", nil},
		"joining an ID without an address":     {func(o *Options) { o.Key, o.Join = key, addrs("/p2p/"+someID) }, "join", nil},
		"joining by UDP":                       {func(o *Options) { o.Key, o.Join = key, addrs("/ip4/192.0.2.1/udp/1/p2p/"+someID) }, "join", nil},
		"announcing an address without a port": {func(o *Options) { o.Key, o.Announce = key, addrs("/ip4/192.0.2.1") }, "announce", nil},
		"pieces without a port":                {func(o *Options) { o.Key, o.Pieces = key, "192.0.2.1" }, "pieces", nil},
		"a zone with a line break":             {func(o *Options) { o.Zone = "a\nb" }, "zone", nil},
		"a zone of 65 bytes":                   {func(o *Options) { o.Zone = strings.Repeat("z", 65) }, "zone", nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t, nil)
			test.change(&o)
			n, err := New(o)
			if err == nil {
				_ = n.Close()
				t.Fatal("a node")
			}
			var bad *OptionError
			if !errors.As(err, &bad) || bad.Option != test.option {
				t.Errorf("error %v", err)
			}
			if test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of two lines: %q", err)
			}
		})
	}
}

// TestJoiningOneself: one list of members serves them all.
func TestJoiningOneself(t *testing.T) {
	key := swarmkey.New()
	n, err := New(testOptions(t, key))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	o := n.s.Options
	o.Join = append(n.Addrs(), ma.StringCast("/ip4/192.0.2.1/tcp/1/p2p/"+someID))
	s, err := o.check()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.join) != 1 || s.join[0].ID.String() != someID {
		t.Errorf("joins %v", s.join)
	}
}

func TestAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := strings.TrimPrefix(taken.Addr().String(), "127.0.0.1:")
	key := swarmkey.New()
	for name, change := range map[string]func(*Options){
		"swarm":        func(o *Options) { o.Swarm = addrs("/ip4/127.0.0.1/tcp/" + port) },
		"second swarm": func(o *Options) { o.Swarm = append(o.Swarm, addrs("/ip4/127.0.0.1/tcp/"+port)...) },
		"pieces":       func(o *Options) { o.Pieces = taken.Addr().String() },
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t, key)
			change(&o)
			n, err := New(o)
			if err == nil {
				_ = n.Close()
				t.Fatal("a node on an address that is taken")
			}
			var bad *OptionError
			if errors.As(err, &bad) || !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("not a failure of the system: %v", err)
			}
			if !strings.Contains(err.Error(), port) {
				t.Errorf("the error does not name the address: %v", err)
			}
		})
	}
}

// TestTwoNodesOnOnePort: with SO_REUSEPORT both would start, and each would
// get some of the connections.
func TestTwoNodesOnOnePort(t *testing.T) {
	key := swarmkey.New()
	first, err := New(testOptions(t, key))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	o := testOptions(t, key)
	o.Swarm = first.host.Addrs()
	if second, err := New(o); err == nil {
		_ = second.Close()
		t.Error("a second node on the same port")
	}
}

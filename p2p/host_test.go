package p2p

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// TestManyMembersBehindOneAddress: libp2p's own limits let in 8.
func TestManyMembersBehindOneAddress(t *testing.T) {
	for name, format := range map[string]string{
		"NAT, IPv4":         "/ip4/192.0.2.1/tcp/%d",
		"one host, IPv6":    "/ip6/2001:db8::1/tcp/%d",
		"one network, IPv6": "/ip6/2001:db8::%d/tcp/4001",
	} {
		t.Run(name, func(t *testing.T) {
			limits, err := newLimits(1 << 20)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = limits.Close() }()
			for i := range 200 {
				from := ma.StringCast(fmt.Sprintf(format, 1024+i))
				scope, err := limits.OpenConnection(network.DirInbound, true, from)
				if err != nil {
					t.Fatalf("member %d is kept out: %v", i+1, err)
				}
				defer scope.Done()
				if err := scope.SetPeer(randomID(t)); err != nil {
					t.Fatalf("member %d is kept out: %v", i+1, err)
				}
			}
		})
	}
}

// TestLimitsFollowTheOpenFiles: a process that may open 256 files must not
// spend them all on the swarm.
func TestLimitsFollowTheOpenFiles(t *testing.T) {
	for files, want := range map[int]int{1024: 256, 256: 64, 20: 16} {
		limits, err := newLimits(files)
		if err != nil {
			t.Fatal(err)
		}
		opened := 0
		for i := range files {
			scope, err := limits.OpenConnection(network.DirOutbound, true, ma.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", i+1)))
			if err != nil {
				break
			}
			defer scope.Done()
			if err := scope.SetPeer(randomID(t)); err != nil {
				t.Fatal(err)
			}
			opened++
		}
		_ = limits.Close()
		if opened != want {
			t.Errorf("%d files: %d connections, want %d", files, opened, want)
		}
	}
}

func TestAddressesThatOthersHear(t *testing.T) {
	all := addrs("/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip6/fe80::1/tcp/1", "/ip6/::1/tcp/1")
	for name, test := range map[string]struct {
		s         settings
		listening []ma.Multiaddr
		want      []ma.Multiaddr
	}{
		"all interfaces": {settings{}, all, all[1:2]},
		"loopback only":  {settings{}, all[:1], all[:1]},
		"announced":      {settings{Options: Options{Announce: addrs("/dns4/a.example/tcp/9")}}, all, addrs("/dns4/a.example/tcp/9")},
	} {
		t.Run(name, func(t *testing.T) {
			test.s.reach = newReach(test.s.Options)
			if got := test.s.tell(test.listening); fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("tells %v, want %v", got, test.want)
			}
		})
	}
}

func randomID(t *testing.T) peer.ID {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

//go:build linux

package testhost

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// NAT is how a router chooses the port that stands for a connection outside.
type NAT string

// What routers do, as nftables says it.
const (
	// KeepsPorts: the port stays what it is, whatever is on the other end, so
	// that others can be told where to dial.
	KeepsPorts NAT = "masquerade"
	// ChangesPorts: another one for each connection, which nobody can foresee.
	ChangesPorts NAT = "masquerade fully-random"
)

// AddBehind adds a host that is not on the bridge, but behind a router that is:
// it reaches the others, under the router's address, and is reached by none. Its
// own address is the same at all sites, as it is with routers that people buy.
// The router's link has the rate; it is the one that is shaped and unplugged.
func (n *Network) AddBehind(ctx context.Context, name string, nat NAT, rate Rate) (*Host, error) {
	router, err := n.AddHost(name+"-router", rate)
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, Dir: filepath.Join(n.dir, name), Addr: netip.AddrFrom4([4]byte{192, 168, 1, 2}), port: router.port}
	if err := os.MkdirAll(h.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	for _, args := range []string{
		"netns add " + name,
		fmt.Sprintf("-n %s link add lan type veth peer name eth0 netns %s", router.Name, name),
		fmt.Sprintf("-n %s addr add 192.168.1.1/24 dev lan", router.Name),
		fmt.Sprintf("-n %s link set lan up", router.Name),
		fmt.Sprintf("-n %s addr add %s/24 dev eth0", name, h.Addr),
		fmt.Sprintf("-n %s link set eth0 up", name),
		fmt.Sprintf("-n %s link set lo up", name),
		fmt.Sprintf("-n %s route add default via 192.168.1.1", name),
	} {
		if err := tool("ip", args); err != nil {
			return nil, fmt.Errorf("host %s: %w", name, err)
		}
	}
	// What comes in unasked is dropped, without a word, as routers do.
	rules := fmt.Sprintf(`
		table ip nat {
			chain out { type nat hook postrouting priority srcnat; oifname "eth0" %s; }
		}
		table ip filter {
			chain in { type filter hook input priority filter; iifname "eth0" ct state new drop; }
			chain through { type filter hook forward priority filter; iifname "eth0" ct state new drop; }
		}`, nat)
	nft, err := Program("nft")
	if err != nil {
		return nil, err
	}
	for _, c := range []Command{
		{Path: "/bin/sh", Args: []string{"-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"}},
		{Path: nft, Args: []string{rules}},
	} {
		if _, err := router.Run(ctx, c); err != nil {
			return nil, fmt.Errorf("router of %s: %w", name, err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = append(n.hosts, h)
	return h, nil
}

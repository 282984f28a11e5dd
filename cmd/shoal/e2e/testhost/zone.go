//go:build linux

package testhost

import (
	"context"
	"fmt"
)

// Zone is a place in the network: a bridge of its own, and one link to the one
// that joins all. Hosts are moved there; the links that they have stay theirs.
type Zone struct {
	bridge string
	port   string // its end of the link at the network's bridge
	uplink string // and at its own
}

// AddZone adds the place of that number, with a link of that rate.
func (n *Network) AddZone(number int, rate Rate) (*Zone, error) {
	z := &Zone{bridge: fmt.Sprintf("zone%d", number), port: fmt.Sprintf("zport%d", number), uplink: fmt.Sprintf("zlink%d", number)}
	for _, args := range []string{
		"link add " + z.bridge + " type bridge",
		"link set " + z.bridge + " up",
		fmt.Sprintf("link add %s type veth peer name %s", z.port, z.uplink),
		fmt.Sprintf("link set %s master %s up", z.port, bridge),
		fmt.Sprintf("link set %s master %s up", z.uplink, z.bridge),
	} {
		if err := tool("ip", args); err != nil {
			return nil, fmt.Errorf("zone %d: %w", number, err)
		}
	}
	return z, z.Shape(rate)
}

// Shape sets the rate of the zone's link, in both directions.
func (z *Zone) Shape(rate Rate) error {
	for _, dev := range []string{z.port, z.uplink} {
		if err := tool("tc", "qdisc replace dev "+dev+" "+shapeOf(rate)); err != nil {
			return fmt.Errorf("shape %s: %w", z.bridge, err)
		}
	}
	return nil
}

// Apart says whether the zone can reach no other zone that is apart, too. Hosts
// that are in no zone are reached all the same.
func (z *Zone) Apart(yes bool) error {
	state := "off"
	if yes {
		state = "on"
	}
	return tool("bridge", "link set dev "+z.port+" isolated "+state)
}

// Received returns how many bytes have come into the zone over its link so far,
// headers included.
func (z *Zone) Received(ctx context.Context) (int64, error) {
	received, _, err := traffic(ctx, "link", "show", "dev", z.uplink)
	return received, err
}

// Move puts the host into a zone; nil is none.
func (h *Host) Move(to *Zone) error {
	master := bridge
	if to != nil {
		master = to.bridge
	}
	return tool("ip", "link set "+h.port+" master "+master)
}

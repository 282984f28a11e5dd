//go:build linux

package main

import (
	"context"
	"fmt"

	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/testhost"
)

// connectedOver waits until each node behind NAT reaches all others in the way
// that its router allows.
func (c *shoalCrew) connectedOver(ctx context.Context) error {
	way := map[scenario.NAT]string{scenario.KeepsPorts: "hole-punched", scenario.ChangesPorts: "relayed"}[c.scenario.Nodes.NAT]
	for _, n := range c.members {
		err := testhost.Until(ctx, readyTime, func(ctx context.Context) error {
			ways, err := n.Ways(ctx)
			if err != nil {
				return err
			}
			for _, other := range c.members {
				if got := ways[other.ID]; other != n && got != way {
					return fmt.Errorf("%s reaches %s in the way %q, not %q", n.Host.Name, other.Host.Name, got, way)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// relayed returns how many bytes the relay has carried.
func (c *shoalCrew) relayed(ctx context.Context) (*int64, error) {
	if c.relay == nil {
		return nil, nil
	}
	value, err := c.relay.Metric(ctx, "shoal_p2p_relayed_bytes_total")
	bytes := int64(value)
	return &bytes, err
}

package config

import (
	"fmt"
	"strconv"

	"github.com/docker/go-units"
)

// Limits of what a relay may be told.
const (
	// minRelayRate still moves a piece within a few seconds.
	minRelayRate = 256 * units.KiB
	maxRelayRate = 100 * units.GiB
	maxRelayed   = 100_000
)

// Reachability is what the operator says about whether others can dial a node.
type Reachability string

// What can be said.
const (
	ReachAuto   Reachability = "auto" // find out
	ReachBehind Reachability = "true" // behind NAT
	ReachOpen   Reachability = "false"
)

// Relay is what a node does for members that cannot reach each other.
type Relay struct {
	Enabled                bool
	Rate, CircuitRate      int64 // bytes a second
	Reservations, Circuits int
}

// natSettings are those of members that cannot be dialled, and of those that
// relay for them.
func natSettings() []setting {
	return []setting{
		{name: "behind-nat", value: "auto", set: one(func(c *Config, s string) error {
			if s == string(ReachAuto) {
				c.BehindNAT = ReachAuto
				return nil
			}
			behind, err := strconv.ParseBool(s)
			if err != nil {
				return fmt.Errorf("%q: use auto, true or false", s)
			}
			c.BehindNAT = Reachability(strconv.FormatBool(behind))
			return nil
		})},
		{name: "relay", value: "false", set: one(func(c *Config, s string) (err error) {
			c.Relay.Enabled, err = parseBool(s)
			return err
		})},
		{name: "relay-rate", value: "24MiB", set: one(func(c *Config, s string) (err error) {
			c.Relay.Rate, err = parseRelayRate(s)
			return err
		})},
		{name: "relay-circuit-rate", value: "6MiB", set: one(func(c *Config, s string) (err error) {
			c.Relay.CircuitRate, err = parseRelayRate(s)
			return err
		})},
		{name: "relay-reservations", value: "256", set: one(func(c *Config, s string) (err error) {
			c.Relay.Reservations, err = parseRelayed(s)
			return err
		})},
		{name: "relay-circuits", value: "512", set: one(func(c *Config, s string) (err error) {
			c.Relay.Circuits, err = parseRelayed(s)
			return err
		})},
	}
}

func parseRelayRate(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < minRelayRate || n > maxRelayRate {
		return 0, fmt.Errorf("%q is no rate of a relay: use 256KiB to 100GiB, bytes a second", s)
	}
	return n, nil
}

func parseRelayed(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxRelayed {
		return 0, fmt.Errorf("%q: use a number from 1 to %d", s, maxRelayed)
	}
	return n, nil
}

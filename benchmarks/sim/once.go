package main

import (
	"fmt"
	"reflect"
	"strconv"
	"time"

	"shoal/benchmarks/scenario"
	"shoal/benchmarks/sim/crowd"
)

// once simulates a scenario.
func (c *cli) once(s *scenario.Scenario, seed uint64) (*outcome, error) {
	config := configOf(s)
	config.Seed = seed
	for name, value := range c.Set {
		if err := set(name, value, &config.Tuning, &config.Costs); err != nil {
			return nil, err
		}
	}
	begun := time.Now()
	r, err := crowd.Run(config)
	if err != nil {
		return nil, err
	}
	return &outcome{
		Scenario: *s, Seed: seed, Set: c.Set, Result: *r, Took: time.Since(begun).Seconds(), Memory: peak(),
	}, nil
}

// labLatency is the latency where a scenario says none: about that of the
// namespaces that the lab plays it on.
const labLatency = 100 * time.Microsecond

// configOf translates a scenario. The layers of an image become one blob: the
// simulator knows nothing of clients that ask for some at a time.
func configOf(s *scenario.Scenario) crowd.Config {
	c := crowd.Default(s.Nodes.Count)
	c.Pieces = int((s.Bytes() + c.PieceSize/2) / c.PieceSize)
	c.Origin = float64(s.Origin.Link) / 8
	c.Zones, c.Uplink, c.Apart = s.Nodes.Zones.Count, float64(s.Nodes.Zones.Link)/8, s.Nodes.Zones.Apart
	c.NoRange = s.Origin.IgnoresRange
	c.Cold = s.Arrivals.StartsNode
	if c.Latency = s.Latency; c.Latency == 0 {
		c.Latency = labLatency
	}
	for i := range c.Machines {
		m := &c.Machines[i]
		m.Link = float64(s.Link(i)) / 8
		m.Start = s.Arrival(i)
		m.Seeded = i < s.Nodes.Seeded
		m.Liar = s.Lies(i)
		m.Aside = !s.Counts(i)
	}
	bound := float64(c.Bound())
	for i := range c.Machines {
		m := &c.Machines[i]
		if at, killed := s.Killed(i); killed {
			m.Dies = time.Duration(max(1, at*bound))
		}
		if at, unplugged := s.Unplugged(i); unplugged {
			m.Dies, m.Silent = time.Duration(max(1, at*bound)), true
		}
	}
	return c
}

// set changes the field of that name in one of the structs.
func set(name, value string, structs ...any) error {
	for _, s := range structs {
		field := reflect.ValueOf(s).Elem().FieldByName(name)
		if !field.IsValid() {
			continue
		}
		var err error
		switch field.Interface().(type) {
		case time.Duration:
			var d time.Duration
			d, err = time.ParseDuration(value)
			field.SetInt(int64(d))
		case int:
			var i int
			i, err = strconv.Atoi(value)
			field.SetInt(int64(i))
		case float64:
			var f float64
			f, err = strconv.ParseFloat(value, 64)
			field.SetFloat(f)
		default:
			err = fmt.Errorf("a %s cannot be set", field.Type())
		}
		if err != nil {
			return fmt.Errorf("--set %s: %w", name, err)
		}
		return nil
	}
	return fmt.Errorf("--set %s: neither the planner's Tuning nor the model's Costs have it", name)
}

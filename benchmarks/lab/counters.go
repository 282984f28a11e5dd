//go:build linux

package main

import (
	"context"
	"time"

	"shoal/benchmarks/lab/report"
)

// counters are what has been used by a moment.
type counters struct {
	cpu     []time.Duration // by each node's program
	zones   []int64         // bytes that came into each
	relayed *int64          // bytes that the relay carried; nil if there is none
}

// relaying is a crew that may have a relay.
type relaying interface {
	// relayed returns how many bytes it has carried; nil if there is none.
	relayed(ctx context.Context) (*int64, error)
}

// count reads the counters.
func (r *run) count(ctx context.Context) (c counters, err error) {
	for i := range r.nodes {
		c.cpu = append(c.cpu, r.cpu(i))
	}
	for _, z := range r.zones {
		n, err := z.Received(ctx)
		if err != nil {
			return c, err
		}
		c.zones = append(c.zones, n)
	}
	if crew, can := r.crew.(relaying); can {
		c.relayed, err = crew.relayed(ctx)
	}
	return c, err
}

// bookSince writes down what was used since the counters were read.
func (r *run) bookSince(ctx context.Context, before counters) error {
	after, err := r.count(ctx)
	if err != nil {
		return err
	}
	for i := range after.zones {
		r.result.Zones = append(r.result.Zones, after.zones[i]-before.zones[i])
	}
	if after.relayed != nil {
		*after.relayed -= *before.relayed
		r.result.Relayed = after.relayed
	}
	for i := range r.nodes {
		if node := &r.result.Nodes[i]; node.Fate != report.Killed {
			node.CPU = (after.cpu[i] - before.cpu[i]).Seconds()
		} else {
			node.CPU -= before.cpu[i].Seconds()
		}
	}
	return nil
}

// cpu returns the processor time of the node's program, zero if there is none.
func (r *run) cpu(node int) time.Duration {
	p := r.crew.process(node)
	if p == nil {
		return 0
	}
	used, err := p.CPU()
	if err != nil {
		return 0 // it was killed, and had been asked before
	}
	return used
}

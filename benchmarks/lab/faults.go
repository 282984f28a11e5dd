//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"shoal/benchmarks/lab/report"

	"golang.org/x/sync/errgroup"
)

// fate says what is special about a node.
func (r *run) fate(node int) string {
	_, killed := r.scenario.Killed(node)
	_, unplugged := r.scenario.Unplugged(node)
	switch {
	case node < r.scenario.Nodes.Seeded:
		return report.Seeded
	case killed:
		return report.Killed
	case unplugged:
		return report.Unplugged
	case !r.scenario.Counts(node):
		return report.Slow
	}
	return ""
}

// faults lets what goes wrong go wrong: a node is killed with its client. It is
// an error if the others were done before.
func (r *run) faults(ctx context.Context, kill []func()) *errgroup.Group {
	group := &errgroup.Group{}
	on := func(share float64, i int, strike func() error) {
		group.Go(func() error {
			if err := r.until(ctx, time.Duration(math.Round(share*float64(r.bound)))); err != nil {
				return fmt.Errorf("node %d had not failed when the others were done", i)
			}
			return strike()
		})
	}
	for i, host := range r.nodes {
		if at, killed := r.scenario.Killed(i); killed {
			on(at, i, func() error {
				r.result.Nodes[i].CPU = r.cpu(i).Seconds()
				kill[i]()
				if p := r.crew.process(i); p != nil {
					p.Kill()
				}
				return nil
			})
		}
		if at, unplugged := r.scenario.Unplugged(i); unplugged {
			on(at, i, host.Unplug)
		}
	}
	return group
}

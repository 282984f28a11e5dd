//go:build linux

package main

import (
	"context"

	"shoal/benchmarks/lab/report"
)

// inTurn lets the clients pull one after the other.
func (r *run) inTurn(ctx context.Context) error {
	for _, i := range r.scenario.Arrivals.Turns {
		node := &r.result.Nodes[i]
		turn := report.Node{Counts: node.Counts, Arrival: r.now()}
		if err := r.fetch(ctx, i, &turn); err != nil {
			return err
		}
		if node.Client == 0 {
			*node = turn
		}
		r.result.Turns = append(r.result.Turns, report.Turn{Node: i, Seconds: turn.Client - turn.Arrival})
	}
	return nil
}

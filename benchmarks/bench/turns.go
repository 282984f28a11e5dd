//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"

	"shoal/benchmarks/rig"
)

// contender does what is measured, once in each run.
type contender struct {
	name string
	run  func(ctx context.Context) (sample, error)
}

// sample is what one run gave, by quantity.
type sample map[string]float64

// series are the values of all runs, in their order, by quantity.
type series map[string][]float64

// compare lets the contenders take turns, each when the processors are calm.
func (b *bench) compare(ctx context.Context, contenders ...contender) (map[string]series, error) {
	calm := slices.Clone(contenders)
	for i, c := range contenders {
		calm[i].run = func(ctx context.Context) (sample, error) {
			if err := rig.Calm(ctx); err != nil {
				return nil, err
			}
			return c.run(ctx)
		}
	}
	return takeTurns(ctx, b.runs, calm...)
}

// takeTurns lets the contenders run in rounds, in each of which every one runs
// once and another one begins, and returns their values by name.
func takeTurns(ctx context.Context, rounds int, contenders ...contender) (map[string]series, error) {
	all := map[string]series{}
	for _, c := range contenders {
		all[c.name] = series{}
	}
	for round := range rounds {
		for _, c := range rig.Turns(contenders, round+1) {
			values, err := c.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", c.name, round+1, err)
			}
			for quantity, value := range values {
				all[c.name][quantity] = append(all[c.name][quantity], value)
			}
		}
	}
	return all, nil
}

// ratios returns a by b, run by run.
func ratios(a, b []float64) []float64 {
	all := make([]float64, len(a))
	for i := range a {
		all[i] = a[i] / b[i]
	}
	return all
}

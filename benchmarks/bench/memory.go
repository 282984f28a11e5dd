//go:build linux

package main

import (
	"context"
	"errors"

	"shoal/cmd/shoal/e2e/program"
)

// measureMemory lets one node fill a blob of 4 GB from the origin, and another
// one from the first, both at 1 Gbit/s, and looks at the most memory that they
// ever had.
func measureMemory(ctx context.Context, b *bench) error {
	const size = 4e9
	first, blob, err := b.hold(ctx, 2, size)
	if err != nil {
		return err
	}
	if err := b.addPeak("4 GB filled from the origin", first, atMost(200)); err != nil {
		return err
	}
	second, err := b.node(ctx, 1, b.origin.URL(), first)
	if err != nil {
		return err
	}
	if _, err := curl(ctx, second.Host, blobURL(blob), size); err != nil {
		return err
	}
	if err := whole(ctx, second, blob); err != nil {
		return err
	}
	return errors.Join(
		b.addPeak("4 GB filled from a member", second, atMost(200)),
		b.addPeak("4 GB filled from the origin, and served to a member", first, atMost(200)),
		b.drop(second), b.drop(first))
}

// addPeak adds the most memory that a node ever had.
func (b *bench) addPeak(what string, n *program.Node, bounds ...bound) error {
	const megabyte = 1e6
	peak, err := n.Process.PeakMemory()
	if err == nil {
		b.add("VmHWM: "+what, "MB", []float64{float64(peak) / megabyte}, bounds...)
	}
	return err
}

//go:build linux

package main

import (
	"context"
	"errors"
)

// measureMemory lets one node fill a blob of 4 GB from the origin, and another
// one from the first, both at 1 Gbit/s, and looks at the most memory that they
// ever had.
func measureMemory(ctx context.Context, l *lab) error {
	const size = 4e9
	b, err := l.origin.PutBlob(blobRepository, 2, size)
	if err != nil {
		return err
	}
	first, err := l.node(ctx, 0, l.origin.URL())
	if err != nil {
		return err
	}
	err = l.fast(func() error {
		_, err := curl(ctx, first.Host, blobURL(b), size)
		return errors.Join(err, whole(ctx, first, b))
	})
	if err != nil {
		return err
	}
	fromOrigin, err := first.Process.PeakMemory()
	if err != nil {
		return err
	}
	second, err := l.node(ctx, 1, l.origin.URL(), first)
	if err != nil {
		return err
	}
	if _, err := curl(ctx, second.Host, blobURL(b), size); err != nil {
		return err
	}
	if err := whole(ctx, second, b); err != nil {
		return err
	}
	fromPeer, err := second.Process.PeakMemory()
	if err != nil {
		return err
	}
	served, err := first.Process.PeakMemory()
	if err != nil {
		return err
	}
	const promise, megabyte = "below 200", 1e6
	l.report.add("memory: VmHWM, 4 GB filled from the origin", "MB", promise, []float64{float64(fromOrigin) / megabyte})
	l.report.add("memory: VmHWM, 4 GB filled from a peer", "MB", promise, []float64{float64(fromPeer) / megabyte})
	l.report.add("memory: VmHWM, after serving the 4 GB as well", "MB", promise, []float64{float64(served) / megabyte})
	return errors.Join(l.drop(second), l.drop(first))
}

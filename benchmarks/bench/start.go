//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// measureStart measures how long after the end of a fill on one node another
// one, which can reach no origin, serves the blob; and how long nodes take from
// their start until they are ready.
func measureStart(ctx context.Context, l *lab) error {
	const size = 4 << 20
	var alone, joining, found []float64
	for i := range l.pairs {
		b, err := l.origin.PutBlob(blobRepository, byte(100+i), size)
		if err != nil {
			return err
		}
		filler, err := l.node(ctx, 0, l.origin.URL())
		if err != nil {
			return err
		}
		other, err := l.node(ctx, 1, "http://127.0.0.1:9", filler) // the discard port: nobody listens
		if err != nil {
			return err
		}
		if _, err := curl(ctx, filler.Host, blobURL(b), size); err != nil {
			return err
		}
		seconds, err := timed(func() error { return served(ctx, other, b) })
		if err != nil {
			return err
		}
		found = append(found, seconds)
		if seconds, err = restart(ctx, filler); err != nil {
			return err
		}
		alone = append(alone, seconds)
		if seconds, err = restart(ctx, other); err != nil {
			return err
		}
		joining = append(joining, seconds)
		if err := errors.Join(l.drop(other), l.drop(filler)); err != nil {
			return err
		}
	}
	l.report.add("start: ready, with nobody to join", "s", "below 1", alone)
	l.report.add("start: ready, with a member to join", "s", "below 1", joining)
	l.report.add("start: another node serves a filled blob after", "s", "below 1", found)
	return nil
}

// restart ends the node, starts it again and returns the seconds until it was
// ready.
func restart(ctx context.Context, n *program.Node) (seconds float64, err error) {
	if err := n.Stop(); err != nil {
		return 0, err
	}
	return timed(func() error { return n.Start(ctx) })
}

// served waits until the node answers a request for the blob with all of it.
func served(ctx context.Context, n *program.Node, b v1.Descriptor) error {
	return testhost.Until(ctx, time.Minute, func(ctx context.Context) error {
		_, err := curl(ctx, n.Host, blobURL(b), b.Size)
		return err
	})
}

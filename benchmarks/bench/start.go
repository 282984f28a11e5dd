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
func measureStart(ctx context.Context, b *bench) error {
	round := 0
	got, err := b.compare(ctx, contender{"shoal", func(ctx context.Context) (sample, error) {
		round++
		return b.startOnce(ctx, byte(100+round))
	}})
	if err != nil {
		return err
	}
	for _, what := range []string{readyAlone, readyJoining, servedAfter} {
		b.add(what, "s", got["shoal"][what], atMost(1))
	}
	return nil
}

// What measureStart measures.
const (
	readyAlone   = "ready, with nobody to join"
	readyJoining = "ready, with a member to join"
	servedAfter  = "another node serves a filled blob after"
)

func (b *bench) startOnce(ctx context.Context, seed byte) (sample, error) {
	blob, err := b.origin.PutBlob(blobRepository, seed, 4<<20)
	if err != nil {
		return nil, err
	}
	filler, err := b.node(ctx, 0, b.origin.URL())
	if err != nil {
		return nil, err
	}
	other, err := b.node(ctx, 1, "http://127.0.0.1:9", filler) // the discard port: nobody listens
	if err != nil {
		return nil, err
	}
	if _, err := curl(ctx, filler.Host, blobURL(blob), blob.Size); err != nil {
		return nil, err
	}
	found, errFound := timed(func() error { return served(ctx, other, blob) })
	alone, errAlone := restart(ctx, filler)
	joining, errJoining := restart(ctx, other)
	return sample{servedAfter: found, readyAlone: alone, readyJoining: joining},
		errors.Join(errFound, errAlone, errJoining, b.drop(other), b.drop(filler))
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

func timed(f func() error) (seconds float64, err error) {
	started := time.Now()
	err = f()
	return time.Since(started).Seconds(), err
}

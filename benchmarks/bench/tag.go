//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
)

// measureTag lets a thousand clients ask a node for one tag, again and again,
// and counts what the origin is asked meanwhile.
func measureTag(ctx context.Context, b *bench) error {
	const (
		connections = 1000
		lasts       = 5 * time.Second
	)
	img, err := b.origin.Push(ctx, "bench/tag", 8, 1<<10)
	if err != nil {
		return err
	}
	n, err := b.node(ctx, 0, b.origin.URL())
	if err != nil {
		return err
	}
	h := heads{client: rig.Client{Dial: n.Host.DialContext, Base: program.MirrorURL}, path: "/v2/" + img.Repository + "/manifests/" + img.Tag}
	got, err := b.compare(ctx, contender{"shoal", func(ctx context.Context) (sample, error) {
		before, started := b.origin.Accesses(), time.Now()
		s, err := h.ask(ctx, connections, lasts)
		if err != nil {
			return nil, err
		}
		took := time.Since(started)
		// The first one begins the time that is counted.
		s["origin"] = float64(len(b.origin.Accesses().Since(before))-1) / took.Seconds()
		return s, nil
	}})
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d clients, one tag: ", connections)
	b.add(what+"answers", "1/s", got["shoal"]["1/s"])
	b.add(what+"requests at the origin", "1/s", got["shoal"]["origin"], atMost(1))
	return b.drop(n)
}

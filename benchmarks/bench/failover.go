//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"

	"shoal/cmd/shoal/e2e/program"
)

// brokenPort is where the preferred upstream is, on the origin's host.
const brokenPort = 7000

// measureFailover measures how long the first question of a client takes at a
// new node whose preferred upstream refuses connections, or takes them and says
// nothing; and that the client then gets the image without an error.
func measureFailover(ctx context.Context, b *bench) error {
	img, err := b.origin.Push(ctx, "bench/failover", 7, 1<<20)
	if err != nil {
		return err
	}
	broken := fmt.Sprintf("http://%v:%d,", b.origin.Host.Addr, brokenPort)
	once := func(first string) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			n, err := b.node(ctx, 0, first+b.origin.URL())
			if err != nil {
				return nil, err
			}
			seconds, err := timed(func() error { return program.Resolve(ctx, n.Host, program.MirrorURL, img) })
			return sample{"ms": 1e3 * seconds}, errors.Join(err, program.Download(ctx, n.Host, program.MirrorURL, img), b.drop(n))
		}
	}
	got, err := b.compare(ctx, contender{"works", once("")}, contender{"refuses", once(broken)}, contender{"is silent", func(ctx context.Context) (sample, error) {
		silent, err := b.origin.Host.Listen(ctx, b.origin.Host.Addr, brokenPort)
		if err != nil {
			return nil, err
		}
		defer silent.Close()
		return once(broken)(ctx)
	}})
	if err != nil {
		return err
	}
	const what = "HEAD of a tag at a new node, preferred upstream "
	b.add(what+"works", "ms", got["works"]["ms"])
	b.add(what+"refuses", "ms", got["refuses"]["ms"], atMost(100))
	b.add(what+"is silent", "ms", got["is silent"]["ms"], atMost(3000))
	return nil
}

//go:build linux

package main

import (
	"context"
	"errors"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// measureAlone compares a pull by the first node of a swarm, which has nothing
// and knows nobody, with one without Shoal: by a client that only downloads, and
// by dockerd, which unpacks too.
func measureAlone(ctx context.Context, b *bench) error {
	img, err := b.origin.Push(ctx, "bench/image", 1, 2<<20, 5<<20, 10<<20, 20<<20, 30<<20)
	if err != nil {
		return err
	}
	direct, err := program.StartDockerd(ctx, b.machines[0], "", b.origin)
	if err != nil {
		return err
	}
	mirrored, err := program.StartDockerd(ctx, b.machines[1], program.MirrorURL, b.origin)
	if err != nil {
		return err
	}
	dockerd := func(d *program.Dockerd) way {
		return way{
			get:    func() error { return docker(ctx, d, "pull", "--quiet", img.Ref()) },
			forget: func() error { return docker(ctx, d, "image", "rm", img.Ref()) },
		}
	}
	download := func(h *testhost.Host, from string) way {
		return way{
			get:    func() error { return program.Download(ctx, h, from, img) },
			forget: func() error { return nil },
		}
	}
	err = errors.Join(
		b.compareAlone(ctx, "download of 67 MiB", download(b.machines[0], b.origin.URL()), download(b.machines[1], program.MirrorURL)),
		b.compareAlone(ctx, "docker pull of 67 MiB", dockerd(direct), dockerd(mirrored)))
	return errors.Join(err, direct.Stop(), mirrored.Stop())
}

// way is one in which an image gets to a machine, and off it again.
type way struct{ get, forget func() error }

// compareAlone lets both ways take turns, the second through a new node.
func (b *bench) compareAlone(ctx context.Context, what string, direct, through way) error {
	got, err := b.compare(ctx,
		contender{"direct", func(context.Context) (sample, error) {
			seconds, err := timed(direct.get)
			return sample{"s": seconds}, errors.Join(err, direct.forget())
		}},
		contender{"through", func(ctx context.Context) (sample, error) {
			n, err := b.node(ctx, 1, b.origin.URL())
			if err != nil {
				return nil, err
			}
			seconds, err := timed(through.get)
			return sample{"s": seconds}, errors.Join(err, through.forget(), b.drop(n))
		}})
	if err != nil {
		return err
	}
	var over, tooMuch []float64
	for i, seconds := range got["direct"]["s"] {
		over = append(over, got["through"]["s"][i]-seconds)
		tooMuch = append(tooMuch, over[i]-max(0.1*seconds, 0.15))
	}
	b.add(what+", direct", "s", got["direct"]["s"])
	b.add(what+", through the first node", "s", got["through"]["s"])
	b.add(what+", longer by", "s", over)
	b.add(what+", longer than by max(10 %, 150 ms) by", "s", tooMuch, atMost(0))
	return nil
}

func docker(ctx context.Context, d *program.Dockerd, args ...string) error {
	_, err := d.Docker(ctx, args...)
	return err
}

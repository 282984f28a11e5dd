//go:build linux

package main

import (
	"context"
	"errors"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// siteUplink is the link of a site to its registry.
const siteUplink = 50 * testhost.Mbit

// measureSite compares docker pull over a slow uplink with one on the second machine
// of a site, through a new node that has it from the first over the LAN, and with
// one more through that node, which has it then. All unpack.
func measureSite(ctx context.Context, b *bench) error {
	img, err := b.origin.Push(ctx, "bench/site", 7, 2<<20, 5<<20, 10<<20, 20<<20, 30<<20)
	if err != nil {
		return err
	}
	first, err := b.node(ctx, 0, b.origin.URL())
	if err != nil {
		return err
	}
	if err := errors.Join(b.haveMachines(3), b.fast(func() error { return program.Download(ctx, first.Host, program.MirrorURL, img) })); err != nil {
		return err
	}
	direct, err := program.StartDockerd(ctx, b.machines[2], "", b.origin)
	if err != nil {
		return err
	}
	mirrored, err := program.StartDockerd(ctx, b.machines[1], program.MirrorURL, b.origin)
	if err != nil {
		return err
	}
	if err := b.origin.Host.Shape(siteUplink); err != nil {
		return err
	}
	pull := func(d *program.Dockerd) (float64, error) {
		seconds, err := timed(func() error { return docker(ctx, d, "pull", "--quiet", img.Ref()) })
		return seconds, errors.Join(err, docker(ctx, d, "image", "rm", img.Ref()))
	}
	got, err := b.compare(ctx,
		contender{"direct", func(context.Context) (sample, error) {
			seconds, err := pull(direct)
			return sample{"s": seconds}, err
		}},
		contender{"second", func(ctx context.Context) (sample, error) {
			n, err := b.node(ctx, 1, b.origin.URL(), first)
			if err != nil {
				return nil, err
			}
			cold, err := pull(mirrored)
			if err != nil {
				return nil, err
			}
			warm, err := pull(mirrored)
			return sample{"s": cold, "again": warm}, errors.Join(err, b.drop(n))
		}})
	if err != nil {
		return err
	}
	const what = "docker pull of 67 MiB at a site behind 50 Mbit/s, "
	b.add(what+"directly", "s", got["direct"]["s"])
	b.add(what+"second machine", "s", got["second"]["s"])
	b.add(what+"second machine again", "s", got["second"]["again"])
	b.add(what+"direct by second machine", "", ratios(got["direct"]["s"], got["second"]["s"]), atLeast(3))
	b.add(what+"direct by second machine again", "", ratios(got["direct"]["s"], got["second"]["again"]), atLeast(3))
	return errors.Join(direct.Stop(), mirrored.Stop(), b.drop(first), b.origin.Host.Shape(originLink))
}

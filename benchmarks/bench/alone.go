//go:build linux

package main

import (
	"context"
	"time"

	"shoal/cmd/shoal/e2e/program"
)

// measureAlone compares a pull by the first node of a swarm with one without
// Shoal: by a client that only downloads, and by dockerd, which unpacks too.
func measureAlone(ctx context.Context, l *lab) error {
	img, err := l.origin.Push(ctx, "bench/image", 1, 2<<20, 5<<20, 10<<20, 20<<20, 30<<20)
	if err != nil {
		return err
	}
	direct, err := program.StartDockerd(ctx, l.machines[0], "", l.origin)
	if err != nil {
		return err
	}
	mirrored, err := program.StartDockerd(ctx, l.machines[1], program.MirrorURL, l.origin)
	if err != nil {
		return err
	}
	downloads := comparison{
		direct:  func() error { return program.Download(ctx, l.machines[0], l.origin.URL(), img) },
		through: func() error { return program.Download(ctx, l.machines[1], program.MirrorURL, img) },
	}
	pulls := comparison{
		direct:  func() error { return pull(ctx, direct, img) },
		through: func() error { return pull(ctx, mirrored, img) },
	}
	for range l.pairs {
		if err := l.compare(ctx, &downloads); err != nil {
			return err
		}
		if err := l.compare(ctx, &pulls); err != nil {
			return err
		}
		for _, d := range []*program.Dockerd{direct, mirrored} {
			if _, err := d.Docker(ctx, "image", "rm", img.Ref()); err != nil {
				return err
			}
		}
	}
	downloads.report(l.report, "alone: download of 67 MiB")
	pulls.report(l.report, "alone: docker pull of 67 MiB")
	if err := direct.Stop(); err != nil {
		return err
	}
	return mirrored.Stop()
}

func pull(ctx context.Context, d *program.Dockerd, img *program.Image) error {
	_, err := d.Docker(ctx, "pull", "--quiet", img.Ref())
	return err
}

// comparison is of the same thing done without Shoal and through a node that
// has nothing and knows nobody.
type comparison struct {
	direct, through func() error

	directSeconds, throughSeconds []float64
}

// compare does both once.
func (l *lab) compare(ctx context.Context, c *comparison) error {
	seconds, err := timed(c.direct)
	if err != nil {
		return err
	}
	c.directSeconds = append(c.directSeconds, seconds)
	n, err := l.node(ctx, 1, l.origin.URL())
	if err != nil {
		return err
	}
	if seconds, err = timed(c.through); err != nil {
		return err
	}
	c.throughSeconds = append(c.throughSeconds, seconds)
	return l.drop(n)
}

func timed(f func() error) (seconds float64, err error) {
	started := time.Now()
	err = f()
	return time.Since(started).Seconds(), err
}

func (c *comparison) report(r *report, name string) {
	var over, allowed []float64
	for i, direct := range c.directSeconds {
		over = append(over, c.throughSeconds[i]-direct)
		allowed = append(allowed, max(0.1*direct, 0.15))
	}
	r.add(name+", direct", "s", "", c.directSeconds)
	r.add(name+", through the first node", "s", "", c.throughSeconds)
	r.add(name+", longer by", "s", "at most the next line", over)
	r.add(name+", max(10 %, 150 ms)", "s", "", allowed)
}

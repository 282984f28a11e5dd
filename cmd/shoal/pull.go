package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
	"shoal/seeder"
)

// lineUp moves to the beginning of the line above and erases it (ECMA-48).
const lineUp = "\x1b[1A\x1b[2K"

type pullCmd struct {
	Images []string `arg:"" name:"image" help:"Images, by tag (nginx:1.27) or digest (nginx@sha256:...)."`
	config.Admin
	config.Common
	Platform []string `placeholder:"OS/ARCH" env:"SHOAL_PLATFORM" sep:"none" help:"Platform of images that are for several, linux/arm64 or linux/arm/v7; repeat for more; all is every one. Default: linux and the architecture of this machine."`
}

// Help shows examples.
func (pullCmd) Help() string {
	return `    $ shoal pull nginx:1.27
    docker.io/library/nginx:1.27: fetched 68.2MiB of 68.2MiB
    $ shoal pull nginx:1.27
    docker.io/library/nginx:1.27: up to date, 68.2MiB
    $ shoal pull --platform linux/amd64 --platform linux/arm64 ghcr.io/org/app:v2 ghcr.io/org/db:v2

The node fetches as it does for a runtime: from members, and from the registry what nobody has. The runtime's own pull then finds everything in the node's cache. On a terminal there is a bar for each image. Ctrl-C stops it; what has come stays.

Exit status: 0 if all images are there, 1 if one could not be had. "shoal help seeders" tells how a node keeps images at hand by itself.`
}

// Run has the node fetch.
func (c pullCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{Admin: c.Admin, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	ask := admin.Pull{Platforms: words(c.Platform)}
	if ask.Images, err = imageNames(c.Images); err != nil {
		return &config.Error{Where: "IMAGE", Err: err}
	}
	if _, err := askedPlatforms(ask.Platforms); err != nil {
		return &config.Error{Where: "--platform", Err: err}
	}
	ended, err := fetchWatched(env, cfg.Admin, ask.Do)
	if err != nil {
		return err
	}
	var failed []error
	for _, p := range ended {
		if p.State == seeder.Failed {
			failed = append(failed, fmt.Errorf("%s: %s", p.Image, p.Error))
		} else if _, err := fmt.Fprintln(env.stdout, pulledText(p.Progress)); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// fetchWatched has the node at addr do something, and draws bars meanwhile.
func fetchWatched(env environment, addr string, do func(ctx context.Context, addr string, show func([]admin.Progress)) ([]admin.Progress, error)) ([]admin.Progress, error) {
	ctx, stop := signal.NotifyContext(env.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &bars{env: env}
	ended, err := do(ctx, addr, d.show)
	d.clear()
	switch {
	case ctx.Err() != nil:
		return nil, errors.New("interrupted: what has come stays, this node gives the rest up")
	case errors.Is(err, admin.ErrRefused):
		return nil, fmt.Errorf("the node at %s: %w", addr, err)
	case err != nil:
		return nil, askError(addr, err)
	}
	return ended, nil
}

// words splits what came of the environment; a flag that was repeated is split
// already.
func words(list []string) (all []string) {
	for _, s := range list {
		all = append(all, strings.Fields(s)...)
	}
	return all
}

// pulledText says how an image ended well.
func pulledText(p seeder.Progress) string {
	text := fmt.Sprintf("%s: fetched %s of %s", p.Image, size(p.Missing), size(p.Bytes))
	if p.State == seeder.Unchanged {
		text = fmt.Sprintf("%s: up to date, %s", p.Image, size(p.Bytes))
	}
	if p.Stale {
		text += "; the registry cannot be asked, this is what the tag was"
	}
	return text
}

// bars draws a bar for each image that is not here yet, in place on a terminal and
// not at all elsewhere.
type bars struct {
	env   environment
	lines int // that stand there
}

// clear takes the bars away.
func (b *bars) clear() {
	fmt.Fprint(b.env.stdout, strings.Repeat(lineUp, b.lines))
	b.lines = 0
}

// show draws.
func (b *bars) show(images []admin.Progress) {
	if !isTerminal(b.env.stdout) {
		return
	}
	b.clear()
	for _, p := range images {
		fmt.Fprintln(b.env.stdout, progressText(p.Progress, ending(p.Node)))
		b.lines++
	}
}

// progressText is a line with a bar, of 79 characters at most: a longer one may
// take two lines, and clear would leave one of them. Why an image fails is told
// when it has.
func progressText(p seeder.Progress, node string) string {
	longest := 38 - len(node) - 1
	share, what := 0.0, string(p.State)
	switch {
	case p.Error != "" && p.State == seeder.Fetching:
		what = "trying again"
	case p.Bytes > 0 && p.State == seeder.Fetching:
		share = float64(p.Done) / float64(p.Bytes)
		what = fmt.Sprintf("%3.0f %% of %s", 100*share, size(p.Bytes))
	case p.State == seeder.Unchanged || p.State == seeder.Fetched:
		share = 1
	}
	name := p.Image
	if more := len(name) - longest; more > 0 {
		name = "..." + name[more+3:]
	}
	if node != "" {
		name = node + " " + name
	}
	return fmt.Sprintf("%s %-18s %s", bar(share), what, name)
}

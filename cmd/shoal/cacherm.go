package main

import (
	"context"
	"fmt"
	"time"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
)

// removeTimeout is above what it takes to delete the files of a large cache from
// a slow disk.
const removeTimeout = 10 * time.Minute

type cacheRmCmd struct {
	Images []string `arg:"" name:"image" help:"A tag (nginx:1.27), a digest (nginx@sha256:...) or all of a repository (nginx)."`
	config.Admin
	config.Common
	DryRun bool `env:"SHOAL_DRY_RUN" help:"Say what would go, and remove nothing."`
	JSON   bool `name:"json" env:"SHOAL_JSON" help:"Print the answer as JSON."`
}

// Help shows examples.
func (cacheRmCmd) Help() string {
	return `    $ shoal cache rm --dry-run nginx:1.27
    docker.io/library/nginx:1.27
    1 image, 9 blobs, 72.03MiB would go
    $ shoal cache rm nginx:1.27 ghcr.io/org/app

What other images need stays, and so does an image that has another tag; then only the name goes. Nothing is removed if one of the images is not here, is pinned, or is being read. The next pull fetches it again; to have what a tag was forgotten and keep the content, use "shoal cache invalidate".`
}

// Run asks the node to remove.
func (c cacheRmCmd) Run(env environment) error {
	return removal(env, c.Admin, c.Common, c.JSON, admin.Remove{Images: c.Images, DryRun: c.DryRun}.Do)
}

type cachePruneCmd struct {
	Until time.Duration `required:"" placeholder:"DURATION" env:"SHOAL_UNTIL" help:"Remove what nobody used for so long, for instance 168h."`
	config.Admin
	config.Common
	DryRun bool `env:"SHOAL_DRY_RUN" help:"Say what would go, and remove nothing."`
	JSON   bool `name:"json" env:"SHOAL_JSON" help:"Print the answer as JSON."`
}

// Help shows examples.
func (cachePruneCmd) Help() string {
	return `    $ shoal cache prune --until 168h --dry-run
    $ shoal cache prune --until 168h

A pull and a HEAD of a manifest are uses. Pinned images stay, and so do those that are being read or pulled. Blobs of no image and unfinished ones go by their own age. To have this done all the time, set cache-max-age.`
}

// Run asks the node to prune.
func (c cachePruneCmd) Run(env environment) error {
	if c.Until <= 0 {
		return &config.Error{Where: "--until", Err: fmt.Errorf("%v is no age: use a positive time, for instance 168h", c.Until)}
	}
	return removal(env, c.Admin, c.Common, c.JSON, admin.Prune{UnusedFor: c.Until.Seconds(), DryRun: c.DryRun}.Do)
}

// removal has a node remove something and prints what.
func removal(env environment, a config.Admin, common config.Common, raw bool, do func(context.Context, string) ([]byte, admin.Removed, error)) error {
	addr, err := nodeAddr(env, a, common)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(env.ctx, removeTimeout)
	defer cancel()
	text, done, err := do(ctx, addr)
	if err != nil {
		return verbError(addr, err)
	}
	if raw {
		_, err = env.stdout.Write(text)
		return err
	}
	for _, name := range done.Images {
		if _, err := fmt.Fprintln(env.stdout, name); err != nil {
			return err
		}
	}
	verb := "removed"
	if done.DryRun {
		verb = "would go"
	}
	_, err = fmt.Fprintf(env.stdout, "%s, %s, %s %s\n", count(len(done.Images), "image"), count(done.Blobs, "blob"), size(done.Bytes), verb)
	return err
}

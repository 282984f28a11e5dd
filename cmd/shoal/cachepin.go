package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
)

// pinTimeout is far above what it takes to write a few names to a disk.
const pinTimeout = 20 * time.Second

type cachePinCmd struct {
	Images []string `arg:"" name:"image" help:"A tag (nginx:1.27) or a digest (nginx@sha256:...)."`
	config.Admin
	config.Common
}

// Help shows examples.
func (cachePinCmd) Help() string {
	return `    $ shoal cache pin nginx:1.27
    docker.io/library/nginx:1.27 pinned
    $ shoal cache pin ghcr.io/org/app:v2
    ghcr.io/org/app:v2 pinned: not here yet, it stays once it was pulled

A pinned image is never evicted, pruned or removed, and takes its part of cache-size. A tag is pinned as what it was when it was last pulled here, and as what it is pulled as later: then the old image may go. "shoal cache ls" shows what is pinned.`
}

// Run asks the node to pin.
func (c cachePinCmd) Run(env environment) error {
	return pin(env, c.Admin, c.Common, admin.Pin{Images: c.Images})
}

type cacheUnpinCmd struct {
	Images []string `arg:"" name:"image" help:"A name as it was pinned."`
	config.Admin
	config.Common
}

// Help shows examples.
func (cacheUnpinCmd) Help() string {
	return `    $ shoal cache unpin nginx:1.27
    docker.io/library/nginx:1.27 unpinned

The image stays until its room is needed.`
}

// Run asks the node to unpin.
func (c cacheUnpinCmd) Run(env environment) error {
	return pin(env, c.Admin, c.Common, admin.Pin{Images: c.Images, Unpin: true})
}

// pin has a node pin or unpin, and prints a word on each image: another one for
// those that were not there.
func pin(env environment, a config.Admin, common config.Common, ask admin.Pin) error {
	word, absent := "pinned", "pinned: not here yet, it stays once it was pulled"
	if ask.Unpin {
		word, absent = "unpinned", "was not pinned"
	}
	addr, err := nodeAddr(env, a, common)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(env.ctx, pinTimeout)
	defer cancel()
	done, err := ask.Do(ctx, addr)
	if err != nil {
		return verbError(addr, err)
	}
	for _, name := range done.Images {
		said := word
		if slices.Contains(done.Absent, name) {
			said = absent
		}
		if _, err := fmt.Fprintln(env.stdout, name, said); err != nil {
			return err
		}
	}
	return nil
}

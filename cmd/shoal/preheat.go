package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"shoal/blobcache/statement"
	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
	"shoal/seeder"
)

type preheatCmd struct {
	Images []string `arg:"" name:"image" help:"Images, by tag (nginx:1.27) or digest (nginx@sha256:...)."`
	config.Admin
	config.Common
	Platform   []string `placeholder:"OS/ARCH" env:"SHOAL_PLATFORM" sep:"none" help:"Platform of images that are for several; repeat for more; all is every one. Default: linux and the architecture of each member's machine."`
	Zone       string   `xor:"who" placeholder:"NAME" env:"SHOAL_TO_ZONE" help:"The members in this zone."`
	Peers      uint     `xor:"who" placeholder:"COUNT" env:"SHOAL_PEERS" help:"So many members, drawn by lot."`
	All        bool     `xor:"who" env:"SHOAL_ALL" help:"All members that the node is connected to, which is the default."`
	Wait       bool     `env:"SHOAL_WAIT" help:"Until all have ended, with bars; else until all have begun."`
	SigningKey string   `placeholder:"FILE" env:"SHOAL_SIGNING_KEY" help:"Key to sign with, made by \"shoal key new\"; all nodes that are to obey have its public key in trusted-keys."`
}

// Help shows examples.
func (preheatCmd) Help() string {
	return `    $ shoal preheat --signing-key signing.key --wait nginx:1.27
    docker.io/library/nginx:1.27: on 6 of 6 nodes, 68.2MiB
    $ shoal preheat --signing-key signing.key --zone hamburg ghcr.io/org/app:v2
    ghcr.io/org/app:v2: begun on 12 of 12 nodes

The node and those of the members that it is connected to begin at the same moment, so that each byte leaves the registry once and the rest goes from member to member. Each asks the registry itself what the tag is. What is signed says what to fetch and for whom, and is good for ten minutes, once for each member.

Exit status: 0 if all have the image (or have begun), 1 if one has not. "shoal help seeders" tells more.`
}

// Run has them fetch.
func (c preheatCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{Admin: c.Admin, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	images, err := imageNames(c.Images)
	if err == nil && len(images) > admin.MaxPreheats {
		err = fmt.Errorf("%d images: use %d at most at a time", len(images), admin.MaxPreheats)
	}
	if err != nil {
		return &config.Error{Where: "IMAGE", Err: err}
	}
	if _, err := askedPlatforms(words(c.Platform)); err != nil {
		return &config.Error{Where: "--platform", Err: err}
	}
	if c.SigningKey == "" {
		return &config.Error{Where: "--signing-key", Err: errors.New("nobody fetches because a stranger says so: make a key with \"shoal key new FILE\", put what it prints into trusted-keys of all nodes, and name the file here")}
	}
	signer, err := loadSigningKey(c.SigningKey)
	if err != nil {
		return err
	}
	to, err := c.to(env.ctx, cfg.Admin)
	if err != nil {
		return err
	}
	ask := admin.Preheat{Wait: c.Wait}
	for _, image := range images {
		said, err := signer.Preheat(statement.Preheat{Image: image, Platforms: strings.Join(words(c.Platform), ","), To: to}, time.Now())
		if err != nil {
			return err
		}
		ask.Statements = append(ask.Statements, said.Marshal())
	}
	ended, err := fetchWatched(env, cfg.Admin, ask.Do)
	if err != nil {
		return err
	}
	return c.tell(env, images, ended)
}

// to says who is to fetch.
func (c preheatCmd) to(ctx context.Context, addr string) (string, error) {
	switch {
	case c.Zone != "":
		return statement.ToZone(c.Zone), nil
	case c.Peers == 0:
		return statement.ToAll, nil
	case c.Peers > statement.MaxMembers:
		return "", &config.Error{Where: "--peers", Err: fmt.Errorf("%d members: use %d at most, --zone or --all", c.Peers, statement.MaxMembers)}
	}
	known, err := asker(addr, admin.FetchPeers)(ctx)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, p := range known.said.Peers {
		if p.Connected {
			ids = append(ids, p.ID)
		}
	}
	if len(ids) < int(c.Peers) {
		return "", fmt.Errorf("the node is connected to %s, not to %d: use --all for those that there are", count(len(ids), "member"), c.Peers)
	}
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return statement.ToMembers(ids[:c.Peers]...), nil
}

// tell prints a line for each image; the error has one part for each node that
// does not have it.
func (c preheatCmd) tell(env environment, images []string, ended []admin.Progress) error {
	var failed []error
	for _, image := range images {
		all, good, bytes := 0, 0, int64(0)
		for _, p := range ended {
			if p.Image != image {
				continue
			}
			if all++; p.State == seeder.Failed {
				failed = append(failed, fmt.Errorf("%s on %s: %s", p.Image, ending(p.Node), p.Error))
				continue
			}
			good++
			bytes = max(bytes, p.Bytes)
		}
		text := fmt.Sprintf("%s: on %d of %s, %s", image, good, count(all, "node"), size(bytes))
		if !c.Wait {
			text = fmt.Sprintf("%s: begun on %d of %s", image, good, count(all, "node"))
		}
		if _, err := fmt.Fprintln(env.stdout, text); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

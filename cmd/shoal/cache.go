package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
	"shoal/proxy/request"
)

// invalidateTimeout is above what it takes to tell a swarm of which some
// members are busy: three tries of two seconds.
const invalidateTimeout = 20 * time.Second

// cacheCmd is what can be done with the cache; "shoal help caching" tells why.
type cacheCmd struct {
	Ls         cacheLsCmd         `cmd:"" help:"List the images in the cache."`
	Du         cacheDuCmd         `cmd:"" help:"Show what takes how much of the disk, alone and together with others."`
	Pin        cachePinCmd        `cmd:"" help:"Keep images, whatever else needs room."`
	Unpin      cacheUnpinCmd      `cmd:"" help:"Take back a pin."`
	Rm         cacheRmCmd         `cmd:"" help:"Remove images."`
	Prune      cachePruneCmd      `cmd:"" help:"Remove images that nobody used for some time."`
	Verify     cacheVerifyCmd     `cmd:"" help:"Read blobs from the disk, and see whether they are what they were."`
	Export     cacheExportCmd     `cmd:"" help:"Write images into a file that shoal, docker, podman and skopeo read."`
	Import     cacheImportCmd     `cmd:"" help:"Take the images of such a file."`
	Invalidate cacheInvalidateCmd `cmd:"" help:"Forget what is known of an image, on this node or in the whole swarm."`
}

type cacheInvalidateCmd struct {
	Image string `arg:"" help:"A tag (nginx:1.27), a digest (nginx@sha256:...) or all of a repository (nginx)."`
	config.Admin
	config.Common
	SigningKey string `placeholder:"FILE" env:"SHOAL_SIGNING_KEY" help:"Sign it with this key, made by \"shoal key new\", and have the swarm forget, too: all nodes with its public key in trusted-keys."`
}

// Help shows examples.
func (cacheInvalidateCmd) Help() string {
	return `    $ shoal cache invalidate nginx:1.27
    docker.io/library/nginx:1.27: 1 forgotten
    $ shoal cache invalidate ghcr.io/org/app
    $ shoal cache invalidate --signing-key signing.key nginx:1.27
    docker.io/library/nginx:1.27: 1 forgotten, 3 members told

Of a tag, or of all tags of a repository, the node forgets what the registry said they are: the next pull asks again, whatever max-age says, and while the registry is down there is no last answer. Of a digest it forgets the content, and the tags of the repository that were it. Layers stay: a digest never means anything else. "shoal help tags" says more.`
}

// nodeAddr returns where the node is that a verb is for.
func nodeAddr(env environment, a config.Admin, c config.Common) (string, error) {
	cfg, err := config.Load(config.Flags{Admin: a, Common: c}, env.environ)
	return cfg.Admin, err
}

// verbError says what became of something that the node was to do.
func verbError(addr string, err error) error {
	if errors.Is(err, admin.ErrRefused) {
		return fmt.Errorf("the node at %s: %w", addr, err)
	}
	return askError(addr, err)
}

// Run asks the node to forget.
func (c cacheInvalidateCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{Admin: c.Admin, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	image, err := request.ParseImage(c.Image)
	if err != nil {
		return &config.Error{Where: "IMAGE", Err: err}
	}
	ask := admin.Invalidate{Image: image.String()}
	if c.SigningKey != "" {
		signer, err := loadSigningKey(c.SigningKey)
		if err != nil {
			return err
		}
		said, err := signer.Invalidate(image.String(), time.Now())
		if err != nil {
			return err
		}
		ask = admin.Invalidate{Statement: said.Marshal()}
	}
	ctx, cancel := context.WithTimeout(env.ctx, invalidateTimeout)
	defer cancel()
	done, err := ask.Do(ctx, cfg.Admin)
	if err != nil {
		return verbError(cfg.Admin, err)
	}
	text := fmt.Sprintf("%s: %d forgotten", done.Image, done.Forgotten)
	if c.SigningKey != "" {
		text += fmt.Sprintf(", %s told", count(done.Members, "member"))
	}
	_, err = fmt.Fprintln(env.stdout, text)
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
	"shoal/proxy/request"
)

type cacheExportCmd struct {
	Images   []string `arg:"" name:"image" help:"A tag (nginx:1.27), a digest (nginx@sha256:...) or all of a repository (nginx)."`
	Output   string   `short:"o" required:"" placeholder:"FILE" env:"SHOAL_OUTPUT" help:"Where to write it; - is standard output."`
	Platform []string `placeholder:"OS/ARCH" env:"SHOAL_PLATFORM" help:"Of an index, these platforms only, as linux/arm64 or linux/arm/v7. Default: those that are here."`
	Zstd     bool     `env:"SHOAL_ZSTD" help:"Compress it. Layers are compressed already, mostly."`
	config.Admin
	config.Common
}

// Help shows examples.
func (cacheExportCmd) Help() string {
	return `    $ shoal cache export nginx:1.27 ghcr.io/org/app:v2 -o images.tar
    $ shoal cache export --platform linux/amd64 nginx:1.27 -o - | ssh inside shoal cache import -

The file is an OCI image layout in a tar, with the manifest.json of "docker save" in it: "shoal cache import", docker load, podman load, skopeo (oci-archive:), ctr images import and crane read it. Digests stay what they are. An image of which something is not in the cache is an error that names what: pull it through the node first.`
}

// Run writes the file; there is none if it fails.
func (c cacheExportCmd) Run(env environment) error {
	addr, err := nodeAddr(env, c.Admin, c.Common)
	if err != nil {
		return err
	}
	for _, p := range c.Platform {
		if n := strings.Count(p, "/"); n < 1 || n > 2 {
			return &config.Error{Where: "--platform", Err: fmt.Errorf("%q is no platform: use OS/ARCH or OS/ARCH/VARIANT, for instance linux/arm64", p)}
		}
	}
	ask := admin.Export{Images: c.Images, Platforms: c.Platform, Zstd: c.Zstd}
	if c.Output == "-" {
		body, err := ask.Do(env.ctx, addr)
		if err != nil {
			return verbError(addr, err)
		}
		defer func() { _ = body.Close() }()
		_, err = io.Copy(env.stdout, body)
		return err
	}
	var n int64
	err = writeWhole(c.Output, func(f *os.File) error {
		if n, err = ask.To(env.ctx, addr, f); err != nil && !errors.Is(err, admin.ErrBrokenOff) {
			err = verbError(addr, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "%s: %s\n", c.Output, size(n))
	return err
}

// writeWhole has fill write a file that is at path then, or nowhere if that fails.
func writeWhole(path string, fill func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	err = fill(f)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

type cacheImportCmd struct {
	File string `arg:"" help:"A file that \"shoal cache export\", skopeo (oci-archive:), buildkit or docker save made, also compressed by zstd or gzip; - is standard input."`
	Name string `placeholder:"IMAGE" env:"SHOAL_NAME" help:"What to call its image, if the file says nothing: nginx:1.27."`
	config.Admin
	config.Common
	JSON bool `name:"json" env:"SHOAL_JSON" help:"Print the answer as JSON."`
}

// Help shows examples.
func (cacheImportCmd) Help() string {
	return `    $ shoal cache import images.tar
    docker.io/library/nginx:1.27
    1 image, 9 blobs, 72.03MiB imported
    $ skopeo copy docker://nginx:1.27 oci-archive:nginx.tar && shoal cache import --name nginx:1.27 nginx.tar

Every byte is proven against its digest, and all of the file is taken or nothing. Members of the swarm hear of it like of any blob. A tag is what the file says, until the registry says something else: while it cannot be asked, and on nodes that run with --offline.`
}

// Run sends the file to the node.
func (c cacheImportCmd) Run(env environment) error {
	addr, err := nodeAddr(env, c.Admin, c.Common)
	if err != nil {
		return err
	}
	if i, err := request.ParseImage(c.Name); c.Name != "" && (err != nil || i.Tag == "") {
		return &config.Error{Where: "--name", Err: fmt.Errorf("%q is no tag of an image: use NAME:TAG, for instance nginx:1.27", c.Name)}
	}
	file := os.Stdin
	if c.File != "-" {
		if file, err = os.Open(c.File); err != nil {
			return fmt.Errorf("import: %w", err)
		}
		defer file.Close()
	}
	ctx, cancel := context.WithCancel(env.ctx)
	defer cancel()
	text, done, err := admin.Import{Name: c.Name}.Do(ctx, addr, file)
	if err != nil {
		return verbError(addr, err)
	}
	if c.JSON {
		_, err = env.stdout.Write(text)
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "%s\n%s, %s, %s imported\n", strings.Join(done.Images, "\n"), count(len(done.Images), "image"), count(done.Blobs, "blob"), size(done.Bytes))
	return err
}

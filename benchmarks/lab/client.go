//go:build linux

package main

import (
	"context"
	"net/http"

	"shoal/benchmarks/rig"

	"golang.org/x/sync/errgroup"
)

// pull asks for the image as dockerd does: HEAD of the tag, the manifest by its
// digest, then the blobs, parallel at once. It returns when it has the last
// byte of the last one.
func pull(ctx context.Context, c rig.Client, img *image) error {
	first, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer first.Close()
	if err := first.Discard(http.MethodHead, img.path("manifests", tag), img.manifest.size); err != nil {
		return err
	}
	if err := first.Discard(http.MethodGet, img.path("manifests", img.manifest.digest()), img.manifest.size); err != nil {
		return err
	}
	blobs := make(chan blobFile, len(img.blobs))
	for _, b := range img.blobs {
		blobs <- b
	}
	close(blobs)
	group, ctx := errgroup.WithContext(ctx)
	for range img.parallel {
		group.Go(func() error {
			conn, err := c.Connect(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			for b := range blobs {
				if err := conn.Discard(http.MethodGet, img.path("blobs", b.digest()), b.size); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

package proxy

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/blobcache/blob"
	"shoal/proxy/manifest"
	"shoal/proxy/request"
)

const (
	// healsAtOnce bounds the blobs that are brought again at the same time: nobody
	// waits for them.
	healsAtOnce = 2
	// healPatience is how long a source for one is looked for.
	healPatience = time.Minute
)

// heal brings blobs again that rotted on the disk, from the swarm or from the
// registry of an image that has them, until ctx ends.
func (p *Proxy) heal(ctx context.Context) {
	events, cancel := p.cache.Subscribe()
	defer cancel()
	var g errgroup.Group
	g.SetLimit(healsAtOnce)
	defer func() { _ = g.Wait() }() // they log
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if !open {
				return
			}
			if !e.Rotten {
				continue
			}
			g.Go(func() error {
				err := p.healBlob(ctx, e.Blob)
				switch {
				case err == nil:
					p.metrics.healed.Inc()
					p.log.Info("a blob that had rotted on the disk is whole again", "digest", e.Blob.Digest)
				case ctx.Err() == nil:
					p.log.Warn("a blob that had rotted on the disk is gone until somebody pulls it", "digest", e.Blob.Digest, "error", err)
				}
				return nil
			})
		}
	}
}

// healBlob returns when the blob is whole again.
func (p *Proxy) healBlob(ctx context.Context, d blob.Descriptor) error {
	known, _ := p.cache.Lookup(d.Digest)
	if d.MediaType == "" {
		d.MediaType = known.MediaType
	}
	soon, cancel := context.WithTimeout(ctx, healPatience)
	defer cancel()
	fill, err := p.fetcher.Fetch(soon, d, p.healers(d))
	if err != nil {
		return err
	}
	select {
	case <-fill.Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := fill.Err(); err != nil || !manifest.Known(d.MediaType) {
		return err
	}
	_, _, err = p.Stored(ctx, d.Digest)
	return err
}

// healers is the repository of an image that has d, or nowhere if none is known
// that the node may ask in its own name.
func (p *Proxy) healers(d blob.Descriptor) blob.Source {
	for _, image := range p.cache.Holders(d.Digest) {
		i, err := request.ParseImage(image)
		if err != nil {
			continue
		}
		repo, err := p.origin.Repository(i.Registry, i.Name)
		if err != nil || repo.ByClient() != nil {
			continue
		}
		if manifest.Known(d.MediaType) {
			return repo.Manifests(manifest.Accept())
		}
		return repo.Blobs()
	}
	return nowhere{}
}

// nowhere is an origin that has nothing.
type nowhere struct{}

// Open is of blob.Source.
func (nowhere) Open(_ context.Context, d blob.Descriptor, _ blob.Range) (*blob.Stream, error) {
	return nil, fmt.Errorf("%s: %w: no image that is known has it", d.Digest, blob.ErrNotFound)
}

package proxy

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/manifest"
	"shoal/proxy/request"
)

// What the node fetches of its own accord it fetches as a client without a token
// would have it: the same questions to the same places, and the same is kept. The
// difference is that nothing goes out.

// unheard is the answer to nobody.
type unheard http.Header

func (u unheard) Header() http.Header       { return http.Header(u) }
func (unheard) Write(b []byte) (int, error) { return len(b), nil }
func (unheard) WriteHeader(int)             {}

// errand is an exchange with nobody.
func (p *Proxy) errand(ctx context.Context, kind request.Kind, i request.Image) (*exchange, error) {
	repo, err := p.origin.Repository(i.Registry, i.Name)
	if err != nil {
		return nil, err
	}
	nobody, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return nil, err
	}
	x := &exchange{Proxy: p, w: unheard{}, r: nobody, start: time.Now(), anew: true, req: request.Request{
		Kind: kind, Registry: i.Registry, Name: i.Name, Tag: i.Tag, Digest: i.Digest,
	}}
	x.identify(repo)
	return x, nil
}

// Pulled is a manifest that Manifest has brought.
type Pulled struct {
	*manifest.Manifest
	blob.Descriptor
	// Stale: the registry could not be asked, and this is what the tag was.
	Stale bool
}

// Manifest brings the manifest of an image, by tag or by digest, into the cache,
// unless it is there, and tells what it says. A tag is what its registry says now,
// max-age or not: whoever has the node fetch wants to know. Errors: those of package blob and of package manifest, wrapped;
// blob.ErrNoSpace also for what the cache does not keep.
func (p *Proxy) Manifest(ctx context.Context, i request.Image) (Pulled, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	x, err := p.errand(ctx, request.Manifest, i)
	if err != nil {
		return Pulled{}, err
	}
	d := blob.Descriptor{Digest: i.Digest, Size: blob.UnknownSize}
	if i.Tag != "" {
		d, err = x.resolve(ctx)
	} else {
		err = x.admit(ctx, d.Digest)
	}
	if err != nil {
		return Pulled{}, err
	}
	d, m, _, err := x.read(ctx, d)
	if err != nil {
		return Pulled{}, err
	}
	if err := p.kept(ctx, d.Digest); err != nil {
		return Pulled{}, err
	}
	if !x.refer(m) {
		return Pulled{}, fmt.Errorf("%w: for the note that what %s names is not for everybody", blob.ErrNoSpace, i)
	}
	return Pulled{Manifest: m, Descriptor: d, Stale: x.w.Header().Get("Warning") != ""}, nil
}

// kept returns nil when the cache has d whole, which was read just now: that may
// have been before it was committed.
func (p *Proxy) kept(ctx context.Context, d digest.Digest) error {
	if fill, running := p.cache.Running(d); running {
		select {
		case <-fill.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if _, kept := p.cache.Stat(d); !kept {
		return fmt.Errorf("%w: the manifest %s is not kept", blob.ErrNoSpace, d)
	}
	return nil
}

// Blobs brings blobs of the repository of an image into the cache, in this order,
// a few at a time, and returns when each is there or cannot be had. The error is
// that of the first which cannot; those of package blob, wrapped.
func (p *Proxy) Blobs(ctx context.Context, i request.Image, blobs []blob.Descriptor) error {
	x, err := p.errand(ctx, request.Blob, i)
	if err != nil {
		return err
	}
	for _, d := range blobs {
		if p.cache.Reach(d.Digest) == blobcache.Everybody {
			continue
		}
		x.sure = false
		if err := x.still(ctx, d.Digest); err != nil { // it may have come by way of another registry
			return fmt.Errorf("%s: %w", d.Digest, err)
		}
	}
	return p.prefetch.fetchImage(ctx, image{blobs: p.prefetch.missing(blobs), origin: x.blobs()})
}

// Busy tells whether a client waits for bytes that are on their way here.
func (p *Proxy) Busy() bool { return p.waiting.Load() > 0 }

// Tags returns all tags of the repository of an image; see origin's.
func (p *Proxy) Tags(ctx context.Context, i request.Image) ([]string, error) {
	x, err := p.errand(ctx, request.Tags, i)
	if err != nil {
		return nil, err
	}
	return x.repo.Tags(ctx)
}

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/manifest"
	"shoal/proxy/request"
)

// Stored reads a manifest that the cache has, proven, and notes there what it
// names. Errors: blob.ErrNotFound, blob.ErrTooLarge and manifest.ErrInvalid,
// wrapped.
func (p *Proxy) Stored(ctx context.Context, d digest.Digest) (*manifest.Manifest, []byte, error) {
	whole, err := p.cache.Get(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	defer whole.Close()
	body, err := p.readManifest(whole.File(), whole.Descriptor().Size)
	if err != nil {
		return nil, nil, err
	}
	known, _ := p.cache.Lookup(d)
	m, err := manifest.Parse(body, known.MediaType)
	if err != nil {
		return nil, nil, err
	}
	p.remember(m)
	p.cache.Refer(d, m.Refs()...)
	return m, body, nil
}

// Assert notes what the tag i is on the word of the operator: for as long as its
// registry cannot be asked, as if it had said so now.
func (p *Proxy) Assert(i request.Image, d blob.Descriptor) {
	p.cache.KeepName(i.String(), d)
	p.cache.KeepTag(below(i.String())+asserted, blobcache.Tag{Manifest: d, At: time.Now()})
}

// asserted stands in the store where the media types do that a client accepts.
const asserted = "asserted"

// readManifest reads a manifest of size bytes.
func (p *Proxy) readManifest(r io.Reader, size int64) ([]byte, error) {
	if size > p.maxManifest {
		return nil, fmt.Errorf("%w: a manifest of %d bytes", blob.ErrTooLarge, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return body, nil
}

// remember keeps what a proven manifest says about others, for requests to come.
func (p *Proxy) remember(m *manifest.Manifest) {
	p.prefetch.learn(m.Children)
	told := m.Blobs
	for _, c := range m.Children {
		if c.Size <= p.maxManifest { // an index that lies must not keep a manifest from being served
			told = append(told, c.Descriptor)
		}
	}
	p.cache.Remember(told...)
}

// learn reads the manifests of which the cache does not know what they name: a
// node of an older version has left them. Where there are no names either, tags
// are names.
func (p *Proxy) learn(ctx context.Context) {
	for _, b := range p.cache.Inventory().Blobs {
		known, _ := p.cache.Lookup(b.Digest)
		if len(b.Refs) > 0 || !manifest.Known(known.MediaType) || ctx.Err() != nil {
			continue
		}
		if _, _, err := p.Stored(ctx, b.Digest); err != nil && !errors.Is(err, blob.ErrNotFound) && ctx.Err() == nil {
			p.log.Warn("manifest in the cache is not understood", "digest", b.Digest, "error", err)
		}
	}
	if len(p.cache.Names()) > 0 {
		return
	}
	for key, t := range p.cache.Tags("") {
		if image, _, ok := strings.Cut(key, "\n"); ok {
			p.cache.KeepName(image, t.Manifest)
		}
	}
}

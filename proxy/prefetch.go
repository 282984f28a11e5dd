package proxy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/lru"
	"shoal/proxy/manifest"
)

// Bounds on prefetching. The origin gives the layers of an image one after the
// other, so that those which wait do not delay the one that is unpacked next;
// their fills are open to find members, and to go on at once where the layer
// before ends.
const (
	// leastFills are open at a time, as many as dockerd asks for.
	leastFills = 3
	// openBytes: more fills are open until they want so much. It is what a
	// link of 1 Gbit/s brings in a quarter of a second, and that is longer
	// than it takes to begin another layer.
	openBytes = 32 << 20
	// mostFills bounds the connections, requests and files of many small
	// layers.
	mostFills     = 8
	imagesAtOnce  = 4
	imagesWaiting = 64
	maxUnwanted   = 4096
)

// prefetcher starts the fills of an image's missing blobs, in layer order, when
// a runtime has got its manifest. It looks at that manifest only and never
// follows an index: nothing nested can make it run on.
type prefetcher struct {
	cache   *blobcache.Cache
	fetcher Fetcher
	wanted  []ocispec.Platform
	log     *slog.Logger
	metrics *metrics

	queue chan image
	// unwanted are the manifests that an index gave to other platforms.
	unwanted *lru.Cache[digest.Digest, struct{}]

	mu   sync.Mutex
	busy map[digest.Digest]bool // images that wait or are worked on
}

// image is a manifest whose blobs are to be had.
type image struct {
	manifest digest.Digest
	blobs    []blob.Descriptor
	origin   blob.Source
}

func newPrefetcher(p *Proxy, wanted []ocispec.Platform) *prefetcher {
	return &prefetcher{
		cache:    p.cache,
		fetcher:  p.fetcher,
		wanted:   wanted,
		log:      p.log,
		metrics:  p.metrics,
		queue:    make(chan image, imagesWaiting),
		unwanted: lru.New[digest.Digest, struct{}](maxUnwanted),
		busy:     map[digest.Digest]bool{},
	}
}

// learn notes which manifests of an index are for other platforms.
func (f *prefetcher) learn(children []manifest.Child) {
	for _, c := range children {
		if c.Platform == nil {
			continue
		}
		if f.wants(*c.Platform) {
			f.unwanted.Remove(c.Digest)
		} else {
			f.unwanted.Add(c.Digest, struct{}{})
		}
	}
}

// Wants tells whether images of a platform are fetched ahead: those of this
// machine, unless Options say otherwise.
func (p *Proxy) Wants(platform ocispec.Platform) bool { return p.prefetch.wants(platform) }

func (f *prefetcher) wants(p ocispec.Platform) bool {
	for _, w := range f.wanted {
		if w.OS == p.OS && w.Architecture == p.Architecture && (w.Variant == "" || w.Variant == p.Variant) {
			return true
		}
	}
	return false
}

// offer queues an image unless it is for another platform, nothing of it is
// missing, it is queued already, or too many are.
func (f *prefetcher) offer(img image) {
	if f.unwanted.Contains(img.manifest) {
		return
	}
	if img.blobs = f.missing(img.blobs); len(img.blobs) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[img.manifest] {
		return
	}
	select {
	case f.queue <- img:
		f.busy[img.manifest] = true
	default:
		f.metrics.prefetch.WithLabelValues("dropped").Add(float64(len(img.blobs)))
	}
}

// missing returns those that are not in the cache.
func (f *prefetcher) missing(blobs []blob.Descriptor) []blob.Descriptor {
	return slices.DeleteFunc(slices.Clone(blobs), func(d blob.Descriptor) bool {
		_, ok := f.cache.Stat(d.Digest)
		return ok
	})
}

// run works on queued images until ctx ends.
func (f *prefetcher) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range imagesAtOnce {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case img := <-f.queue:
					f.work(ctx, img)
				}
			}
		})
	}
	workers.Wait()
}

// work fetches a queued image.
func (f *prefetcher) work(ctx context.Context, img image) {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.busy, img.manifest)
	}()
	_ = f.fetchImage(ctx, img) // which logs
}

// fetchImage brings the blobs of an image, and returns when each is whole or
// cannot be had; the error is that of the first which cannot.
func (f *prefetcher) fetchImage(ctx context.Context, img image) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started, end := context.WithCancel(ctx)
	end()
	ended := make(chan outcome)
	open, openSize := 0, int64(0)
	var failed error
	await := func() {
		e := <-ended
		open, openSize = open-1, openSize-e.blob.Size
		failed = cmp.Or(failed, e.err)
	}
	for _, d := range img.blobs {
		for open > 0 && !mayOpen(open, openSize, d.Size) {
			await()
		}
		if ctx.Err() != nil {
			break
		}
		// In this order, and without waiting for who has it; what is wrong is
		// told below.
		_, _ = f.fetcher.Fetch(started, d, img.origin)
		open, openSize = open+1, openSize+d.Size
		go func() {
			err := f.fetchBlob(ctx, d, img.origin)
			defer func() { ended <- outcome{d, err} }()
			switch {
			case err == nil:
				f.metrics.prefetch.WithLabelValues("ok").Inc()
			case ctx.Err() == nil:
				f.metrics.prefetch.WithLabelValues("failed").Inc()
				f.log.Debug("prefetch", "manifest", img.manifest, "digest", d.Digest, "error", err)
			}
			if errors.Is(err, blob.ErrNoSpace) {
				cancel() // the next one will not fit either
			}
		}()
	}
	for open > 0 {
		await()
	}
	return cmp.Or(failed, context.Cause(ctx))
}

// outcome is a blob that was to be had, and why it was not.
type outcome struct {
	blob blob.Descriptor
	err  error
}

// mayOpen reports whether one more fill, of size bytes, may be open beside some
// that want openSize bytes.
func mayOpen(open int, openSize, size int64) bool {
	return open < leastFills || open < mostFills && openSize+size <= openBytes
}

// fetchBlob returns when the blob is whole.
func (f *prefetcher) fetchBlob(ctx context.Context, d blob.Descriptor, origin blob.Source) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	fill, err := f.fetcher.Fetch(ctx, d, origin)
	if err != nil {
		return err
	}
	select {
	case <-fill.Done():
		return fill.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

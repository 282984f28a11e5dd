package seeder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
)

// An image is tried so often while its registry, or the network, may only be out
// of breath: by selections, and for people, who can try again themselves.
const (
	tries     = 4
	handTries = 2
)

// errPlatform: the image is for other platforms.
var errPlatform = errors.New("the image is not for")

// State is how far an image is.
type State string

// States of an image, in their order.
const (
	Waiting   State = "waiting"
	Fetching  State = "fetching"
	Unchanged State = "unchanged" // it was here
	Fetched   State = "fetched"
	Failed    State = "failed"
)

// Progress is how far an image is.
type Progress struct {
	Image  string        `json:"image"`
	State  State         `json:"state"`
	Digest digest.Digest `json:"digest,omitempty"` // of what the name is
	// Bytes is the size of config and layers, each once, Done what of them is
	// here, and Missing what was not here before. 0 until it is known.
	Bytes   int64 `json:"bytes"`
	Done    int64 `json:"done"`
	Missing int64 `json:"missing"`
	// Stale: the registry could not be asked, and it is what the tag was.
	Stale bool `json:"stale,omitempty"`
	// Error is why it failed, or is tried again.
	Error string `json:"error,omitempty"`
}

// Ended tells whether nothing more comes.
func (p Progress) Ended() bool { return p.State != Waiting && p.State != Fetching }

// Pull is an image on its way into the cache.
type Pull struct {
	mirror    Mirror
	cache     *blobcache.Cache
	platforms Platforms
	limits    *limits // nil: none
	tries     int

	mu        sync.Mutex
	now       Progress
	manifests []blob.Descriptor // when they are known
	blobs     []blob.Descriptor // config and layers, each once, when they are known
}

// NewPull returns the pull of an image that somebody waits for, which Run does.
func NewPull(mirror Mirror, cache *blobcache.Cache, image string, platforms Platforms) *Pull {
	return &Pull{mirror: mirror, cache: cache, platforms: platforms, tries: handTries, now: Progress{Image: image, State: Waiting}}
}

// Run brings the image into the cache, and tries again what may yet come.
func (p *Pull) Run(ctx context.Context) error {
	for try := 1; ; try++ {
		err := p.once(ctx)
		if err == nil || ctx.Err() != nil || try == p.tries || !passes(err) {
			return p.end(err)
		}
		p.set(func(now *Progress) { now.Error = err.Error() })
		select {
		case <-time.After(backoff(try)):
		case <-ctx.Done():
			return p.end(context.Cause(ctx))
		}
	}
}

// passes tells whether what went wrong may be right soon.
func passes(err error) bool {
	if errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrDenied) {
		return false
	}
	for _, passing := range []error{blob.ErrUnavailable, blob.ErrStalled, blob.ErrCorrupt, context.DeadlineExceeded} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// backoff is the wait after that many tries: registries that count requests count
// by the minute at the least.
func backoff(try int) time.Duration { return time.Second << (2 * (try - 1)) }

func (p *Pull) set(change func(now *Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.now)
}

func (p *Pull) end(err error) error {
	p.set(func(now *Progress) {
		switch now.Error = ""; {
		case err != nil:
			now.State, now.Error = Failed, err.Error()
		case now.Missing == 0:
			now.State = Unchanged
		default:
			now.State = Fetched
		}
	})
	return err
}

// once brings the manifests, then the blobs.
func (p *Pull) once(ctx context.Context) error {
	image := p.Progress().Image
	p.set(func(now *Progress) { now.State = Fetching })
	top, err := p.mirror.Manifest(ctx, image)
	if err != nil {
		return err
	}
	manifests := []Manifest{top}
	if len(top.Children) > 0 {
		if manifests, err = p.children(ctx, image, top); err != nil {
			return err
		}
	}
	missing := p.know(top, manifests)
	for group := range p.limits.groups(missing) {
		if err := p.limits.wait(ctx, group); err != nil {
			return err
		}
		if err := p.mirror.Blobs(ctx, image, group); err != nil {
			return err
		}
	}
	for _, d := range missing {
		if _, whole := p.cache.Stat(d.Digest); !whole {
			return fmt.Errorf("%w: %s came and did not stay: is the cache too small for the image?", blob.ErrNoSpace, d.Digest)
		}
	}
	return nil
}

// children brings the manifests of an index for the platforms.
func (p *Pull) children(ctx context.Context, image string, top Manifest) ([]Manifest, error) {
	wanted, err := p.platforms.of(top.Children)
	if err != nil {
		return nil, err
	}
	var manifests []Manifest
	for _, c := range wanted {
		m, err := p.mirror.Manifest(ctx, repository(image)+"@"+c.Digest.String())
		if err != nil {
			return nil, err
		}
		manifests = append(manifests, m)
	}
	return manifests, nil
}

// repository returns the name without what comes behind it.
func repository(image string) string {
	name, _, _ := strings.Cut(image, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name
}

// know notes what belongs to the image, and returns what of it is not here.
func (p *Pull) know(top Manifest, manifests []Manifest) (missing []blob.Descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Digest, p.now.Stale, p.now.Bytes, p.blobs = top.Digest, top.Stale, 0, nil
	p.manifests = []blob.Descriptor{top.Descriptor}
	first := p.now.Missing == 0
	for _, m := range manifests {
		if m.Digest != top.Digest {
			p.manifests = append(p.manifests, m.Descriptor)
		}
		for _, d := range m.Blobs {
			if slices.ContainsFunc(p.blobs, func(b blob.Descriptor) bool { return b.Digest == d.Digest }) {
				continue
			}
			p.blobs = append(p.blobs, d)
			p.now.Bytes += d.Size
			if _, whole := p.cache.Stat(d.Digest); whole {
				continue
			}
			missing = append(missing, d)
			if first {
				p.now.Missing += d.Size
			}
		}
	}
	return missing
}

// contents returns all that belongs to the image, when it is known.
func (p *Pull) contents() []blob.Descriptor {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Concat(p.manifests, p.blobs)
}

// Progress returns how far the image is.
func (p *Pull) Progress() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now
	for _, d := range p.blobs {
		now.Done += p.here(d)
	}
	return now
}

// here returns how many bytes of a blob are here, whole pieces of it while it is
// on its way.
func (p *Pull) here(d blob.Descriptor) int64 {
	if _, whole := p.cache.Stat(d.Digest); whole {
		return d.Size
	}
	fill, running := p.cache.Running(d.Digest)
	if !running {
		return 0
	}
	return min(d.Size, int64(fill.Have().Count())*blob.PieceSize)
}

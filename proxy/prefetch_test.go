package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/lru"
	"shoal/proxy/manifest"
	"shoal/proxy/origin/origintest"
)

func TestPrefetchFollowsThePlatformManifest(t *testing.T) {
	bubble(t, options{run: true}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Delay(time.Second)})

		// What dockerd does first, and the manifest of another platform too.
		r.do("HEAD", "/v2/library/app/manifests/v1")
		r.get("/v2/library/app/manifests/" + img.index.ref())
		r.do("HEAD", "/v2/library/app/manifests/"+img.mine.manifest.ref())
		r.get("/v2/library/app/manifests/" + img.theirs.manifest.ref())
		sleep(time.Minute)
		if r.hub.Stats().Requests["GET blob"] != 0 {
			t.Errorf("prefetched too early, or for another platform: %v", r.hub.Lines())
		}
		r.hub.ResetStats()

		r.get("/v2/library/app/manifests/" + img.mine.manifest.ref())
		sleep(time.Minute)
		var want []string
		for _, b := range img.mine.blobs {
			want = append(want, "GET blob "+b.ref()+" -> 200")
			if _, ok := r.cache.Stat(b.Digest); !ok {
				t.Errorf("%s is missing", b.Digest)
			}
		}
		r.asked(r.hub, want...)
		// What is there is not asked for again.
		r.get("/v2/library/app/manifests/" + img.mine.manifest.ref())
		for _, b := range img.mine.blobs {
			r.get("/v2/library/app/blobs/"+b.ref()).wants(t, http.StatusOK, b.bytes)
		}
		sleep(time.Minute)
		r.asked(r.hub)
		if n := r.counter("shoal_proxy_prefetches_total"); n != float64(len(img.mine.blobs)) {
			t.Errorf("%v prefetches for %d blobs", n, len(img.mine.blobs))
		}
	})
}

func TestPrefetchSharesFillsWithClients(t *testing.T) {
	bubble(t, options{run: true}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Trickle(64<<10, time.Second/10)})
		r.get("/v2/library/app/manifests/" + img.mine.manifest.ref())
		want := []string{"GET manifest " + img.mine.manifest.ref() + " -> 200"}
		var clients sync.WaitGroup
		for _, b := range img.mine.blobs {
			want = append(want, "GET blob "+b.ref()+" -> 200")
			sleep(time.Second)
			clients.Go(func() { r.get("/v2/library/app/blobs/"+b.ref()).wants(t, http.StatusOK, b.bytes) })
		}
		clients.Wait()
		r.asked(r.hub, want...)
	})
}

// An image of a manifest alone, such as one that was pulled by digest, is of
// the wanted platform for all that is known.
func TestPrefetchWithoutAnIndex(t *testing.T) {
	bubble(t, options{run: true}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		r.get("/v2/library/app/manifests/" + img.theirs.manifest.ref())
		sleep(time.Minute)
		if n := r.hub.Stats().Requests["GET blob"]; n != len(img.theirs.blobs) {
			t.Errorf("%d blobs were prefetched", n)
		}
	})
}

// slots is a Fetcher that never ends, and shows what was started.
type slots struct {
	mu      sync.Mutex
	started []digest.Digest
	err     error
}

func (s *slots) Fetch(ctx context.Context, d blob.Descriptor, _ blob.Source) (*blobcache.Fill, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.started, d.Digest) {
		s.started = append(s.started, d.Digest)
	}
	err := s.err
	s.mu.Unlock()
	defer s.mu.Lock()
	switch {
	case ctx.Err() != nil: // it is only to be started
	case err == nil:
		<-ctx.Done()
	default:
		sleep(time.Second)
		return nil, err
	}
	return nil, ctx.Err()
}

// tried returns what was started so far, in order.
func (s *slots) tried() []digest.Digest {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.started)
}

// layers returns n descriptors, different for every image.
func layers(image string, n int) []blob.Descriptor {
	var out []blob.Descriptor
	for i := range n {
		out = append(out, blob.Descriptor{Digest: digest.FromString(image + string(rune('a'+i))), Size: 1})
	}
	return out
}

func testPrefetch(t *testing.T, swarm *slots, test func(*prefetcher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cache, err := blobcache.Open(t.TempDir(), blobcache.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		p, err := New(Options{Cache: cache, Fetcher: swarm, Platforms: []ocispec.Platform{{OS: "linux", Architecture: "arm", Variant: "v7"}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		test(p.prefetch)
		cancel()
		running.Wait()
	})
}

func TestPrefetchIsBounded(t *testing.T) {
	swarm := &slots{}
	testPrefetch(t, swarm, func(f *prefetcher) {
		f.offer(image{manifest: digest.FromString("0"), blobs: layers("0", 10)})
		if n := len(swarm.tried()); n != mostFills {
			t.Errorf("%d fills of an image at once, want %d", n, mostFills)
		}
		for i := range 2 * imagesWaiting {
			name := string(rune('1' + i))
			for range 2 {
				f.offer(image{manifest: digest.FromString(name), blobs: layers(name, 10)})
			}
			synctest.Wait()
		}
		if n := len(swarm.tried()); n != mostFills*imagesAtOnce {
			t.Errorf("%d fills at once, want %d", n, mostFills*imagesAtOnce)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := len(f.busy); n != imagesAtOnce+imagesWaiting {
			t.Errorf("%d images are kept, want %d", n, imagesAtOnce+imagesWaiting)
		}
	})
}

func TestPrefetchOpensMoreOfSmallLayers(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		open     int
		openSize int64
		size     int64
		want     bool
	}{
		"the first":                {0, 0, 10 << 30, true},
		"as many as dockerd":       {2, 20 << 30, 10 << 30, true},
		"more large ones":          {3, 20 << 30, 10 << 30, false},
		"more small ones":          {7, 28 * mib, 4 * mib, true},
		"more than a link needs":   {7, 28 * mib, 4*mib + 1, false},
		"more than connections":    {8, 8, 1, false},
		"a large one behind small": {3, 3, 40 * mib, false},
	} {
		if got := mayOpen(c.open, c.openSize, c.size); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestPrefetchGoesInLayerOrder(t *testing.T) {
	swarm := &slots{err: blob.ErrUnavailable}
	testPrefetch(t, swarm, func(f *prefetcher) {
		want := layers("0", 20)
		f.offer(image{manifest: digest.FromString("0"), blobs: want})
		sleep(time.Minute)
		tried := swarm.tried()
		if len(tried) != len(want) {
			t.Fatalf("%d of %d were tried: one that fails must not hold up the rest", len(tried), len(want))
		}
		for i, d := range want {
			if tried[i] != d.Digest {
				t.Errorf("layer %d came as number %d", i, slices.Index(tried, d.Digest))
			}
		}
	})
}

// TestPrefetchKeepsFillsOpen as others end: the bytes of those count no more.
func TestPrefetchKeepsFillsOpen(t *testing.T) {
	swarm := &slots{err: blob.ErrUnavailable}
	testPrefetch(t, swarm, func(f *prefetcher) {
		want := layers("0", 20)
		for i := range want {
			want[i].Size = openBytes / 5
		}
		f.offer(image{manifest: digest.FromString("0"), blobs: want})
		sleep(3500 * time.Millisecond) // each takes a second to fail
		if n := len(swarm.tried()); n != len(want) {
			t.Errorf("%d of %d were tried", n, len(want))
		}
	})
}

func TestPrefetchStopsWithoutRoom(t *testing.T) {
	swarm := &slots{err: blob.ErrNoSpace}
	testPrefetch(t, swarm, func(f *prefetcher) {
		f.offer(image{manifest: digest.FromString("0"), blobs: layers("0", 20)})
		sleep(time.Minute)
		if n := len(swarm.tried()); n > mostFills+1 {
			t.Errorf("%d fills were tried in a cache without room", n)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.busy) != 0 {
			t.Error("the image cannot be offered again")
		}
	})
}

func TestPrefetchPlatforms(t *testing.T) {
	f := &prefetcher{
		wanted:   []ocispec.Platform{{OS: "linux", Architecture: "arm", Variant: "v7"}, {OS: "linux", Architecture: "amd64"}},
		unwanted: lru.New[digest.Digest, struct{}](10),
	}
	child := func(name string, p *ocispec.Platform) manifest.Child {
		return manifest.Child{Descriptor: blob.Descriptor{Digest: digest.FromString(name)}, Platform: p}
	}
	for name, c := range map[string]struct {
		platform *ocispec.Platform
		unwanted bool
	}{
		"amd64":       {&ocispec.Platform{OS: "linux", Architecture: "amd64"}, false},
		"amd64/v3":    {&ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}, false},
		"windows":     {&ocispec.Platform{OS: "windows", Architecture: "amd64"}, true},
		"arm/v7":      {&ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, false},
		"arm/v6":      {&ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, true},
		"attestation": {&ocispec.Platform{OS: "unknown", Architecture: "unknown"}, true},
		"not told":    {nil, false},
	} {
		f.learn([]manifest.Child{child(name, c.platform)})
		if got := f.unwanted.Contains(digest.FromString(name)); got != c.unwanted {
			t.Errorf("%s: unwanted %v", name, got)
		}
	}
	// The same manifest for a wanted platform, in another index.
	f.learn([]manifest.Child{child("windows", &ocispec.Platform{OS: "linux", Architecture: "amd64"})})
	if f.unwanted.Contains(digest.FromString("windows")) {
		t.Error("a manifest that serves a wanted platform too is unwanted")
	}
}

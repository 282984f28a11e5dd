package seeder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"shoal/blobcache"
	"shoal/blobcache/blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Mirror of images in memory, in front of a real cache.
type world struct {
	cache   *blobcache.Cache
	answers atomic.Int64 // how late, as a time.Duration

	mu        sync.Mutex
	manifests map[string]Manifest
	content   map[digest.Digest][]byte
	fail      map[string]error // of a name of an image, or a digest
	asked     []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cache, err := blobcache.Open(t.TempDir(), blobcache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close() })
	return &world{cache: cache, manifests: map[string]Manifest{}, content: map[digest.Digest][]byte{}, fail: map[string]error{}}
}

// blob makes content of a name.
func (w *world) blob(name string) blob.Descriptor {
	b := []byte(name)
	d := blob.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.content[d.Digest] = b
	return d
}

// add puts an image for one platform into a repository.
func (w *world) add(image string, blobs ...string) Manifest {
	m := Manifest{Descriptor: w.blob("manifest of " + strings.Join(blobs, " "))}
	for _, b := range blobs {
		m.Blobs = append(m.Blobs, w.blob(b))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.manifests[image] = m
	w.manifests[repository(image)+"@"+m.Digest.String()] = m
	return m
}

// index puts an index of images for platforms into a repository.
func (w *world) index(image string, byPlatform map[string]Manifest) {
	m := Manifest{Descriptor: w.blob("index of " + fmt.Sprint(len(byPlatform)))}
	for name, child := range byPlatform {
		ps, err := ParsePlatforms([]string{name})
		if err != nil {
			panic(err)
		}
		m.Children = append(m.Children, Child{child.Descriptor, &ps[0]})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.manifests[image] = m
}

func (w *world) lookup(what string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, what)
	return w.fail[what]
}

func (w *world) setFail(what string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail[what] = err
}

func (w *world) times(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, a := range w.asked {
		if a == what {
			n++
		}
	}
	return n
}

func (w *world) Manifest(_ context.Context, image string) (Manifest, error) {
	err := w.lookup(image)
	<-time.After(time.Duration(w.answers.Load()))
	if err != nil {
		return Manifest{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := w.manifests[image]
	if !ok {
		return Manifest{}, fmt.Errorf("%w: %s", blob.ErrNotFound, image)
	}
	return m, nil
}

func (w *world) Blobs(ctx context.Context, _ string, blobs []blob.Descriptor) error {
	for _, d := range blobs {
		if err := w.lookup(d.Digest.String()); err != nil {
			return err
		}
		w.mu.Lock()
		b := w.content[d.Digest]
		w.mu.Unlock()
		if err := w.cache.Put(ctx, d, bytes.NewReader(b)); err != nil {
			return err
		}
	}
	return nil
}

const app = "docker.io/library/app:v1"

func (w *world) pull(ctx context.Context, image string, platforms ...string) (Progress, error) {
	ps, err := ParsePlatforms(platforms)
	if err != nil {
		return Progress{}, err
	}
	p := NewPull(w, w.cache, image, ps)
	p.tries = tries
	err = p.Run(ctx)
	return p.Progress(), err
}

func TestPull(t *testing.T) {
	w := newWorld(t)
	amd, arm := w.add("docker.io/library/app:amd", "config", "one", "two", "two"), w.add("docker.io/library/app:arm", "config", "three")
	w.index(app, map[string]Manifest{"linux/amd64": amd, "linux/arm64/v8": arm})
	const all = int64(len("config") + len("one") + len("two"))
	for _, want := range []Progress{
		{Image: app, State: Fetched, Bytes: all, Done: all, Missing: all},
		{Image: app, State: Unchanged, Bytes: all, Done: all},
	} {
		got, err := w.pull(t.Context(), app, "linux/amd64")
		want.Digest = got.Digest
		if err != nil || got != want || got.Digest == "" {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if _, here := w.cache.Stat(arm.Blobs[1].Digest); here {
		t.Error("a layer of another platform was fetched")
	}
	if got, err := w.pull(t.Context(), app); err != nil || got.State != Fetched || got.Missing != int64(len("three")) {
		t.Errorf("all platforms: %+v, %v", got, err)
	}
	got, err := w.pull(t.Context(), app, "linux/s390x")
	if err == nil || got.State != Failed || !strings.Contains(got.Error, "the image is not for linux/s390x: it has linux/a") {
		t.Errorf("another platform: %+v, %v", got, err)
	}
}

func TestPullTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.add(app, "config", "one")
		for _, what := range []string{app, m.Blobs[1].Digest.String()} {
			w.setFail(what, fmt.Errorf("%w: a strike", blob.ErrUnavailable))
		}
		go func() {
			<-time.After(3 * time.Second)
			w.setFail(app, nil)
			<-time.After(10 * time.Second)
			w.setFail(m.Blobs[1].Digest.String(), nil)
		}()
		start := time.Now()
		got, err := w.pull(t.Context(), app)
		if took := time.Since(start); err != nil || got.State != Fetched || got.Error != "" || took != 21*time.Second { // 1 + 4 + 16
			t.Errorf("%+v, %v after %v", got, err, took)
		}
	})
}

func TestPullGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(app, "config")
		for _, c := range []struct {
			err   error
			times int
		}{{blob.ErrUnavailable, tries}, {blob.ErrNotFound, 1}, {blob.ErrDenied, 1}, {blob.ErrNoSpace, 1}, {errors.New("no manifest"), 1}} {
			w.setFail(app, c.err)
			before := w.times(app)
			got, err := w.pull(t.Context(), app)
			if n := w.times(app) - before; !errors.Is(err, c.err) || got.State != Failed || got.Error != c.err.Error() || n != c.times {
				t.Errorf("%v: %+v, %v after %d tries", c.err, got, err, n)
			}
		}
		w.setFail(app, blob.ErrUnavailable)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if got, err := w.pull(ctx, app); !errors.Is(err, context.DeadlineExceeded) || got.State != Failed {
			t.Errorf("given up: %+v, %v", got, err)
		}
	})
}

// What does not stay was not fetched.
func TestPullOfWhatDoesNotStay(t *testing.T) {
	w := newWorld(t)
	w.add(app, "config", "one")
	lost := lossy{w}
	p := NewPull(lost, w.cache, app, nil)
	if err := p.Run(t.Context()); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("%v", err)
	}
}

// lossy keeps nothing.
type lossy struct{ *world }

func (lossy) Blobs(context.Context, string, []blob.Descriptor) error { return nil }

func TestParsePlatforms(t *testing.T) {
	got, err := ParsePlatforms([]string{"linux/amd64", "linux/arm/v7"})
	if want := (Platforms{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm", Variant: "v7"}}); err != nil || got.String() != want.String() || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParsePlatforms([]string{"all"}); err != nil || got != nil {
		t.Errorf("all: %v, %v", got, err)
	}
	for _, bad := range [][]string{{"amd64"}, {"linux/"}, {"linux/arm/v7/x"}, {"all", "linux/amd64"}, slices.Repeat([]string{"a/b"}, maxPlatforms+1)} {
		if _, err := ParsePlatforms(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
	arm := Platforms{{OS: "linux", Architecture: "arm"}}
	if !arm.want(&ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}) || arm.want(nil) {
		t.Error("linux/arm is any variant, and not what names no platform")
	}
}

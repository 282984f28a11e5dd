package origin_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// TestRegistries reads one image from different implementations of a registry,
// over real connections.
func TestRegistries(t *testing.T) {
	source := origintest.Start(t, origintest.Options{})
	img := source.Registry.AddImage("lib/x", "v1", origintest.Image{Layers: origintest.Layers(10_000, 300_000)})
	withEverything := origintest.Start(t, origintest.Options{RedirectBlobs: true, Auth: &origintest.TokenAuth{}})
	withEverything.Registry.AddImage("lib/x", "v1", origintest.Image{Layers: origintest.Layers(10_000, 300_000)})

	other := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(other.Close)
	push(t, source.Host(), strings.TrimPrefix(other.URL, "http://"))

	for label, url := range map[string]string{
		"origintest":                  source.URL,
		"origintest, CDN and tokens":  withEverything.URL,
		"go-containerregistry's fake": other.URL,
	} {
		t.Run(label, func(t *testing.T) {
			c, err := origin.New(origin.Options{Registries: origin.Registries{"r.test": {Upstreams: []string{url}}}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			repo, err := c.Repository("r.test", "lib/x")
			if err != nil {
				t.Fatal(err)
			}
			contract(t, repo, img)
		})
	}
}

// push copies lib/x:v1 from one registry to another by go-containerregistry's
// client.
func push(t *testing.T, from, to string) {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	o := []remote.Option{remote.WithTransport(transport), remote.WithContext(t.Context())}
	src, err := name.ParseReference(from+"/lib/x:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := name.ParseReference(to+"/lib/x:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(src, o...)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(dst, index, o...); err != nil {
		t.Fatal(err)
	}
}

// contract holds for every registry that has img as lib/x:v1.
func contract(t *testing.T, repo *origin.Repository, img *origintest.Added) {
	t.Helper()
	ctx := t.Context()
	d, err := repo.Resolve(ctx, "v1", nil)
	if err != nil || d != img.Index {
		t.Fatalf("tag is %v, %v, want %v", d, err, img.Index)
	}
	if d, raw, err := repo.Manifest(ctx, "v1", nil); err != nil || d != img.Index || digest.FromBytes(raw) != d.Digest {
		t.Errorf("manifest of the tag is %v, %v, want %v", d, err, img.Index)
	}
	missing := blob.Descriptor{Digest: digest.FromString("missing"), Size: blob.UnknownSize}
	if _, err := repo.Resolve(ctx, "v2", nil); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("a missing tag: %v", err)
	}
	if _, err := repo.Stat(ctx, missing); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("a missing blob: %v", err)
	}
	if _, _, err := read(ctx, repo.Blobs(), missing, whole); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("a missing blob: %v", err)
	}
	resp, err := repo.Forward(ctx, http.MethodGet, "tags/list", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	tags, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !strings.Contains(string(tags), `"tags":["v1"]`) {
		t.Errorf("tags are %s, %v", tags, err)
	}
	for _, p := range img.Platforms {
		_, raw, err := read(ctx, repo.Manifests(nil), p.Manifest, whole)
		if err != nil || digest.FromString(raw) != p.Manifest.Digest {
			t.Errorf("manifest of %s: %v", p.Name, err)
		}
		for _, l := range append(p.Layers, p.Config) {
			readable(t, repo, l)
		}
	}
}

// readable checks one blob, whole and in parts.
func readable(t *testing.T, repo *origin.Repository, d blob.Descriptor) {
	t.Helper()
	ctx := t.Context()
	st, body, err := read(ctx, repo.Blobs(), d, whole)
	if err != nil || digest.FromString(body) != d.Digest || st.Size != d.Size {
		t.Fatalf("blob %v: %+v, %v", d, st, err)
	}
	if got, err := repo.Stat(ctx, d); err != nil || got != d {
		t.Errorf("blob is %v, %v, want %v", got, err, d)
	}
	for _, rng := range []blob.Range{{Length: 10}, {Offset: 100, Length: 1}, {Offset: d.Size - 50, Length: -1}} {
		st, part, err := read(ctx, repo.Blobs(), d, rng)
		if err != nil {
			t.Fatal(err)
		}
		if want := body[st.Range.Offset:st.Range.End(d.Size)]; part != want {
			t.Errorf("%v of %v is wrong", st.Range, d)
		}
		if st.Range.Offset > rng.Offset || st.Range.End(d.Size) < rng.End(d.Size) {
			t.Errorf("asked for %v, got %v", rng, st.Range)
		}
	}
}

package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"shoal/blobcache/blob"
	"shoal/proxy/origin/origintest"
)

// layersAtOnce is how many layers dockerd downloads at a time by default.
const layersAtOnce = 3

// client pulls the image as a container runtime does, and keeps nothing of it.
type client struct {
	base string
	http *http.Client

	read    atomic.Int64  // body bytes so far, all hashed
	elapsed time.Duration // of the pull; set when it has ended
	blobs   int           // whose digests were right; set when the pull has ended
}

func newClient(base string) *client {
	return &client{base: base, http: &http.Client{Transport: &http.Transport{}}}
}

// pull takes the index by its tag, then the platform's manifest, config and
// layers by digest. Every digest is checked, that of the index against what
// the origin was given.
func (c *client) pull(ctx context.Context, index digest.Digest, want origintest.Platform) error {
	defer c.http.CloseIdleConnections()
	begin := time.Now()
	defer func() { c.elapsed = time.Since(begin) }()
	var idx v1.Index
	if err := c.document(ctx, "manifests/"+tag, index, &idx); err != nil {
		return err
	}
	child, err := childOf(idx, want.Name)
	if err != nil {
		return err
	}
	var manifest v1.Manifest
	if err := c.document(ctx, "manifests/"+child.String(), child, &manifest); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(layersAtOnce)
	for _, d := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
		g.Go(func() error { return c.get(ctx, "blobs/"+d.Digest.String(), d.Digest, io.Discard) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	c.blobs = 3 + len(manifest.Layers)
	return nil
}

func childOf(idx v1.Index, platform string) (digest.Digest, error) {
	for _, m := range idx.Manifests {
		if m.Platform != nil && m.Platform.OS+"/"+m.Platform.Architecture == platform {
			return m.Digest, nil
		}
	}
	return "", fmt.Errorf("the index has no %s", platform)
}

// document gets and decodes a manifest.
func (c *client) document(ctx context.Context, path string, want digest.Digest, into any) error {
	w := &limitedBuffer{most: blob.MaxManifestSize}
	if err := c.get(ctx, path, want, w); err != nil {
		return err
	}
	if err := json.Unmarshal(w.text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// get reads a whole body, counts it, passes it on to w and checks its digest.
func (c *client) get(ctx context.Context, path string, want digest.Digest, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v2/"+repository+"/"+path, nil)
	if err != nil {
		return err
	}
	req.Header.Add("Accept", v1.MediaTypeImageIndex)
	req.Header.Add("Accept", v1.MediaTypeImageManifest)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	hash := want.Algorithm().Digester()
	if _, err := io.Copy(io.MultiWriter(hash.Hash(), counter{&c.read}, w), resp.Body); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	if got := hash.Digest(); got != want {
		return fmt.Errorf("GET %s: %w: got %s, want %s", path, ErrWrongDigest, got, want)
	}
	return nil
}

// counter counts what is written to it.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// limitedBuffer keeps a small document.
type limitedBuffer struct {
	text []byte
	most int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if len(b.text)+len(p) > b.most {
		return 0, blob.ErrTooLarge
	}
	b.text = append(b.text, p...)
	return len(p), nil
}

//go:build linux

package program

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"

	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// parallelBlobs is how many blobs dockerd and containerd ask for at once.
const parallelBlobs = 4

// Download takes the image from the registry at base, from h, with the
// requests that dockerd makes, checks every digest, and keeps nothing: a pull
// without an engine's unpacking.
func Download(ctx context.Context, h *testhost.Host, base string, img *Image) error {
	client := h.Client(0)
	repository := base + "/v2/" + img.Repository
	if err := download(ctx, client, http.MethodHead, repository+"/manifests/"+img.Tag, nil); err != nil {
		return err
	}
	for _, digest := range []v1.Hash{img.Index, img.Manifest.Digest} {
		if err := download(ctx, client, http.MethodGet, repository+"/manifests/"+digest.String(), &digest); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelBlobs)
	for _, b := range img.Blobs() {
		group.Go(func() error {
			return download(ctx, client, http.MethodGet, repository+"/blobs/"+b.Digest.String(), &b.Digest)
		})
	}
	return group.Wait()
}

// Resolve asks the registry at base, from h, what the image's tag means.
func Resolve(ctx context.Context, h *testhost.Host, base string, img *Image) error {
	return download(ctx, h.Client(0), http.MethodHead, base+"/v2/"+img.Repository+"/manifests/"+img.Tag, nil)
}

// DownloadBlob takes one blob from the registry at base, from h, checks its
// digest, and keeps nothing.
func DownloadBlob(ctx context.Context, h *testhost.Host, base, repository string, b v1.Descriptor) error {
	return download(ctx, h.Client(0), http.MethodGet, base+"/v2/"+repository+"/blobs/"+b.Digest.String(), &b.Digest)
}

// download requests url and compares the body with the digest, if there is one.
func download(ctx context.Context, client *http.Client, method, url string, digest *v1.Hash) error {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or given up
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, url, resp.Status)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, resp.Body); err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); digest != nil && sum != digest.Hex {
		return fmt.Errorf("%s %s: the body's digest is %s", method, url, sum)
	}
	return nil
}

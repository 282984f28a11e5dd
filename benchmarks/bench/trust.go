//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// measureTrust measures what a client gets of a blob that only a seeder holds,
// through a new node that trusts the seeder's key, through one that does not, and
// from nginx on the seeder's machine, which proves nothing.
func measureTrust(ctx context.Context, b *bench) error {
	const size = 1 << 30
	key := filepath.Join(b.dir, "seeder.key")
	public, err := b.machines[0].Run(ctx, testhost.Command{Path: program.Shoal(b.dir), Args: []string{"key", "new", key}})
	if err != nil {
		return err
	}
	seeder, blob, err := b.hold(ctx, 9, size, "--signing-key", key)
	if err != nil {
		return err
	}
	nginx, err := b.serve(ctx, seeder.Host, seeder.Host.Addr, seeder.BlobFile(blob.Digest.Hex))
	if err != nil {
		return err
	}
	through := func(args ...string) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) { return b.streamThrough(ctx, seeder, blob, args...) }
	}
	got, err := b.compare(ctx,
		contender{"nginx", func(ctx context.Context) (sample, error) { return stream(ctx, b.machines[1], nginx+nginxPath, size) }},
		contender{"trusts", through("--trusted-keys", strings.TrimSpace(public))},
		contender{"does not", through()},
	)
	if err != nil {
		return err
	}
	const what = "1 GiB at 1 Gbit/s from a seeder, through a node that "
	b.add("1 GiB at 1 Gbit/s from nginx", "MB/s", got["nginx"]["MB/s"])
	b.add(what+"trusts its key", "MB/s", got["trusts"]["MB/s"])
	b.add(what+"trusts its key, by nginx", "", ratios(got["trusts"]["MB/s"], got["nginx"]["MB/s"]), atLeast(0.9))
	b.add(what+"trusts its key, first byte of the body", "ms", got["trusts"]["ms"], atMost(200))
	b.add(what+"trusts its key, requests for it at the origin", "", got["trusts"]["asked"], atMost(0))
	b.add(what+"does not, first byte of the body", "ms", got["does not"]["ms"])
	b.add(what+"does not", "MB/s", got["does not"]["MB/s"])
	return b.drop(seeder)
}

// streamThrough gets the blob through a new node that has joined the seeder.
func (b *bench) streamThrough(ctx context.Context, seeder *program.Node, blob v1.Descriptor, args ...string) (sample, error) {
	before := len(b.origin.Accesses().Blobs())
	n, err := b.nodeWith(ctx, 1, b.origin.URL(), args, seeder)
	if err != nil {
		return nil, err
	}
	if err := rig.WarmMemory(ctx, blob.Size+128<<20); err != nil {
		return nil, err
	}
	got, err := stream(ctx, n.Host, blobURL(blob), blob.Size)
	if err != nil {
		return nil, err
	}
	got["asked"] = float64(len(b.origin.Accesses().Blobs()) - before)
	return got, errors.Join(whole(ctx, n, blob), b.drop(n))
}

// stream gets what is at url, from h, and returns when the first byte of the body
// came and how fast all of it.
func stream(ctx context.Context, h *testhost.Host, url string, size int64) (sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	resp, err := h.Client(0).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var one [1]byte
	if _, err := io.ReadFull(resp.Body, one[:]); err != nil {
		return nil, err
	}
	first := time.Since(started)
	// Without the ReaderFrom that would choose smaller blocks.
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 256<<10))
	if err == nil && n+1 != size {
		err = fmt.Errorf("%d bytes of %s, not %d", n+1, url, size)
	}
	return sample{"ms": 1e3 * first.Seconds(), "MB/s": float64(size) / 1e6 / time.Since(started).Seconds()}, err
}

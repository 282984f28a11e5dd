//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	blobRepository = "bench/blob"
	nginxPort      = 8080
	nginxPath      = "/file"
)

// path is where a client asks a registry for a blob.
func path(b v1.Descriptor) string { return "/v2/" + blobRepository + "/blobs/" + b.Digest.String() }

// blobURL is where a client asks the node on its machine for a blob.
func blobURL(b v1.Descriptor) string { return program.MirrorURL + path(b) }

// hold starts a node on machine 0 and has it fetch a blob of random bytes,
// which the seed makes another one. args are further ones of the node.
func (b *bench) hold(ctx context.Context, seed byte, size int64, args ...string) (*program.Node, v1.Descriptor, error) {
	blob, err := b.origin.PutBlob(blobRepository, seed, size)
	if err != nil {
		return nil, blob, err
	}
	n, err := b.nodeWith(ctx, 0, b.origin.URL(), args)
	if err != nil {
		return nil, blob, err
	}
	return n, blob, b.fast(func() error {
		_, err := curl(ctx, n.Host, blobURL(blob), size)
		return errors.Join(err, whole(ctx, n, blob))
	})
}

// serve starts the measurement's nginx on h: it serves file at nginxPath below
// base, and ends with the measurement.
func (b *bench) serve(ctx context.Context, h *testhost.Host, addr netip.Addr, file string) (base string, err error) {
	n := rig.Nginx{
		Dir: filepath.Join(h.Dir, "nginx"), Listen: netip.AddrPortFrom(addr, nginxPort), Workers: "auto", HTTP: "access_log off;",
		Server: fmt.Sprintf("\t\tlocation = %s { alias %s; default_type application/octet-stream; }\n", nginxPath, file), Ready: nginxPath,
	}
	b.nginx, err = n.Start(ctx, h)
	return n.URL(), err
}

// loopback is where clients on the same machine ask.
func loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// curl gets url from h and returns how long that took. Anything but all size
// bytes is an error.
func curl(ctx context.Context, h *testhost.Host, url string, size int64) (time.Duration, error) {
	path, err := testhost.Program("curl")
	if err != nil {
		return 0, err
	}
	out, err := h.Run(ctx, testhost.Command{Path: path, Args: []string{
		"--silent", "--show-error", "--fail", "--output", "/dev/null", "--write-out", "%{time_total} %{size_download}", url,
	}})
	if err != nil {
		return 0, err
	}
	var seconds float64
	var got int64
	if _, err := fmt.Sscan(out, &seconds, &got); err != nil {
		return 0, fmt.Errorf("curl said %q: %w", out, err)
	}
	if got != size {
		return 0, fmt.Errorf("curl got %d bytes of %s, not %d", got, url, size)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// whole waits until the node has the blob on its disk.
func whole(ctx context.Context, n *program.Node, b v1.Descriptor) error {
	return testhost.Until(ctx, time.Minute, func(context.Context) error {
		if !n.HasBlob(b.Digest.Hex) {
			return errors.New("the blob is not whole")
		}
		return nil
	})
}

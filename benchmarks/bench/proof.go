//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// measureProof has a cache prove a blob again whose file seems to have changed,
// and hashes the same file from front to back.
func measureProof(ctx context.Context, b *bench) error {
	const size = 512 << 20
	dir := filepath.Join(b.dir, "proof")
	c, err := blobcache.Open(dir, blobcache.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := putRandom(ctx, c, size)
	if err != nil {
		return err
	}
	file := blobFile(dir, d)
	contenders := []contender{
		{"proof of a cached blob", timing(size, func(ctx context.Context) error {
			now := time.Now()
			if err := os.Chtimes(file, now, now); err != nil { // or it would count as proven
				return err
			}
			proven, err := c.Get(ctx, d.Digest)
			if err != nil {
				return err
			}
			return proven.Close()
		})},
		{"SHA-256, front to back", timing(size, func(context.Context) error { return hash(file, d) })},
	}
	got, err := b.compare(ctx, contenders...)
	if err != nil {
		return err
	}
	for _, c := range contenders {
		b.add("512 MiB: "+c.name, "MB/s", got[c.name]["MB/s"])
	}
	b.add("512 MiB: proof by SHA-256", "", ratios(got[contenders[0].name]["MB/s"], got[contenders[1].name]["MB/s"]), atLeast(1.8))
	return nil
}

// timing returns a run that does f with size bytes.
func timing(size int64, f func(context.Context) error) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		started := time.Now()
		err := f(ctx)
		return sample{"MB/s": float64(size) / 1e6 / time.Since(started).Seconds()}, err
	}
}

// hash compares a file with a blob as any program does.
func hash(file string, d blob.Descriptor) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	// Without the ReaderFrom and WriterTo that would choose smaller blocks.
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{f}, make([]byte, blob.PieceSize)); err != nil {
		return err
	}
	if [sha256.Size]byte(sum.Sum(nil)) != d.Hash() {
		return fmt.Errorf("%s: %w", file, blob.ErrCorrupt)
	}
	return nil
}

// putRandom puts a blob of random bytes into a cache.
func putRandom(ctx context.Context, c *blobcache.Cache, size int64) (blob.Descriptor, error) {
	content := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), size) }
	sum, err := digest.FromReader(content())
	if err != nil {
		return blob.Descriptor{}, err
	}
	d := blob.Descriptor{Digest: sum, Size: size}
	return d, c.Put(ctx, d, content())
}

// blobFile returns where a cache in dir has a blob.
func blobFile(dir string, d blob.Descriptor) string {
	return filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded())
}

// ownCPU returns the processor time that this process has used.
func ownCPU() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

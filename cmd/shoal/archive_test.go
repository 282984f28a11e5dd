package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
	"shoal/cmd/shoal/internal/config"
)

// startAlone starts a node without a registry.
func startAlone(tb testing.TB) *service {
	tb.Helper()
	return startService(tb, config.Config{
		DataDir: tb.TempDir(), Mirror: "127.0.0.1:0", Admin: "127.0.0.1:0", Offline: true,
		Swarm: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")},
	})
}

// putImage puts an image with layers of these sizes into a node's cache, as what
// a registry gave for name.
func putImage(tb testing.TB, s *service, name string, sizes ...int64) digest.Digest {
	tb.Helper()
	put := func(mediaType string, size int64, seed byte, data []byte) ocispec.Descriptor {
		tb.Helper()
		d := blob.Descriptor{Size: size, MediaType: mediaType}
		source := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size) }
		if data != nil {
			source = func() io.Reader { return bytes.NewReader(data) }
		}
		sum := digest.Canonical.Digester()
		if _, err := io.Copy(sum.Hash(), source()); err != nil {
			tb.Fatal(err)
		}
		d.Digest = sum.Digest()
		if err := s.cache.Put(tb.Context(), d, source()); err != nil {
			tb.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: mediaType, Digest: d.Digest, Size: size}
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	m.Config = put(ocispec.MediaTypeImageConfig, int64(len(config)), 0, config)
	for i, size := range sizes {
		m.Layers = append(m.Layers, put(ocispec.MediaTypeImageLayer, size, byte(i+1), nil))
	}
	body, err := json.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	root := put(m.MediaType, int64(len(body)), 0, body)
	if _, _, err := s.proxy.Stored(tb.Context(), root.Digest); err != nil {
		tb.Fatal(err)
	}
	s.cache.KeepName(name, blob.Descriptor{Digest: root.Digest, Size: root.Size, MediaType: root.MediaType})
	return root.Digest
}

// shoal runs a verb in this process.
func shoal(tb testing.TB, words ...string) (code int, said string) {
	tb.Helper()
	var out bytes.Buffer
	code = run(environment{ctx: tb.Context(), stdout: &out, stderr: &out}, words)
	return code, out.String()
}

// BenchmarkArchive compares export and import of an image of 1 GB with a copy of
// the file, and with one that is on the disk when it ends, as what is imported is.
func BenchmarkArchive(b *testing.B) {
	const gb = 1_000_000_000
	from, to := startAlone(b), startAlone(b)
	root := putImage(b, from, "docker.io/library/app:1", gb/4, gb/4, gb/4, gb/4)
	dir := b.TempDir()
	file, other := filepath.Join(dir, "app.tar"), filepath.Join(dir, "copy.tar")
	must := func(words ...string) {
		b.Helper()
		if code, said := shoal(b, words...); code != exitOK {
			b.Fatal(said)
		}
	}
	export := func() { must("cache", "export", "--admin", from.admin.addr(), "app:1", "-o", file) }
	command := func(name string, args ...string) func() {
		return func() {
			b.Helper()
			if out, err := exec.CommandContext(b.Context(), name, args...).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	}
	export()
	spent := map[string]time.Duration{}
	for b.Loop() { // in turns, because the machine is not always the same
		for _, c := range []struct {
			name  string
			clean func()
			do    func()
		}{
			{"export", func() { _ = os.Remove(file) }, export},
			{"cp", func() { _ = os.Remove(other) }, command("cp", file, other)},
			{"import", func() {
				if _, ok := to.cache.Stat(root); ok {
					must("cache", "rm", "--admin", to.admin.addr(), "app:1")
				}
			}, func() { must("cache", "import", "--admin", to.admin.addr(), file) }},
			{"cp+sync", func() { _ = os.Remove(other) }, command("sh", "-c", fmt.Sprintf("cp %s %s && sync %[2]s", file, other))},
		} {
			c.clean()
			command("sync")()
			start := time.Now()
			c.do()
			spent[c.name] += time.Since(start)
		}
	}
	for name, d := range spent {
		b.ReportMetric(gb/1e6*float64(b.N)/d.Seconds(), name+"-MB/s")
	}
}

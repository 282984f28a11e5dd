package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// A blob that an archive has twice is proven twice and comes once, also while the
// first is on its way; if one of the two is wrong nothing comes.
func TestImportOfABlobThatIsThereTwice(t *testing.T) {
	from, to := startAlone(t), startAlone(t)
	root := putImage(t, from, "docker.io/library/app:1", 5<<20)
	file := filepath.Join(t.TempDir(), "app.tar")
	if code, said := shoal(t, "cache", "export", "--admin", from.admin.addr(), "app:1", "-o", file); code != exitOK {
		t.Fatal(said)
	}
	for _, wrong := range []bool{true, false} {
		twice := doubled(t, file, wrong)
		code, said := shoal(t, "cache", "import", "--admin", to.admin.addr(), twice)
		_, here := to.cache.Stat(root)
		switch {
		case wrong && (code == exitOK || here || !strings.Contains(said, "content does not match the digest")):
			t.Errorf("with a wrong copy: %d, %t, %s", code, here, said)
		case !wrong && (code != exitOK || !here || !strings.Contains(said, "1 image, 3 blobs")):
			t.Errorf("%d, %t, %s", code, here, said)
		}
	}
}

// Of a file blobs come several at a time. If one is wrong, that is what is said,
// whatever becomes of the others, and none stays.
func TestImportOfAWrongBlobAmongOthers(t *testing.T) {
	from, to := startAlone(t), startAlone(t)
	putImage(t, from, "docker.io/library/app:1", 9<<20, 8<<20, 7<<20, 6<<20, 5<<20)
	file := filepath.Join(t.TempDir(), "app.tar")
	if code, said := shoal(t, "cache", "export", "--admin", from.admin.addr(), "app:1", "-o", file); code != exitOK {
		t.Fatal(said)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Replace(whole, []byte(`"amd64","os"`), []byte(`"arm64","os"`), 1)
	if err := os.WriteFile(file, wrong, 0o600); err != nil {
		t.Fatal(err)
	}
	code, said := shoal(t, "cache", "import", "--admin", to.admin.addr(), file)
	if code == exitOK || !strings.Contains(said, "content does not match the digest") {
		t.Errorf("%d, %s", code, said)
	}
	if stay := to.cache.Blobs(); len(stay) != 0 {
		t.Errorf("stay: %v", stay)
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := shoal(t, "cache", "import", "--admin", to.admin.addr(), file); code != exitOK || !strings.Contains(said, "1 image, 7 blobs") {
		t.Errorf("%d, %s", code, said)
	}
}

// doubled returns a copy of an archive that has each blob twice, the second of
// them wrong if it is to be.
func doubled(t *testing.T, file string, wrong bool) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out bytes.Buffer
	r, w := tar.NewReader(f), tar.NewWriter(&out)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		body, errBody := io.ReadAll(r)
		if err := errors.Join(err, errBody); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			err := w.WriteHeader(h)
			if err == nil {
				_, err = w.Write(body)
			}
			if err != nil {
				t.Fatal(err)
			}
			if wrong && strings.HasPrefix(h.Name, "blobs/") {
				body[len(body)-1] ^= 1
			}
		}
	}
	path := filepath.Join(t.TempDir(), "twice.tar")
	if err := errors.Join(w.Close(), os.WriteFile(path, out.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// BenchmarkArchive compares export and import of an image of 1 GB with a copy of
// the file, with one that is on the disk when it ends, as what is imported is, and
// with one beside which another processor hashes the file: whoever imports must do
// both. Medians of the rates and of the ratios of the rounds.
func BenchmarkArchive(b *testing.B) {
	const gb = 1_000_000_000
	from, to := startAlone(b), startAlone(b)
	root := putImage(b, from, "docker.io/library/app:1", gb/4, gb/4, gb/4, gb/4)
	dir := b.TempDir()
	file, other, spare := filepath.Join(dir, "app.tar"), filepath.Join(dir, "copy.tar"), filepath.Join(dir, "spare")
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
	hash := func() {
		f, err := os.Open(file)
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{sha256.New()}, struct{ io.Reader }{f}, make([]byte, 64<<10))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			b.Error(err)
		}
	}
	export()
	rates := map[string][]float64{}
	for b.Loop() { // in turns, because the machine is not always the same
		for _, c := range []struct {
			name  string
			clean func()
			do    func()
		}{
			{"export", func() { _ = os.Remove(file) }, export},
			{"cp", func() { _ = os.Remove(other) }, command("cp", file, other)},
			{"sha256", func() {}, hash},
			{"cp beside sha256", func() { _ = os.Remove(other) }, func() {
				var both sync.WaitGroup
				both.Go(hash)
				command("cp", file, other)()
				both.Wait()
			}},
			{"import", func() {
				if _, ok := to.cache.Stat(root); ok {
					must("cache", "rm", "--admin", to.admin.addr(), "app:1")
				}
			}, func() { must("cache", "import", "--admin", to.admin.addr(), file) }},
			{"cp+sync", func() { _ = os.Remove(other) }, command("sh", "-c", fmt.Sprintf("cp %s %s && sync %[2]s", file, other))},
		} {
			// The first use of memory that the host of a virtual machine had taken
			// back is slow, whoever writes.
			command("sh", "-c", fmt.Sprintf("cp %s %s && rm %[2]s", file, spare))()
			c.clean()
			command("sync")()
			start := time.Now()
			c.do()
			rates[c.name] = append(rates[c.name], gb/1e6/time.Since(start).Seconds())
		}
		n := len(rates["cp"]) - 1
		for _, name := range []string{"export", "import"} {
			rates[name+"/cp"] = append(rates[name+"/cp"], rates[name][n]/rates["cp"][n])
		}
		for _, name := range []string{"cp+sync", "cp beside sha256"} {
			rates["import/"+name] = append(rates["import/"+name], rates["import"][n]/rates[name][n])
		}
	}
	for name, all := range rates {
		name = strings.ReplaceAll(name, " ", "-")
		if !strings.Contains(name, "/") {
			name += "-MB/s"
		}
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], name)
	}
}

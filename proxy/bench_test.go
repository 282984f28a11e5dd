package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/manifest"
	"shoal/proxy/origin"
	"shoal/proxy/pull"
)

// benchServer serves a cache that holds content, on loopback, and returns the
// path of each of it by name.
func benchServer(tb testing.TB, content ...[]byte) (handler http.Handler, digests []digest.Digest) {
	tb.Helper()
	c, err := blobcache.Open(tb.TempDir(), blobcache.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	for _, data := range content {
		d := blob.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
		if err := c.Put(tb.Context(), d, bytes.NewReader(data)); err != nil {
			tb.Fatal(err)
		}
		digests = append(digests, d.Digest)
	}
	upstream, err := origin.New(origin.Options{Registries: origin.Registries{"docker.io": {
		Upstreams: []string{"http://hub.test"}, MaxAge: []origin.TagAge{{Pattern: "library/*:*", Age: time.Hour}},
	}}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(upstream.Close)
	p, err := New(Options{Cache: c, Origin: upstream})
	if err != nil {
		tb.Fatal(err)
	}
	return p, digests
}

// plainWriter takes an answer as net/http does, by its headers, and throws the
// body away.
type plainWriter struct {
	header http.Header
	status int
	bytes  int64
}

func (w *plainWriter) Header() http.Header    { return w.header }
func (w *plainWriter) WriteHeader(status int) { w.status = status }
func (w *plainWriter) Write(p []byte) (int, error) {
	w.bytes += int64(len(p))
	return len(p), nil
}

// SetWriteDeadline does what it costs nobody to do.
func (w *plainWriter) SetWriteDeadline(time.Time) error { return nil }

// ReadFrom stands for sendfile, which does not read either.
func (w *plainWriter) ReadFrom(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		return 0, fmt.Errorf("a body from a %T cannot be sent by sendfile", r)
	}
	n := limited.N
	limited.N = 0
	w.bytes += n
	return n, nil
}

// benchmark lets p answer the same request again and again.
func benchmark(b *testing.B, p http.Handler, method, path string, body int64) {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), method, path, nil)
	if err != nil {
		b.Fatal(err)
	}
	r.RemoteAddr = "127.0.0.1:1"
	r.Header.Set("Accept", "*/*")
	w := &plainWriter{}
	b.ReportAllocs()
	for b.Loop() {
		w.header, w.status, w.bytes = http.Header{}, 0, 0
		p.ServeHTTP(w, r)
		if w.status != http.StatusOK || w.bytes != body {
			b.Fatalf("status %d, %d bytes", w.status, w.bytes)
		}
	}
}

// BenchmarkCachedBlob is what a blob of 64 MiB costs beside sendfile itself.
func BenchmarkCachedBlob(b *testing.B) {
	data := make([]byte, 64<<20)
	p, digests := benchServer(b, data)
	benchmark(b, p, http.MethodGet, "/v2/library/x/blobs/"+digests[0].String(), int64(len(data)))
}

// benchManifest is an image of twenty layers.
func benchManifest() []byte {
	layer := func(i int) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"%s","size":%d}`, digest.FromString(fmt.Sprint(i)), i)
	}
	var layers []string
	for i := range 20 {
		layers = append(layers, layer(i+1))
	}
	return []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + layer(0) + `,"layers":[` + strings.Join(layers, ",") + `]}`)
}

// BenchmarkManifest asks for a cached manifest by its digest and by a tag, of which
// it is known what it is, with requests recorded, as a node does.
func BenchmarkManifest(b *testing.B) {
	m := benchManifest()
	handler, digests := benchServer(b, m)
	p := handler.(*Proxy)
	p.pulls = pull.NewRecorder(func(pull.Report) {})
	tag := blob.Descriptor{Digest: digests[0], Size: int64(len(m)), MediaType: ocispec.MediaTypeImageManifest}
	p.tags.keep(tagKey{tag: "docker.io/library/x:v1", accept: newAccepts(manifest.Accept()).key}, 0, tagAnswer{desc: tag, at: time.Now()})
	const path = "/v2/library/x/manifests/"
	b.Run("HEAD/digest", func(b *testing.B) { benchmark(b, p, http.MethodHead, path+digests[0].String(), 0) })
	b.Run("HEAD/tag", func(b *testing.B) { benchmark(b, p, http.MethodHead, path+"v1", 0) })
	b.Run("GET", func(b *testing.B) { benchmark(b, p, http.MethodGet, path+digests[0].String(), int64(len(m))) })
}

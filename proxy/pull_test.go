package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/origin/origintest"
)

// The whole of a pull, as three runtimes do it, and what the upstream sees of
// the first one and of the next.
func TestPulls(t *testing.T) {
	for name, c := range map[string]struct {
		steps func(img testImage) []string // "METHOD path"
		again []string                     // upstream requests of a second pull a while later
	}{
		"dockerd": {
			steps: func(img testImage) []string {
				return []string{
					"GET /v2/", "HEAD /v2/library/app/manifests/v1",
					"GET /v2/library/app/manifests/" + img.index.ref(), "GET /v2/library/app/manifests/" + img.mine.manifest.ref(),
				}
			},
			again: []string{"HEAD manifest v1 -> 200"},
		},
		"containerd": {
			steps: func(img testImage) []string {
				return []string{
					"HEAD /v2/library/app/manifests/v1?ns=docker.io",
					"GET /v2/library/app/manifests/" + img.index.ref() + "?ns=docker.io",
					"GET /v2/library/app/manifests/" + img.mine.manifest.ref() + "?ns=docker.io",
				}
			},
			again: []string{"HEAD manifest v1 -> 200"},
		},
		"podman": {
			steps: func(img testImage) []string {
				return []string{"GET /v2/", "GET /v2/docker.io/library/app/manifests/v1", "GET /v2/docker.io/library/app/manifests/" + img.mine.manifest.ref()}
			},
			again: []string{"HEAD manifest v1 -> 200"},
		},
		"by digest": {
			steps: func(img testImage) []string {
				return []string{
					"HEAD /v2/library/app/manifests/" + img.index.ref(), "GET /v2/library/app/manifests/" + img.index.ref(),
					"GET /v2/library/app/manifests/" + img.mine.manifest.ref(),
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{run: true}, func(r *rig) {
				img := addImage(r.t, r.hub, "library/app", "v1")
				pull := func() {
					for _, step := range c.steps(img) {
						method, path, _ := strings.Cut(step, " ")
						if a := r.do(method, path); a.StatusCode != http.StatusOK {
							r.t.Errorf("%s: %d", step, a.StatusCode)
						}
					}
					for _, b := range img.mine.blobs {
						r.get("/v2/library/app/blobs/"+b.ref()).wants(r.t, http.StatusOK, b.bytes)
					}
				}
				pull()
				want := []string{"GET manifest " + img.index.ref() + " -> 200", "GET manifest " + img.mine.manifest.ref() + " -> 200"}
				for _, b := range img.mine.blobs {
					want = append(want, "GET blob "+b.ref()+" -> 200")
				}
				r.asked(r.hub, append(want, c.again...)...)
				sleep(time.Hour)
				pull()
				r.asked(r.hub, c.again...)
			})
		})
	}
}

func TestManyClientsOfOneTag(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		img := addImage(r.t, r.hub, "library/app", "v1")
		r.hub.Fault(origintest.Fault{Effect: origintest.Delay(100 * time.Millisecond)})
		var clients sync.WaitGroup
		for i := range 25 {
			path := []string{"/v2/library/app/manifests/v1", "/v2/app/manifests/v1?ns=docker.io", "/v2/docker.io/app/manifests/v1"}[i%3]
			clients.Go(func() { r.get(path).wants(r.t, http.StatusOK, img.index.bytes) })
		}
		clients.Wait()
		r.asked(r.hub, "HEAD manifest v1 -> 200", "GET manifest "+img.index.ref()+" -> 200")
	})
}

// The registry is named by the path or by ns, and the same name means something
// else at each.
func TestRegistries(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		hub := addImage(r.t, r.hub, "library/app", "v1").index
		other := addManifest(r.t, r.other, "library/app", "v1", ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex})
		for path, want := range map[string]thing{
			"/v2/library/app/manifests/v1":                  hub,
			"/v2/app/manifests/v1":                          hub,
			"/v2/docker.io/app/manifests/v1":                hub,
			"/v2/library/app/manifests/v1?ns=docker.io":     hub,
			"/v2/library/app/manifests/v1?ns=other.example": other,
			"/v2/other.example/library/app/manifests/v1":    other,
		} {
			r.get(path).wants(r.t, http.StatusOK, want.bytes)
		}
	})
}

func TestOneFillManyReaders(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		b := addBlob(r.hub, "library/app", random(1, 4*blob.PieceSize))
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Trickle(64<<10, time.Second/100)})
		path := "/v2/library/app/blobs/" + b.ref()
		first := r.open(path)
		var clients sync.WaitGroup
		for i := range 5 {
			clients.Go(func() {
				off := i * 500000
				r.get(path, fmt.Sprintf("Range: bytes=%d-", off)).wants(r.t, http.StatusPartialContent, b.bytes[off:])
			})
		}
		first.Body.Close() // who started it leaves
		clients.Wait()
		r.asked(r.hub, "GET blob "+b.ref()+" -> 200")
	})
}

func TestHeadOfBlobsIsCheap(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		img := addImage(r.t, r.hub, "library/app", "v1")
		known, unknown := img.mine.blobs[1], img.theirs.blobs[1]
		r.get("/v2/library/app/manifests/" + img.mine.manifest.ref())
		r.hub.ResetStats()
		for _, b := range []thing{known, unknown} {
			a := r.do(http.MethodHead, "/v2/library/app/blobs/"+b.ref(), "Range: bytes=5-")
			a.wants(r.t, http.StatusOK, nil)
			if a.ContentLength != b.Size {
				r.t.Errorf("Content-Length %d, want %d", a.ContentLength, b.Size)
			}
		}
		r.asked(r.hub, "HEAD blob "+unknown.ref()+" -> 200")
		// One that is on its way.
		r.hub.Fault(origintest.Fault{Method: http.MethodGet, Effect: origintest.Trickle(64<<10, time.Second)})
		resp := r.open("/v2/library/app/blobs/" + unknown.ref())
		defer resp.Body.Close()
		r.hub.ResetStats()
		r.do(http.MethodHead, "/v2/library/app/blobs/"+unknown.ref()).wants(r.t, http.StatusOK, nil)
		r.asked(r.hub)
	})
}

// peers is a swarm that has some contents, and needs no origin.
type peers map[digest.Digest][]byte

func (p peers) fetcher(cache *blobcache.Cache) Fetcher { return fromPeers{p, cache} }

type fromPeers struct {
	has   peers
	cache *blobcache.Cache
}

func (f fromPeers) Fetch(_ context.Context, d blob.Descriptor, _ blob.Source) (*blobcache.Fill, error) {
	if fill, ok := f.cache.Running(d.Digest); ok {
		return fill, nil
	}
	if here, ok := f.cache.Stat(d.Digest); ok {
		fill, _, err := f.cache.Fill(here)
		return fill, err
	}
	data, ok := f.has[d.Digest]
	if !ok {
		return nil, blob.ErrNotFound
	}
	d.Size = int64(len(data))
	fill, started, err := f.cache.Fill(d)
	if err != nil || !started {
		return fill, err
	}
	for i := range blob.PieceCount(d.Size) {
		r := blob.Piece(i, d.Size)
		if err := fill.WritePiece(i, data[r.Offset:r.Offset+r.Length], blobcache.Provenance{Peer: "p"}); err != nil {
			return nil, err
		}
	}
	return fill, nil
}

// With the origin down, a pull by digest is served by the swarm, and then by
// the cache; a media type never comes from a peer, so the manifest's own counts.
func TestOriginDownPullByDigest(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		img := addImage(r.t, r.hub, "library/app", "v1")
		swarm := peers{}
		for _, d := range append(img.mine.blobs, img.index, img.mine.manifest) {
			swarm[d.Digest] = d.bytes
		}
		r.proxy.fetcher = swarm.fetcher(r.cache)
		r.hub.Fault(origintest.Fault{Effect: origintest.Drop()})
		for range 2 {
			for _, m := range []thing{img.index, img.mine.manifest} {
				a := r.get("/v2/library/app/manifests/" + m.ref())
				a.wants(r.t, http.StatusOK, m.bytes)
				if a.Header.Get("Content-Type") != m.MediaType {
					r.t.Errorf("Content-Type %q, want %q", a.Header.Get("Content-Type"), m.MediaType)
				}
			}
			for _, b := range img.mine.blobs {
				r.get("/v2/library/app/blobs/"+b.ref()).wants(r.t, http.StatusOK, b.bytes)
			}
			r.proxy.fetcher = peers{}.fetcher(r.cache) // now the cache alone
		}
		r.asked(r.hub)
	})
}

func TestListsAreForwarded(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		img := addImage(r.t, r.hub, "library/app", "v1")
		subject := descriptor(img.mine.manifest)
		signature := addManifest(r.t, r.hub, "library/app", "", ocispec.MediaTypeImageManifest, ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, Subject: &subject, Layers: []ocispec.Descriptor{},
		})
		r.hub.Fault(origintest.Fault{
			Kind: origintest.Tags, Times: 1,
			Effect: origintest.Header("Link", `</v2/library/app/tags/list?last=v1&n=1>; rel="next"`),
		})
		a := r.get("/v2/app/tags/list?n=1&ns=docker.io")
		a.wants(r.t, http.StatusOK, []byte(`{"name":"library/app","tags":["v1"]}`))
		if got, want := a.Header.Get("Link"), `</v2/app/tags/list?last=v1&n=1&ns=docker.io>; rel="next"`; got != want {
			r.t.Errorf("Link %s, want %s", got, want)
		}
		if q := r.hub.Requests()[0]; q.Query != "n=1" {
			r.t.Errorf("the upstream was asked with %q", q.Query)
		}
		a = r.get("/v2/app/referrers/" + subject.Digest.String() + "?artifactType=x")
		if a.StatusCode != http.StatusOK || !strings.Contains(string(a.body), signature.ref()) || a.Header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
			r.t.Errorf("%d, %s, %v", a.StatusCode, a.body, a.Header)
		}
		a = r.do(http.MethodHead, "/v2/app/tags/list")
		a.wants(r.t, http.StatusOK, nil)
		if a.ContentLength != int64(len(`{"name":"library/app","tags":["v1"]}`)) {
			r.t.Errorf("Content-Length %d", a.ContentLength)
		}
		r.asked(r.hub, "GET tags -> 200", "GET tags -> 200", "GET referrer "+subject.Digest.String()+" -> 200")

		r.hub.Fault(origintest.Fault{Kind: origintest.Tags, Effect: origintest.Body([]byte("<html>"))})
		r.get("/v2/app/tags/list").refused(r.t, http.StatusNotFound, "NAME_UNKNOWN")
		r.hub.Fault(origintest.Fault{Kind: origintest.Tags, Effect: origintest.Silence()})
		if a := r.get("/v2/app/tags/list"); a.StatusCode != http.StatusNotFound || a.took > 10*time.Second {
			r.t.Errorf("%d after %v", a.StatusCode, a.took)
		}
	})
}

// Clients try again by the thousand; one line a minute says what is wrong.
func TestLogIsReadable(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		b := addBlob(r.hub, "library/app", random(1, 100))
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(500)})
		for range 100 {
			r.get("/v2/library/app/blobs/" + b.ref())
		}
		if n := r.logged("level=WARN"); n != 1 || r.logged(b.ref()) != 1 {
			r.t.Errorf("%d lines:\n%s", n, r.log)
		}
		sleep(time.Minute)
		r.get("/v2/library/app/blobs/" + b.ref())
		if n := r.logged("level=WARN"); n != 2 {
			r.t.Errorf("%d lines a minute later", n)
		}
	})
}

func TestMetrics(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		b := addBlob(r.hub, "library/app", random(1, 100))
		r.get("/v2/")
		r.do("BREW", "/v2/")
		r.do("STEEP", "/v2/")
		path := "/v2/library/app/blobs/" + b.ref()
		r.get(path)
		sleep(time.Second) // it is committed
		r.get(path)
		r.get(path, "Range: bytes=0-9")
		addImage(r.t, r.hub, "library/img", "v1")
		r.do(http.MethodHead, "/v2/library/img/manifests/v1")
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(500)})
		r.get("/v2/library/app/manifests/v1")
		var got []string
		families, err := r.metrics.Gather()
		if err != nil {
			r.t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				line := f.GetName()
				for _, l := range m.GetLabel() {
					line += " " + l.GetValue()
				}
				if m.GetHistogram() != nil {
					got = append(got, fmt.Sprintf("%s %d", line, m.GetHistogram().GetSampleCount()))
				} else {
					got = append(got, fmt.Sprintf("%s %v", line, m.GetCounter().GetValue()))
				}
			}
		}
		want := []string{
			"shoal_proxy_decisions_total failed 0",
			"shoal_proxy_decisions_total granted 0",
			"shoal_proxy_decisions_total leased 0",
			"shoal_proxy_decisions_total refused 0",
			"shoal_proxy_first_byte_seconds 3",
			"shoal_proxy_healed_total 0",
			"shoal_proxy_leased_tags_total outage 0",
			"shoal_proxy_leased_tags_total preferred 0",
			"shoal_proxy_leases_total refused 0",
			"shoal_proxy_leases_total taken 0",
			"shoal_proxy_requests_total 200 blob GET 2",
			"shoal_proxy_requests_total 200 manifest HEAD 1",
			"shoal_proxy_requests_total 200 ping GET 1",
			"shoal_proxy_requests_total 206 blob GET 1",
			"shoal_proxy_requests_total 404 manifest GET 1",
			"shoal_proxy_requests_total 405 ping other 2",
			"shoal_proxy_served_bytes_total cache 110",
			"shoal_proxy_served_bytes_total fill 100",
			"shoal_proxy_served_bytes_total head_start 0",
			"shoal_proxy_served_bytes_total passthrough 0",
			"shoal_proxy_stale_tags_total 0",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			r.t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// An answer that is cut off counts with the status that went out.
func TestMetricsOfCutAnswers(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		b := addBlob(r.hub, "library/app", random(1, 2*blob.PieceSize))
		r.hub.Fault(origintest.Fault{Effect: origintest.Trickle(64<<10, time.Second)})
		r.hub.Fault(origintest.Fault{Effect: origintest.CloseEarly(blob.PieceSize + 5)})
		if a := r.get("/v2/library/app/blobs/" + b.ref()); a.err == nil {
			r.t.Error("a clean end")
		}
		if n := r.counter("shoal_proxy_requests_total"); n != 1 {
			r.t.Errorf("%v requests counted", n)
		}
	})
}

func TestWhatTheOperatorRefuses(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		img := addImage(t, r.other, "team/secret-app", "v1")
		addImage(t, r.other, "team/app", "v1")
		r.get("/v2/other.example/team/app/blobs/" + img.mine.blobs[0].ref()) // in the cache from now on
		r.other.ResetStats()
		for _, path := range []string{"manifests/v1", "manifests/" + img.index.ref(), "blobs/" + img.mine.blobs[0].ref(), "tags/list"} {
			for range 2 {
				r.get("/v2/other.example/team/secret-app/"+path).refused(t, http.StatusNotFound, "NAME_UNKNOWN")
			}
		}
		r.asked(r.other)
		const why = `level=INFO msg="not served" kind=manifest registry=other.example name=team/secret-app ref=v1 cut=false ` +
			`error="not found: refused by the configuration: other.example/team/secret-app is covered by \"team/secret-*\" of deny"`
		if n := r.logged(why); n != 1 {
			t.Errorf("the log says why %d times", n)
		}
	})
}

package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/origin/origintest"
)

// forbidden is a swarm that must not be asked.
type forbidden struct{ t *testing.T }

func (f forbidden) Fetch(_ context.Context, d blob.Descriptor, _ blob.Source) (*blobcache.Fill, error) {
	f.t.Errorf("the swarm is asked for %v", d)
	return nil, blob.ErrNotFound
}

// A blob whose digest is of sha512 is proven as a whole, past cache and swarm.
func TestSha512Blob(t *testing.T) {
	bubble(t, options{fetcher: forbidden{t}}, func(r *rig) {
		t := r.t
		data := random(1, 2*blob.PieceSize+5)
		d := r.hub.AddBlobBy(digest.SHA512, "library/app", data)
		path := "/v2/library/app/blobs/" + d.Digest.String()
		for range 2 {
			r.get(path).wants(t, http.StatusOK, data)
			r.get(path, "Range: bytes=7-9").wants(t, http.StatusPartialContent, data[7:10])
			r.get(path, "Range: bytes=-3").wants(t, http.StatusPartialContent, data[len(data)-3:])
			if a := r.do(http.MethodHead, path); a.StatusCode != http.StatusOK || a.ContentLength != d.Size || a.Header.Get("Docker-Content-Digest") != d.Digest.String() {
				t.Errorf("HEAD: %d, %v", a.StatusCode, a.Header)
			}
		}
		get, head := "GET blob "+d.Digest.String()+" -> 200", "HEAD blob "+d.Digest.String()+" -> 200"
		r.asked(r.hub, get, get, get, head, get, get, get, head)
		if all := r.cache.Blobs(); len(all) != 0 {
			t.Errorf("cached are %v", all)
		}
		if n := r.logged("no room"); n != 0 {
			t.Errorf("%d lines about room", n)
		}
	})
}

// Wrong bytes of one never end cleanly, and their last piece stays here.
func TestSha512WrongBytes(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		d := r.hub.AddBlobBy(digest.SHA512, "library/app", random(1, 2*blob.PieceSize+5))
		path := "/v2/library/app/blobs/" + d.Digest.String()
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Corrupt(9)})
		if a := r.get(path); a.err == nil || int64(len(a.body)) > d.Size-blob.PieceSize {
			t.Errorf("%d bytes, %v", len(a.body), a.err)
		}
		// Whoever resumes on top of them gets nothing.
		r.get(path, "Range: bytes=100-").refused(t, http.StatusNotFound, "BLOB_UNKNOWN")
	})
}

func TestSha512Manifest(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		layer := r.hub.AddBlobBy(digest.SHA512, "library/app", random(1, 100))
		body, err := json.Marshal(ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.DescriptorEmptyJSON,
			Layers: []ocispec.Descriptor{{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size}},
		})
		if err != nil {
			t.Fatal(err)
		}
		d := r.hub.AddManifestBy(digest.SHA512, "library/app", "v1", ocispec.MediaTypeImageManifest, body)
		for _, ref := range []string{"v1", d.Digest.String()} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := r.do(method, "/v2/library/app/manifests/"+ref)
				want := body
				if method == http.MethodHead {
					want = nil
				}
				a.wants(t, http.StatusOK, want)
				if a.Header.Get("Docker-Content-Digest") != d.Digest.String() || a.Header.Get("Content-Type") != d.MediaType || a.ContentLength != d.Size {
					t.Errorf("%s %s: %v", method, ref, a.Header)
				}
			}
		}
		if all := r.cache.Blobs(); len(all) != 0 {
			t.Errorf("cached are %v", all)
		}
		r.hub.Fault(origintest.Fault{Method: http.MethodGet, Effect: origintest.Corrupt(9)})
		r.get("/v2/library/app/manifests/"+d.Digest.String()).refused(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	})
}

// Docker's schema 1 is refused in words that clients show, and costs a HEAD.
func TestSchema1IsRefused(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		old := addManifest(t, r.other, "team/app", "old", "application/vnd.docker.distribution.manifest.v1+prettyjws", map[string]any{"schemaVersion": 1})
		for _, ref := range []string{"old", old.ref()} {
			a := r.get("/v2/other.example/team/app/manifests/" + ref)
			a.refused(t, http.StatusNotFound, "UNSUPPORTED")
			if !strings.Contains(string(a.body), "schema 1") {
				t.Errorf("%s", a.body)
			}
			if a := r.do(http.MethodHead, "/v2/other.example/team/app/manifests/"+ref); a.StatusCode != http.StatusNotFound {
				t.Errorf("HEAD: %d", a.StatusCode)
			}
			if ref == "old" {
				r.asked(r.other, "HEAD manifest old -> 200")
			}
		}
		r.asked(r.other, "GET manifest "+old.ref()+" -> 200")
	})
}

// What an image wants to be had elsewhere, or by sha512, is not prefetched; an
// empty layer and one of any media type are.
func TestPrefetchOfAllContent(t *testing.T) {
	bubble(t, options{run: true}, func(r *rig) {
		t := r.t
		add := func(seed byte, size int, mediaType string) ocispec.Descriptor {
			d := descriptor(addBlob(r.hub, "library/app", random(seed, size)))
			d.MediaType = mediaType
			return d
		}
		foreign := add(4, 400, ocispec.MediaTypeImageLayerNonDistributable) //nolint:staticcheck // deprecated, and met
		foreign.URLs = []string{"http://127.0.0.1/layer"}
		long := r.hub.AddBlobBy(digest.SHA512, "library/app", random(5, 500))
		m := addManifest(t, r.hub, "library/app", "v1", ocispec.MediaTypeImageManifest, ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example", Config: add(1, 100, "application/vnd.example.config"),
			Layers: []ocispec.Descriptor{
				add(2, 200, ocispec.MediaTypeImageLayerZstd), add(3, 300, ocispec.MediaTypeImageLayer), add(0, 0, "application/vnd.example.nothing"),
				foreign,
				{MediaType: "a/b", Digest: long.Digest, Size: long.Size},
			},
		})
		r.get("/v2/library/app/manifests/v1").wants(t, http.StatusOK, m.bytes)
		sleep(time.Second)
		want := []string{"HEAD manifest v1 -> 200", "GET manifest " + m.ref() + " -> 200"}
		for _, b := range [][]byte{random(1, 100), random(2, 200), random(3, 300), {}} {
			want = append(want, "GET blob "+digest.FromBytes(b).String()+" -> 200")
		}
		r.asked(r.hub, want...)
		empty := "/v2/library/app/blobs/" + digest.FromBytes(nil).String()
		r.get(empty).wants(t, http.StatusOK, nil)
		r.do(http.MethodHead, empty).wants(t, http.StatusOK, nil)
		r.get(empty, "Range: bytes=0-").refused(t, http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID")
	})
}

func TestSizeOfManifests(t *testing.T) {
	for name, c := range map[string]struct {
		largest, size int64
		status        int
	}{
		"as large as the specification asks for": {0, blob.MaxManifestSize, http.StatusOK},
		"larger":                                 {0, blob.MaxManifestSize + 1, http.StatusNotFound},
		"larger, as the operator wants it":       {6 << 20, 6 << 20, http.StatusOK},
		"larger than the operator wants it":      {6 << 20, 6<<20 + 1, http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, options{largest: c.largest}, func(r *rig) {
				body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"x":"`, ocispec.MediaTypeImageIndex)
				body += strings.Repeat("x", int(c.size)-len(body)-3) + `"}}`
				d := r.hub.AddManifest("library/app", "v1", ocispec.MediaTypeImageIndex, []byte(body))
				for _, ref := range []string{"v1", d.Digest.String()} {
					if a := r.get("/v2/library/app/manifests/" + ref); a.StatusCode != c.status || a.err != nil {
						r.t.Errorf("%s: %d, %d bytes, %v", ref, a.StatusCode, len(a.body), a.err)
					}
				}
			})
		})
	}
}

// An index that lies about the size of another image's manifest does not keep
// that from being served.
func TestSizeOfAManifestInAForeignIndex(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		img := addImage(r.t, r.hub, "library/app", "v1")
		child := descriptor(img.mine.manifest)
		child.Size = blob.MaxManifestSize + 1
		addManifest(r.t, r.hub, "library/liar", "v1", ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{child}})
		r.get("/v2/library/liar/manifests/v1")
		r.get("/v2/library/app/manifests/"+img.mine.manifest.ref()).wants(r.t, http.StatusOK, img.mine.manifest.bytes)
	})
}

// Of a registry without the referrers API clients get what they keep there
// under a tag.
func TestReferrersOfARegistryWithoutThem(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		r.hub.Fault(origintest.Fault{Kind: origintest.Referrers, Effect: origintest.Status(http.StatusNotFound)})
		subject, plain := digest.FromString("subject"), digest.SHA512.FromString("plain")
		kept := addManifest(t, r.hub, "library/app", "sha256-"+subject.Encoded(), ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex})
		addManifest(t, r.hub, "library/app", "sha512-"+plain.Encoded()[:64], ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest})
		none := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
		for of, want := range map[digest.Digest][]byte{subject: kept.bytes, plain: none, digest.FromString("nothing"): none} {
			a := r.get("/v2/library/app/referrers/" + of.String())
			a.wants(t, http.StatusOK, want)
			if a.Header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
				t.Errorf("Content-Type %q", a.Header.Get("Content-Type"))
			}
		}
		// Who cannot be asked has no empty list.
		r.hub.Fault(origintest.Fault{Effect: origintest.Status(http.StatusServiceUnavailable)})
		r.get("/v2/library/app/referrers/"+subject.String()).refused(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	})
}

func TestPage(t *testing.T) {
	const upstream = `</v2/a/tags/list?last=c>; rel="next"`
	for _, c := range []struct{ tags, link, query, want, next string }{
		{`"a","b","c"`, upstream, "", `"a","b","c"`, upstream},
		{`"a","b","c"`, upstream, "n=3", `"a","b","c"`, upstream},
		{`"a","b","c"`, "", "n=2", `"a","b"`, `<?last=b&n=2>; rel="next"`},
		{`"a","b","c"`, "", "last=a&n=1", `"b"`, `<?last=b&n=1>; rel="next"`},
		{`"a","b","c"`, "", "last=a&n=2", `"b","c"`, ""},
		{`"a","b","c"`, "", "n=0", ``, ""},
		{`"c","b","a"`, "", "last=b", `"c"`, ""},
		{`"c","b","a"`, "", "n=2", `"a","b"`, `<?last=b&n=2>; rel="next"`},
		{`"b","c"`, upstream, "last=a&n=2", `"b","c"`, upstream}, // it did as it was asked
		{`"a","b"`, "", "last=x&n=-1", `"a","b"`, ""},
		{`"a","b"`, "", "last=b", ``, ""},
		{``, "", "last=b&n=5", ``, ""},
		{`"a"`, "", "n=99999999999999999999", `"a"`, ""},
		{`"` + strings.Repeat("a", 99) + `"`, "", "n=0&last=", ``, ""},
	} {
		query, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		got, next := page([]byte(`{"name":"x","tags":[`+c.tags+`]}`), c.link, query)
		if want := `{"name":"x","tags":[` + c.want + `]}`; string(got) != want || next != c.next {
			t.Errorf("%s of %s: %s, %s; want %s, %s", c.query, c.tags, got, next, want, c.next)
		}
	}
}

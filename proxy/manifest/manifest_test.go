package manifest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
)

func d(s string) digest.Digest { return digest.FromString(s) }

func TestParseManifest(t *testing.T) {
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
		"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":3},
		"layers":[
			{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":10},
			{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":20},
			{"mediaType":"x/foreign","digest":%q,"size":20,"urls":["https://example.com/layer"]},
			{"mediaType":"bad type","digest":%q,"size":30},
			{"digest":"sha256:00","size":1}, {"digest":%q,"size":-1}, {"digest":%q,"size":1099511627777},
			{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":10}]}`,
		d("config"), d("one"), d("two"), d("foreign"), d("three"), d("negative"), d("huge"), d("one"))
	m, err := Parse([]byte(body), "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	want := &Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Stated: true,
		Blobs: []blob.Descriptor{
			{Digest: d("config"), Size: 3, MediaType: ocispec.MediaTypeImageConfig},
			{Digest: d("one"), Size: 10, MediaType: ocispec.MediaTypeImageLayerGzip},
			{Digest: d("two"), Size: 20, MediaType: ocispec.MediaTypeImageLayerGzip},
			{Digest: d("three"), Size: 30},
		},
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v\nwant %+v", m, want)
	}
}

func TestParseIndex(t *testing.T) {
	for _, mediaType := range []string{ocispec.MediaTypeImageIndex, dockerList} {
		body := fmt.Sprintf(`{"mediaType":%q,"layers":[{"digest":%q,"size":1}],"manifests":[
			{"mediaType":%q,"digest":%q,"size":5,"platform":{"os":"linux","architecture":"arm64"}},
			{"digest":%q,"size":6},
			{"digest":"sha512:%s","size":7},
			{"digest":%q,"size":-1}]}`,
			mediaType, d("layer"), ocispec.MediaTypeImageManifest, d("arm"), d("any"), strings.Repeat("0", 128), d("less than nothing"))
		m, err := Parse([]byte(body), "")
		if err != nil {
			t.Fatal(err)
		}
		want := &Manifest{MediaType: mediaType, Stated: true, Children: []Child{
			{
				blob.Descriptor{Digest: d("arm"), Size: 5, MediaType: ocispec.MediaTypeImageManifest},
				&ocispec.Platform{OS: "linux", Architecture: "arm64"},
			},
			{blob.Descriptor{Digest: d("any"), Size: 6}, nil},
		}}
		if !reflect.DeepEqual(m, want) {
			t.Errorf("got %+v\nwant %+v", m, want)
		}
	}
}

func TestMediaType(t *testing.T) {
	for _, c := range []struct{ body, told, want string }{
		{`{"mediaType":"a/b"}`, "c/d", "a/b"}, // the digest vouches for the body
		{`{}`, "c/d", "c/d"},
		{`{"config":{}}`, "", ocispec.MediaTypeImageManifest},
		{`{"manifests":[]}`, "", ocispec.MediaTypeImageIndex},
	} {
		m, err := Parse([]byte(c.body), c.told)
		if err != nil || m.MediaType != c.want {
			t.Errorf("%s, told %q: %+v, %v; want %q", c.body, c.told, m, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, body := range []string{
		"", "{", "[]", `"x"`, "<html><body>Sign in</body></html>", `{} {}`, `{}`,
		`{"mediaType":"no slash"}`, `{"mediaType":"a/b\r\nSet-Cookie: x"}`, `{"mediaType":"a/b; c=d"}`,
		`{"mediaType":5}`, `{"layers":"x"}`, `{"config":[]}`,
		strings.Repeat("[", 20000),
	} {
		if m, err := Parse([]byte(body), ""); !errors.Is(err, ErrInvalid) {
			t.Errorf("Parse(%.80s) = %+v, %v; want %v", body, m, err, ErrInvalid)
		}
	}
	if _, err := Parse([]byte("null"), "a/b"); !errors.Is(err, ErrInvalid) {
		t.Errorf("null: %v", err)
	}
}

func TestSchema1(t *testing.T) {
	for _, c := range []struct{ body, told string }{
		{`{"schemaVersion":1,"fsLayers":[]}`, ""},
		{`{"schemaVersion":1,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`, ""},
		{`{"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}`, ""},
		{`{}`, "application/vnd.docker.distribution.manifest.v1+prettyjws"},
	} {
		if m, err := Parse([]byte(c.body), c.told); !errors.Is(err, ErrSchema1) || !errors.Is(err, ErrInvalid) {
			t.Errorf("Parse(%s, %s) = %+v, %v; want %v", c.body, c.told, m, err, ErrSchema1)
		}
	}
}

func TestParseIsBounded(t *testing.T) {
	one := fmt.Sprintf(`{"digest":%q,"size":1}`, d("x"))
	list := strings.TrimSuffix(strings.Repeat(one+",", 5000), ",")
	m, err := Parse([]byte(`{"manifests":[`+list+`]}`), "")
	if err != nil || len(m.Children) != maxBlobs {
		t.Errorf("%d children, %v; want %d", len(m.Children), err, maxBlobs)
	}
}

// FuzzParse: what is passed on is bounded and could be asked for.
func FuzzParse(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(`{"manifests":[{"digest":%q,"size":7,"mediaType":"a/b","platform":{"os":"linux","architecture":"arm64","variant":"v8"}}]}`, d("x"))), "")
	f.Add([]byte(fmt.Sprintf(`{"config":{"digest":%q,"size":1},"layers":[{"digest":%[1]q,"size":1},{"digest":%q,"size":2,"urls":["http://x"]}]}`, d("x"), d("y"))), "")
	f.Add([]byte(`{"config":{"digest":"sha256:00","size":1},"layers":[{}]}`), "")
	f.Add([]byte(`{"manifests":[{"platform":{"os":"linux"}}]}`), "a/b")
	f.Add([]byte(`null`), "a/b")
	f.Fuzz(func(t *testing.T, body []byte, told string) {
		m, err := Parse(body, told)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if !validMediaType(m.MediaType) || len(m.Blobs) > maxBlobs || len(m.Children) > maxBlobs {
			t.Fatalf("%+v", m)
		}
		seen := map[string]bool{}
		for _, b := range m.Blobs {
			if _, err := blob.ParseDigest(b.Digest.String()); err != nil || b.Size < 0 || b.Size > blob.MaxSize || seen[b.Digest.String()] {
				t.Fatalf("%+v, %v", b, err)
			}
			seen[b.Digest.String()] = true
		}
		for _, c := range m.Children {
			if _, err := blob.ParseDigest(c.Digest.String()); err != nil || c.Size < 0 || c.Size > blob.MaxSize || c.MediaType != "" && !validMediaType(c.MediaType) {
				t.Fatalf("%+v, %v", c, err)
			}
		}
		if len(m.Blobs) > 0 && len(m.Children) > 0 || len(m.Children) > 0 && !IsIndex(m.MediaType) {
			t.Fatalf("both an image and an index: %+v", m)
		}
	})
}

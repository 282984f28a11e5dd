package request

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/proxy/name"
)

const sum = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		url  string
		want Request
	}{
		{"/v2/", Request{Kind: Ping}},
		{"/v2", Request{Kind: Ping}},
		{
			"/v2/library/busybox/manifests/latest",
			Request{Kind: Manifest, Registry: "docker.io", Name: "library/busybox", Tag: "latest"},
		},
		{
			"/v2/busybox/manifests/1.36",
			Request{Kind: Manifest, Registry: "docker.io", Name: "library/busybox", Tag: "1.36"},
		},
		{
			"/v2/library/busybox/manifests/" + sum,
			Request{Kind: Manifest, Registry: "docker.io", Name: "library/busybox", Digest: sum},
		},
		{
			"/v2/library/busybox/blobs/" + sum,
			Request{Kind: Blob, Registry: "docker.io", Name: "library/busybox", Digest: sum},
		},
		{
			"/v2/library/busybox/tags/list?n=3&last=1.0",
			Request{Kind: Tags, Registry: "docker.io", Name: "library/busybox"},
		},
		{
			"/v2/library/busybox/referrers/" + sum + "?artifactType=x",
			Request{Kind: Referrers, Registry: "docker.io", Name: "library/busybox", Digest: sum},
		},

		// A registry as the first component of the path.
		{
			"/v2/ghcr.io/org/img/manifests/v1",
			Request{Kind: Manifest, Registry: "ghcr.io", Name: "org/img", Tag: "v1"},
		},
		{
			"/v2/GHCR.io/img/manifests/v1",
			Request{Kind: Manifest, Registry: "ghcr.io", Name: "img", Tag: "v1"},
		},
		{
			"/v2/registry:5000/img/manifests/v1",
			Request{Kind: Manifest, Registry: "registry:5000", Name: "img", Tag: "v1"},
		},
		{
			"/v2/localhost/img/manifests/v1",
			Request{Kind: Manifest, Registry: "localhost", Name: "img", Tag: "v1"},
		},
		{
			"/v2/docker.io/busybox/manifests/v1",
			Request{Kind: Manifest, Registry: "docker.io", Name: "library/busybox", Tag: "v1"},
		},
		{
			"/v2/registry-1.docker.io/org/img/manifests/v1",
			Request{Kind: Manifest, Registry: "docker.io", Name: "org/img", Tag: "v1"},
		},
		{"/v2/10.0.0.1:5000/img/manifests/v1", // refused by proxy/origin, not here
			Request{Kind: Manifest, Registry: "10.0.0.1:5000", Name: "img", Tag: "v1"}},
		// One component alone is an official image, whatever it looks like.
		{
			"/v2/node.js/manifests/v1",
			Request{Kind: Manifest, Registry: "docker.io", Name: "library/node.js", Tag: "v1"},
		},
		{
			"/v2/localhost/manifests/v1",
			Request{Kind: Manifest, Registry: "docker.io", Name: "library/localhost", Tag: "v1"},
		},

		// containerd's ns.
		{
			"/v2/org/img/manifests/v1?ns=ghcr.io",
			Request{Kind: Manifest, Registry: "ghcr.io", Name: "org/img", Tag: "v1"},
		},
		{
			"/v2/img/blobs/" + sum + "?ns=localhost%3A6011",
			Request{Kind: Blob, Registry: "localhost:6011", Name: "img", Digest: sum},
		},
		{
			"/v2/library/busybox/manifests/v1?ns=docker.io",
			Request{Kind: Manifest, Registry: "docker.io", Name: "library/busybox", Tag: "v1"},
		},
		{"/v2/my.host/img/manifests/v1?ns=ghcr.io", // ns decides, the path is the name
			Request{Kind: Manifest, Registry: "ghcr.io", Name: "my.host/img", Tag: "v1"}},

		// Components that are called like endpoints.
		{
			"/v2/blobs/manifests/manifests/tags",
			Request{Kind: Manifest, Registry: "docker.io", Name: "blobs/manifests", Tag: "tags"},
		},
		{
			"/v2/tags/list/manifests/list",
			Request{Kind: Manifest, Registry: "docker.io", Name: "tags/list", Tag: "list"},
		},
		{
			"/v2/org/a__b-c--d.e/manifests/_x",
			Request{Kind: Manifest, Registry: "docker.io", Name: "org/a__b-c--d.e", Tag: "_x"},
		},
	} {
		got, err := Parse(mustURL(t, c.url))
		if err != nil || got != c.want {
			t.Errorf("Parse(%s) = %+v, %v; want %+v", c.url, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	long := strings.Repeat("a", 130)
	for _, c := range []struct {
		url  string
		want error
		kind Kind
	}{
		{"/", ErrNoRoute, Unknown},
		{"/v1/", ErrNoRoute, Unknown},
		{"/v2/_catalog", ErrNoRoute, Unknown},
		{"/v2/busybox", ErrNoRoute, Unknown},
		{"/v2/busybox/blobs/uploads/", ErrNoRoute, Unknown},
		{"/v2/busybox/blobs/uploads", ErrNoRoute, Unknown},
		{"/v2/busybox/tags/other", ErrNoRoute, Unknown},
		{"/v2/manifests/latest", ErrNameInvalid, Manifest},
		{"/v2//manifests/latest", ErrNameInvalid, Manifest},
		{"/v2/Busybox/manifests/latest", ErrNameInvalid, Manifest},
		{"/v2/a/../b/manifests/latest", ErrNameInvalid, Manifest},
		{"/v2/../../etc/manifests/passwd", ErrNameInvalid, Manifest},
		{"/v2/a//b/manifests/latest", ErrNameInvalid, Manifest},
		{"/v2/a%2F..%2Fb/manifests/latest", ErrNameInvalid, Manifest},
		{"/v2/a%00b/manifests/latest", ErrNameInvalid, Manifest},
		{"/v2/a---/manifests/latest", ErrNameInvalid, Manifest},
		{"/v2/" + strings.Repeat("a/", 128) + "a/manifests/latest", ErrNameInvalid, Manifest},
		{"/v2/img/manifests/v1?ns=user:pw@host.com", ErrNameInvalid, Manifest},
		{"/v2/img/manifests/v1?ns=host.com/path", ErrNameInvalid, Manifest},
		{"/v2/img/manifests/v1?ns=host.com:0", ErrNameInvalid, Manifest},
		{"/v2/img/manifests/v1?ns=host.com:65536", ErrNameInvalid, Manifest},
		{"/v2/img/manifests/v1?ns=-host.com", ErrNameInvalid, Manifest},
		{"/v2/img/manifests/v1?ns=%zz", ErrNameInvalid, Manifest},
		{"/v2/host.com:99999/img/manifests/v1", ErrNameInvalid, Manifest},
		{"/v2/img/manifests/", ErrTagInvalid, Manifest},
		{"/v2/img/manifests/-x", ErrTagInvalid, Manifest},
		{"/v2/img/manifests/.INVALID_MANIFEST_NAME", ErrTagInvalid, Manifest},
		{"/v2/img/manifests/" + long, ErrTagInvalid, Manifest},
		{"/v2/img/manifests/sha256:00", blob.ErrDigestInvalid, Manifest},
		{"/v2/img/manifests/" + strings.ToUpper(sum), blob.ErrDigestInvalid, Manifest},
		{"/v2/img/blobs/latest", blob.ErrDigestInvalid, Blob},
		{"/v2/img/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", blob.ErrDigestInvalid, Blob},
		{"/v2/img/blobs/sha384:" + strings.Repeat("0", 96), blob.ErrNotFound, Blob},
		{"/v2/img/referrers/latest", blob.ErrDigestInvalid, Referrers},
	} {
		got, err := Parse(mustURL(t, c.url))
		if !errors.Is(err, c.want) || got.Kind != c.kind {
			t.Errorf("Parse(%s) = %v, %v; want %v, %v", c.url, got.Kind, err, c.kind, c.want)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("Parse(%s): an error of %d bytes would fill the log", c.url, len(err.Error()))
		}
	}
}

// Every string of a few characters that matter, and long ones, are tags if the
// specification's grammar says so.
func TestTagsAreTheGrammar(t *testing.T) {
	grammar := regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	const alphabet = "azAZ09_.-/:@`[{^ \n\x00é"
	all := []string{""}
	for range 3 {
		for _, s := range all {
			for i := range len(alphabet) {
				all = append(all, s+alphabet[i:i+1])
			}
		}
	}
	for _, n := range []int{127, 128, 129} {
		all = append(all, strings.Repeat("a", n), strings.Repeat("a", n-1)+"-")
	}
	for _, s := range all {
		if want := grammar.MatchString(s); validTag(s) != want {
			t.Errorf("validTag(%q) = %v, the grammar says %v", s, !want, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"/v2/", "/v2/library/busybox/manifests/latest", "/v2/ghcr.io/org/img/blobs/" + sum,
		"/v2/img/manifests/v1?ns=localhost%3A6011", "/v2/a/tags/list?n=1", "/v2/a/referrers/" + sum,
		"/v2/../x/manifests/%2e", "/v2/a/blobs/uploads/", "/v2/a/manifests/x?ns=%zz",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s)
		if err != nil {
			return
		}
		req, err := Parse(u)
		if err != nil || req.Kind == Ping {
			return
		}
		// Whatever passes goes into upstream URLs and file names.
		if !name.Valid(req.Name) || !hostGrammar.MatchString(req.Registry) {
			t.Fatalf("Parse(%q) = %+v", s, req)
		}
		if req.Kind == Manifest && (req.Tag == "") == (req.Digest == "") {
			t.Fatalf("Parse(%q) = %+v: tag or digest", s, req)
		}
		if req.Digest != "" {
			if _, err := digest.Parse(req.Digest.String()); err != nil {
				t.Fatal(err)
			}
		}
		// The canonical form means the same.
		last := req.Tag + req.Digest.String()
		canonical := "/v2/" + req.Name + "/" + map[Kind]string{
			Manifest: "manifests/" + last, Blob: "blobs/" + last,
			Referrers: "referrers/" + last, Tags: "tags/list",
		}[req.Kind] + "?ns=" + url.QueryEscape(req.Registry)
		if again, err := Parse(mustURL(t, canonical)); err != nil || again != req {
			t.Fatalf("Parse(%q) = %+v, but %q is %+v, %v", s, req, canonical, again, err)
		}
	})
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	path, query, _ := strings.Cut(s, "?")
	p, err := url.PathUnescape(path)
	if err != nil {
		t.Fatal(err)
	}
	return &url.URL{Path: p, RawQuery: query}
}

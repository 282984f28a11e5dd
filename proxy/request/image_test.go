package request

import (
	"errors"
	"strings"
	"testing"

	"shoal/blobcache/blob"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseImage(t *testing.T) {
	for in, want := range map[string]Image{
		"nginx":                              {DockerHub, "library/nginx", "", ""},
		"nginx:1.27":                         {DockerHub, "library/nginx", "1.27", ""},
		"nginx@" + someDigest:                {DockerHub, "library/nginx", "", someDigest},
		"docker.io/nginx:latest":             {DockerHub, "library/nginx", "latest", ""},
		"index.docker.io/team/app":           {DockerHub, "team/app", "", ""},
		"team/app:v1":                        {DockerHub, "team/app", "v1", ""},
		"ghcr.io/org/app@" + someDigest:      {"ghcr.io", "org/app", "", someDigest},
		"localhost:5000/app":                 {"localhost:5000", "app", "", ""},
		"localhost:5000/a/b:v1":              {"localhost:5000", "a/b", "v1", ""},
		"Registry.Example/a/b:v1":            {"registry.example", "a/b", "v1", ""},
		"docker.io/library/nginx:A_b-c.9":    {DockerHub, "library/nginx", "A_b-c.9", ""},
		strings.Repeat("a", 247) + ":" + "x": {DockerHub, "library/" + strings.Repeat("a", 247), "x", ""},
	} {
		got, err := ParseImage(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
		if again, err := ParseImage(got.String()); err != nil || again != got {
			t.Errorf("%q prints as %q, which is %+v, %v", in, got, again, err)
		}
	}
	for in, want := range map[string]error{
		"": ErrNameInvalid, ":v1": ErrNameInvalid, "@" + someDigest: ErrNameInvalid, "Nginx": ErrNameInvalid, "a//b": ErrNameInvalid, "a/": ErrNameInvalid, "../a": ErrNameInvalid,
		"nginx:": ErrTagInvalid, "nginx:a b": ErrTagInvalid, "nginx:-a": ErrTagInvalid, "nginx:v1@" + someDigest: ErrTagInvalid, "nginx:" + strings.Repeat("a", 129): ErrTagInvalid,
		"nginx@": blob.ErrDigestInvalid, "nginx@sha256:00": blob.ErrDigestInvalid, "nginx@" + someDigest + "@" + someDigest: blob.ErrDigestInvalid,
		"localhost:99999/a": ErrNameInvalid, "https://docker.io/nginx": ErrNameInvalid, strings.Repeat("a", 256): ErrNameInvalid,
	} {
		if got, err := ParseImage(in); !errors.Is(err, want) || got != (Image{}) {
			t.Errorf("%q: %+v, %v, want %v", in, got, err, want)
		}
	}
}

// FuzzParseImage: what is accepted prints as a name of the same image.
func FuzzParseImage(f *testing.F) {
	f.Add("nginx:1.27")
	f.Add("localhost:5000/a/b@" + someDigest)
	f.Add("Ghcr.io/a__b/c:v1")
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseImage(s)
		if err != nil {
			return
		}
		if again, err := ParseImage(i.String()); err != nil || again != i || i.Tag != "" && i.Digest != "" || len(i.String()) > 640 {
			t.Errorf("%q is %+v, and prints as %q, which is %+v, %v", s, i, i, again, err)
		}
	})
}

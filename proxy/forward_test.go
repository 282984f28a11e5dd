package proxy

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"shoal/blobcache/blob"
)

func TestForwardLink(t *testing.T) {
	for _, c := range []struct{ link, client, want string }{
		{
			`</v2/library/busybox/tags/list?last=1.0&n=3>; rel="next"`, "/v2/busybox/tags/list?n=3",
			`</v2/busybox/tags/list?last=1.0&n=3>; rel="next"`,
		},
		{
			`<https://evil.example/v2/org/img/tags/list?last=b&ns=evil.example>; rel=next`, "/v2/org/img/tags/list?ns=localhost%3A6011",
			`</v2/org/img/tags/list?last=b&ns=localhost%3A6011>; rel="next"`,
		},
		{
			`</v2/org/img/tags/list?last=b>; rel="next"`, "/v2/ghcr.io/org/img/tags/list",
			`</v2/ghcr.io/org/img/tags/list?last=b>; rel="next"`,
		},
		{"", "/v2/a/tags/list", ""},
		{`</v2/a/tags/list?last=b>; rel="prev"`, "/v2/a/tags/list", ""},
		{`/v2/a/tags/list; rel="next"`, "/v2/a/tags/list", ""},
		{`<%zz>; rel="next"`, "/v2/a/tags/list", ""},
	} {
		client, err := url.Parse(c.client)
		if err != nil {
			t.Fatal(err)
		}
		if got := forwardLink(c.link, client); got != c.want {
			t.Errorf("forwardLink(%s, %s) = %s; want %s", c.link, c.client, got, c.want)
		}
	}
}

func FuzzForwardLink(f *testing.F) {
	f.Add(`</v2/a/tags/list?last=1>; rel="next"`, "ns=a.b")
	f.Add(`<>; rel=next`, "")
	f.Add(`<a>b>;rel=next`, "%zz")
	f.Fuzz(func(t *testing.T, link, query string) {
		got := forwardLink(link, &url.URL{Path: "/v2/a/tags/list", RawQuery: query})
		if got != "" && !strings.HasPrefix(got, "</v2/a/tags/list>") && !strings.HasPrefix(got, "</v2/a/tags/list?") {
			t.Fatalf("forwardLink(%q, %q) = %q leads away", link, query, got)
		}
		if strings.ContainsAny(got, "\r\n") || strings.Count(got, ">") > 1 {
			t.Fatalf("forwardLink(%q, %q) = %q", link, query, got)
		}
	})
}

func TestReadJSON(t *testing.T) {
	for body, want := range map[string]error{
		`{"name":"a"}`:                 nil,
		`{"name":"a"`:                  blob.ErrUnavailable,
		`<html>sign in</html>`:         blob.ErrUnavailable,
		``:                             blob.ErrUnavailable,
		`["` + strings.Repeat("a", 40): blob.ErrTooLarge,
	} {
		if _, err := readJSON(strings.NewReader(body), 20); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", body, err, want)
		}
	}
}

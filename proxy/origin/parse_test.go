package origin

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/origin/public"
)

var contentRanges = map[string]struct {
	rng  blob.Range
	size int64
	ok   bool
}{
	"bytes 0-9/10":                  {blob.Range{Offset: 0, Length: 10}, 10, true},
	"bytes 5-5/10":                  {blob.Range{Offset: 5, Length: 1}, 10, true},
	"bytes 5-9/*":                   {blob.Range{Offset: 5, Length: 5}, blob.UnknownSize, true},
	"":                              {},
	"bytes":                         {},
	"bytes */10":                    {},
	"bytes 5-4/10":                  {},
	"bytes 5-10/10":                 {},
	"bytes -5/10":                   {},
	"bytes 5-/10":                   {},
	"bytes 5-9":                     {},
	"bytes 5-9/":                    {},
	"bytes +5-9/10":                 {},
	"bytes 5-9/-1":                  {},
	"items 5-9/10":                  {},
	"bytes 0-9223372036854775807/*": {},
	"bytes 0-4611686018427387904/*": {},
}

func TestParseContentRange(t *testing.T) {
	for s, want := range contentRanges {
		rng, size, ok := parseContentRange(s)
		if ok != want.ok || ok && (rng != want.rng || size != want.size) {
			t.Errorf("%q: %v of %d, %v", s, rng, size, ok)
		}
	}
}

// FuzzParseContentRange: what is read lies inside of the size, and is said in
// the plain form as well.
func FuzzParseContentRange(f *testing.F) {
	for s := range contentRanges {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rng, size, ok := parseContentRange(s)
		if !ok {
			return
		}
		if rng.Offset < 0 || rng.Length <= 0 || size >= 0 && rng.Offset+rng.Length > size || size < blob.UnknownSize {
			t.Errorf("%q: %v of %d", s, rng, size)
		}
		total := "*"
		if size != blob.UnknownSize {
			total = strconv.FormatInt(size, 10)
		}
		printed := fmt.Sprintf("bytes %d-%d/%s", rng.Offset, rng.Offset+rng.Length-1, total)
		if again, n, ok := parseContentRange(printed); !ok || again != rng || n != size {
			t.Errorf("%q means %s, which means %v of %d, %v", s, printed, again, n, ok)
		}
	})
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"5":                             5 * time.Second,
		"-5":                            0,
		"1.5":                           0,
		"soon":                          0,
		"99999999999999999999":          0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := parseRetryAfter(v, now); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

func TestPausesGrowAndSpread(t *testing.T) {
	for n, want := range [][2]time.Duration{
		{50 * time.Millisecond, 150 * time.Millisecond}, {150 * time.Millisecond, 450 * time.Millisecond},
	} {
		if low, high := pause(n, 0), pause(n, 1); low != want[0] || high != want[1] {
			t.Errorf("after pass %d: %v to %v", n, low, high)
		}
	}
}

func TestErrorCode(t *testing.T) {
	for raw, want := range map[string]string{
		`{"errors":[{"code":"MANIFEST_UNKNOWN"},{"code":"X"}]}`:   "MANIFEST_UNKNOWN",
		`{"errors":[{"code":"<b>"}]}`:                             "",
		`{"errors":[{"code":"A\nB"}]}`:                            "",
		`{"errors":[{"code":"` + strings.Repeat("A", 65) + `"}]}`: "",
		`{"errors":[]}`: "",
		`{"errors":1}`:  "",
		`<html>`:        "",
		``:              "",
	} {
		if got := errorCode([]byte(raw)); got != want {
			t.Errorf("%.40s: %q, want %q", raw, got, want)
		}
	}
}

// FuzzRefusal: what an upstream says beside its status is bounded and goes
// into one log line.
func FuzzRefusal(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN"},{"code":"X"}]}`), "120")
	f.Add([]byte(`{"errors":[]}`), "Fri, 02 Jan 2026 03:04:15 GMT")
	f.Add([]byte(`{"errors":[{"code":"A\nB"}]}`), "Fri, 02 Jan 2026 03:04:00 GMT")
	f.Add([]byte(`<html>`), "-1")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte, after string) {
		code := errorCode(body)
		if len(code) > 64 || len(code) > len(body) || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
			t.Errorf("code %q", code)
		}
		if wait := parseRetryAfter(after, now); wait < 0 {
			t.Errorf("%q: wait %s", after, wait)
		}
	})
}

// FuzzRedirect: a registry that nobody has listed leads to public names over
// TLS and nowhere else.
func FuzzRedirect(f *testing.F) {
	from, err := url.Parse("https://ghcr.io/v2/a/blobs/x")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"https://cdn.example/x?y#z", "/here", "//127.0.0.1/x", "http://cdn.example", "https://me:word@cdn.example", "https://[::1]:443/", "https://cdn.example:8443/", "%zz", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, location string) {
		to, err := redirectTarget(&upstream{base: from, unlisted: true}, request{kind: kindBlob}, from, location)
		if err != nil {
			return
		}
		if _, err := public.Name(to.Host); err != nil || to.Scheme != "https" || to.User != nil || to.Fragment != "" {
			t.Errorf("%q leads to %s, %v", location, to, err)
		}
		// What is asked for is what was checked.
		if again, err := url.Parse(to.String()); err != nil || again.Host != to.Host || again.Scheme != to.Scheme {
			t.Errorf("%q leads to %s, which is %s, %v", location, to, again, err)
		}
	})
}

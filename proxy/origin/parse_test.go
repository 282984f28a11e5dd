package origin

import (
	"strings"
	"testing"
	"time"

	"shoal/blobcache/blob"
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

func FuzzParseContentRange(f *testing.F) {
	for s := range contentRanges {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rng, size, ok := parseContentRange(s)
		if ok && (rng.Offset < 0 || rng.Length <= 0 || size >= 0 && rng.Offset+rng.Length > size || size < blob.UnknownSize) {
			t.Errorf("%q: %v of %d", s, rng, size)
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

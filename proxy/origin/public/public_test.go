package public_test

import (
	"net/netip"
	"strings"
	"testing"

	"shoal/proxy/origin/public"
)

func FuzzName(f *testing.F) {
	for _, s := range []string{"ghcr.io", "ghcr.io:443", "127.0.0.1", "127.1", "[::1]:443", "localhost", "a.internal", "me@ghcr.io"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := public.Name(s)
		if err != nil {
			return
		}
		if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") || strings.ContainsAny(host, "@/:?#%[]\\ ") {
			t.Errorf("%q gives %q", s, host)
		}
	})
}

package origin_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

func TestRegistriesThatNobodyListed(t *testing.T) {
	c, err := origin.New(origin.Options{Registries: origin.Registries{"10.0.0.1:5000": {Upstreams: []string{"http://10.0.0.1:5000"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"ghcr.io", "GHCR.io", "registry.k8s.io", "quay.io:443", "xn--bcher-kva.example", "a.b-c.d",
		"10.0.0.1:5000", // listed
	} {
		if _, err := c.Repository(name, "a/b"); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "localhost", "localhost:5000", "registry", "registry:5000", "intranet:443",
		"127.0.0.1", "127.0.0.1:443", "10.0.0.1", "8.8.8.8", "169.254.169.254", "127.1", "0x7f.1", "0x7f000001", "2130706433", "1.1.1.1.",
		"[::1]", "[::1]:443", "::1", "[fe80::1%25eth0]", "[2001:4860:4860::8888]",
		"ghcr.io:80", "ghcr.io:8443", "ghcr.io:0443", "ghcr.io:", "ghcr.io:https", "ghcr.io:443:443",
		"me@ghcr.io", "me:word@ghcr.io", "ghcr.io/x", "ghcr.io?x", "ghcr.io#x", "ghcr.io\\x", "gh cr.io", "ghcr.io\n", "ghcr..io", ".ghcr.io", "ghcr.io.", "-a.io", "a-.io", "a_b.io", "bücher.example", "%67hcr.io",
		"metadata.google.internal", "printer.local", "a.localhost", "host.docker.internal", "nas.home.arpa", "x.svc.cluster.local", "a.test", "x.onion", "1.0.0.127.in-addr.arpa",
		strings.Repeat("a", 64) + ".io", strings.Repeat("abc.", 64) + "io",
	} {
		_, err := c.Repository(name, "a/b")
		if !errors.Is(err, origin.ErrRegistryRefused) || !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%.40q: error %v", name, err)
		}
	}
}

// unlisted is a world with the registry reg.pub.com, which resolves to ips and
// answers at all of them.
func unlisted(w *world, ips ...string) (*origintest.Registry, blob.Source, blob.Descriptor) {
	r := w.secure("reg.pub.com", ips[0], origintest.Options{})
	w.resolve("reg.pub.com", ips...)
	for _, ip := range ips[1:] {
		w.alias(net.JoinHostPort(ip, "443"), net.JoinHostPort(ips[0], "443"))
	}
	d := r.AddBlob("lib/x", []byte(data))
	return r, w.of(w.client(origin.Options{}), "reg.pub.com", "lib/x").Blobs(), d
}

func TestPrivateAddressesAreNotDialled(t *testing.T) {
	for ip, public := range map[string]bool{
		"8.8.8.8": true, "192.0.9.1": true, "172.32.0.1": true, "100.128.0.1": true, "2001:4860:4860::8888": true, "2a00::1": true,
		"127.0.0.1": false, "127.8.8.8": false, "10.1.2.3": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "0.1.2.3": false, "255.255.255.255": false, "240.0.0.1": false,
		"224.0.0.1": false, "192.0.0.8": false, "198.18.0.1": false, "203.0.113.1": false, "192.88.99.1": false,
		"::1": false, "::": false, "fe80::1": false, "fc00::1": false, "fd12::1": false, "ff02::1": false, "fec0::1": false,
		"::ffff:10.0.0.1": false, "::ffff:100.64.0.1": false, "::ffff:8.8.8.8": true, "::10.0.0.1": false,
		"64:ff9b::a00:1": false, "64:ff9b:1::1": false, "2002:a00:1::1": false, "2001::1": false, "2001:db8::1": false, "100::1": false,
	} {
		t.Run(ip, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r, src, d := unlisted(w, ip)
				// The guard dials the address that is meant.
				w.alias(net.JoinHostPort(netip.MustParseAddr(ip).Unmap().String(), "443"), net.JoinHostPort(ip, "443"))
				_, body, err := read(t.Context(), src, d, whole)
				if public && (err != nil || body != data) {
					t.Errorf("got %q, %v", body, err)
				}
				if !public && !errors.Is(err, origin.ErrRegistryRefused) {
					t.Errorf("error %v", err)
				}
				synctest.Wait()
				if n := len(r.Requests()); public != (n == 1) || !public && w.dialled.Load() != 0 {
					t.Errorf("%d connections, %d requests", w.dialled.Load(), n)
				}
			})
		})
	}
}

func TestOnlyThePublicOnesOfSeveralAddressesAreDialled(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		_, src, d := unlisted(w, "10.0.0.1", "8.8.8.8")
		w.mu.Lock()
		delete(w.pipes, "10.0.0.1:443") // dialling it would be refused, not found out
		w.mu.Unlock()
		if _, _, err := read(t.Context(), src, d, whole); err != nil {
			t.Error(err)
		}
	})
}

func TestAnAddressThatIsDownCostsLittle(t *testing.T) {
	tests := []struct {
		name string
		down func(context.Context) error
		took time.Duration
	}{
		{name: "refuses", down: func(context.Context) error { return errors.New("refused") }},
		{name: "is silent", down: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, took: 250 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				_, src, d := unlisted(w, "8.8.8.8", "8.8.4.4")
				w.mu.Lock()
				w.down = map[string]func(context.Context) error{"8.8.8.8:443": tt.down}
				w.mu.Unlock()
				begin := time.Now()
				if _, _, err := read(t.Context(), src, d, whole); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
			})
		})
	}
}

func TestNoAddressThatAnswers(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		_, src, d := unlisted(w, "8.8.8.8", "8.8.4.4")
		silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		w.mu.Lock()
		w.down = map[string]func(context.Context) error{"8.8.8.8:443": silent, "8.8.4.4:443": silent}
		w.mu.Unlock()
		begin := time.Now()
		_, _, err := read(t.Context(), src, d, whole)
		// Two looks of 3.5 s each, and what is left of AnswerTimeout.
		if took := time.Since(begin); !errors.Is(err, blob.ErrStalled) || took != 9*time.Second {
			t.Errorf("error %v after %v", err, took)
		}
		w.pass(dialTimeout) // a dial may outlive the request that began it
		synctest.Wait()
		if n := w.dialled.Load(); n != 0 {
			t.Errorf("%d connections", n)
		}
	})
}

// dialTimeout is that of the package.
const dialTimeout = 3500 * time.Millisecond

func TestARegistryThatDoesNotExist(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		begin := time.Now()
		_, err := w.of(w.client(origin.Options{}), "nowhere.pub.com", "lib/x").Resolve(t.Context(), "v1", nil)
		if !errors.Is(err, blob.ErrUnavailable) || time.Since(begin) != 0 {
			t.Errorf("error %v after %v", err, time.Since(begin))
		}
		if got := w.requests(); len(got) != 1 || got[0] != "other HEAD manifest error: 1" {
			t.Errorf("metrics %q", got)
		}
	})
}

func TestRedirectsOfAnUnlistedRegistry(t *testing.T) {
	for location, follows := range map[string]bool{
		"https://cdn.pub.com/v2/lib/x/blobs/":      true,
		"https://cdn.pub.com:443/v2/lib/x/blobs/":  true,
		"http://cdn.pub.com/v2/lib/x/blobs/":       false,
		"https://cdn.pub.com:8443/v2/lib/x/blobs/": false,
		"https://10.0.0.1/v2/lib/x/blobs/":         false,
		"https://8.8.4.4/v2/lib/x/blobs/":          false,
		"https://localhost/v2/lib/x/blobs/":        false,
		"https://[::1]/v2/lib/x/blobs/":            false,
		"https://inside.pub.com/v2/lib/x/blobs/":   false, // resolves to 10.0.0.1
		"https://metadata.google.internal/":        false,
	} {
		t.Run(location, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r, src, d := unlisted(w, "8.8.8.8")
				cdn := w.secure("cdn.pub.com", "8.8.4.4", origintest.Options{})
				w.alias("cdn.pub.com:80", "8.8.4.4:443")
				cdn.AddBlob("lib/x", []byte(data))
				inside := w.secure("inside.pub.com", "10.0.0.1", origintest.Options{})
				inside.AddBlob("lib/x", []byte(data))
				r.Fault(origintest.Fault{Effect: origintest.Redirect(location + d.Digest.String())})
				_, body, err := read(t.Context(), src, d, whole)
				if follows && (err != nil || body != data) {
					t.Errorf("got %q, %v", body, err)
				}
				if !follows && !errors.Is(err, origin.ErrRegistryRefused) {
					t.Errorf("error %v", err)
				}
				synctest.Wait()
				if n := len(cdn.Requests()); follows != (n == 1) || len(inside.Requests()) != 0 {
					t.Errorf("%d requests at the CDN, %d inside", n, len(inside.Requests()))
				}
			})
		})
	}
}

func TestAListedRegistryMayLeadInside(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("harbor.lan:80", origintest.Options{RedirectBlobs: true, CDN: "http://10.0.0.7:9000"})
		w.alias("10.0.0.7:9000", "harbor.lan:80")
		d := r.AddBlob("lib/x", []byte(data))
		if _, _, err := read(t.Context(), w.repository("harbor.lan").Blobs(), d, whole); err != nil {
			t.Error(err)
		}
	})
}

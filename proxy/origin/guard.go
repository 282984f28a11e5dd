package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"shoal/blobcache/blob"
)

// ErrRegistryRefused is a registry, or a host that it leads to, that may not
// be asked because the operator did not list it and it is not a public name. A
// mirror must not become a way into the network it stands in. It is a
// blob.ErrNotFound too.
var ErrRegistryRefused = fmt.Errorf("%w: not a listed registry nor a public one", blob.ErrNotFound)

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRegistryRefused, fmt.Sprintf(format, args...))
}

// privateName tells whether public DNS does not serve a name (RFC 6761, 6762,
// 7686, 8375, 9476; .internal by resolution of ICANN's board of July 2024).
func privateName(host string) bool {
	switch host[strings.LastIndexByte(host, '.')+1:] {
	case "localhost", "local", "internal", "arpa", "test", "invalid", "onion", "alt":
		return true
	}
	return false
}

// publicName checks a registry's name that the operator did not list and
// returns the host to ask. Only DNS names of at least two labels pass, on the
// port of HTTPS.
func publicName(registry string) (string, error) {
	host, port, hasPort := strings.Cut(registry, ":")
	if hasPort && port != "443" {
		return "", refuse("port of %.80q", registry)
	}
	host = strings.ToLower(host)
	labels := strings.Split(host, ".")
	if len(host) > 253 || len(labels) < 2 {
		return "", refuse("%.80q is not a public name", registry)
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return "", refuse("%.80q is not a name", registry)
		}
	}
	// Resolvers take 127.1, 0x7f.1 and the like for addresses; no top-level
	// domain begins with a digit.
	if top := labels[len(labels)-1]; top[0] >= '0' && top[0] <= '9' {
		return "", refuse("%.80q is an address", registry)
	}
	if privateName(host) {
		return "", refuse("%.80q is a private name", registry)
	}
	return host, nil
}

// guard connects to public addresses only. It resolves the name itself and
// dials the address that it checked, so that a second look-up cannot give
// another one.
type guard struct {
	resolver Resolver
	dial     DialFunc
	// private are the ranges that netip's own predicates leave out of the IANA
	// registries of special-purpose addresses, and those that carry an IPv4
	// address to a gateway of the network.
	private []netip.Prefix
}

func newGuard(r Resolver, dial DialFunc) guard {
	g := guard{resolver: r, dial: dial}
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
		"2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		g.private = append(g.private, netip.MustParsePrefix(s))
	}
	return g
}

// public tells whether a is an address of the public internet.
func (g guard) public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Zone() != "" {
		return false
	}
	return !slices.ContainsFunc(g.private, func(p netip.Prefix) bool { return p.Contains(a) })
}

// headStart is how long an address may take before the next one is tried
// beside it (RFC 8305, section 8).
const headStart = 250 * time.Millisecond

func (g guard) dialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ips, err := g.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	ips = slices.DeleteFunc(slices.Clone(ips), func(a netip.Addr) bool { return !g.public(a) })
	if len(ips) == 0 {
		return nil, refuse("%.80q has no public address", host)
	}
	return g.race(ctx, network, port, ips)
}

// race connects to the first of ips that lets it, each with a head start.
func (g guard) race(ctx context.Context, network, port string, ips []netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, len(ips))
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	for started := 0; ; {
		select {
		case <-next.C:
			if started == len(ips) {
				continue
			}
			addr := net.JoinHostPort(ips[started].Unmap().String(), port)
			started++
			go func() {
				conn, err := g.dial(ctx, network, addr)
				results <- result{conn, err}
			}()
			next.Reset(headStart)
		case r := <-results:
			if r.err == nil {
				// Those that still run are cancelled; what one of them
				// connected all the same is closed.
				go func(rest int) {
					for range rest {
						if late := <-results; late.conn != nil {
							_ = late.conn.Close()
						}
					}
				}(started - len(errs) - 1)
				return r.conn, nil
			}
			errs = append(errs, r.err)
			if len(errs) == len(ips) {
				return nil, errors.Join(errs...)
			}
			next.Reset(0)
		}
	}
}

// Package public keeps a client on the public internet: it tells public DNS
// names from others, and dials nothing but public addresses. It is for
// registries that a stranger's request names; what the operator lists needs no
// guard.
//
// What always holds: a Dialer connects to the very address that it checked,
// whatever the name resolves to a moment later. Its goroutines end with the
// dial that they belong to.
package public

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

// ErrRefused is a registry, or a host that it leads to, that may not be asked
// because the operator did not list it and it is not public. A mirror must not
// become a way into the network it stands in. It is a blob.ErrNotFound too.
var ErrRefused = fmt.Errorf("%w: not a listed registry nor a public one", blob.ErrNotFound)

// Refuse returns an ErrRefused with its reason.
func Refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
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

// Name checks the name of a registry, with a port if it has one, and returns
// the host to ask. Only DNS names of at least two labels pass, on the port of
// HTTPS; the error is ErrRefused.
func Name(registry string) (string, error) {
	host, port, hasPort := strings.Cut(registry, ":")
	if hasPort && port != "443" {
		return "", Refuse("port of %.80q", registry)
	}
	host = strings.ToLower(host)
	labels := strings.Split(host, ".")
	if len(host) > 253 || len(labels) < 2 {
		return "", Refuse("%.80q is not a public name", registry)
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return "", Refuse("%.80q is not a name", registry)
		}
	}
	// Resolvers take 127.1, 0x7f.1 and the like for addresses; no top-level
	// domain begins with a digit.
	if top := labels[len(labels)-1]; top[0] >= '0' && top[0] <= '9' {
		return "", Refuse("%.80q is an address", registry)
	}
	if privateName(host) {
		return "", Refuse("%.80q is a private name", registry)
	}
	return host, nil
}

// Resolver looks names up, as *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// DialFunc connects, as (*net.Dialer).DialContext does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Dialer connects to public addresses only. It is made by NewDialer.
type Dialer struct {
	resolver Resolver
	dial     DialFunc
	timeout  time.Duration
	// private are the ranges that netip's own predicates leave out of the IANA
	// registries of special-purpose addresses, and those that carry an IPv4
	// address to a gateway of the network.
	private []netip.Prefix
}

// NewDialer returns a Dialer that takes at most timeout for look-up and
// connect together.
func NewDialer(r Resolver, dial DialFunc, timeout time.Duration) *Dialer {
	d := &Dialer{resolver: r, dial: dial, timeout: timeout}
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
		"2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		d.private = append(d.private, netip.MustParsePrefix(s))
	}
	return d
}

// public tells whether a is an address of the public internet.
func (d *Dialer) public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Zone() != "" {
		return false
	}
	return !slices.ContainsFunc(d.private, func(p netip.Prefix) bool { return p.Contains(a) })
}

// headStart is how long an address may take before the next one is tried
// beside it (RFC 8305, section 8).
const headStart = 250 * time.Millisecond

// DialContext connects to addr, "host:port", if the host has a public address;
// the error is ErrRefused if it has none.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ips, err := d.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	ips = slices.DeleteFunc(slices.Clone(ips), func(a netip.Addr) bool { return !d.public(a) })
	if len(ips) == 0 {
		return nil, Refuse("%.80q has no public address", host)
	}
	return d.race(ctx, network, port, ips)
}

// race connects to the first of ips that lets it, each with a head start.
func (d *Dialer) race(ctx context.Context, network, port string, ips []netip.Addr) (net.Conn, error) {
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
				conn, err := d.dial(ctx, network, addr)
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

// Package origin is the client of upstream registries: it resolves tags, reads
// manifests, and gives the blobs of a repository as a blob.Source. It is not a
// cache and proves nothing about blobs; manifests are checked against their
// digest, since they are whole in memory anyway.
//
// What always holds: every wait for the network has a deadline (an answer
// within AnswerTimeout over all retries and upstreams, then NoProgress between
// any two bytes); credentials go to the host that they are for and to no
// other; and a registry that the operator did not list is reached only by a
// public name over HTTPS, at a public address, redirects and token endpoints
// included.
//
// Of several upstreams the first one that works is asked. One that refuses,
// fails or is silent is asked after the others for a while, which grows as it
// goes on failing; then a copy of some question, which nobody waits for, finds
// out whether it works again.
//
// A Client owns no goroutines but those of its idle connections and of such
// copies, which Close ends, and of running requests, which end with their
// context or deadline.
package origin

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/blob"
	"shoal/proxy/origin/auth"
	"shoal/proxy/origin/public"
)

// DockerHub is the registry that a request means when it names none.
const DockerHub = "docker.io"

// dialTimeout is how long a look-up and a connect may take: over two lost SYNs
// (1 s and 2 s), and below HeaderTimeout.
const dialTimeout = 3500 * time.Millisecond

// Upstreams maps the name of a registry to the base URLs of its upstreams, the
// first one preferred.
type Upstreams map[string][]string

// ErrRegistryRefused is a registry, or a host that it leads to, that the
// operator did not list and that is not public. It is a blob.ErrNotFound too.
var ErrRegistryRefused = public.ErrRefused

// What reaches the network, and stands in for it in tests.
type (
	// Resolver looks names up, as *net.Resolver does.
	Resolver = public.Resolver
	// DialFunc connects, as (*net.Dialer).DialContext does.
	DialFunc = public.DialFunc
)

// Options for New. The zero value is usable.
type Options struct {
	// Registries are those that the operator listed. docker.io is
	// https://registry-1.docker.io unless it is listed otherwise.
	Registries Upstreams
	// UserAgent is sent with every request; empty is "shoal".
	UserAgent string
	Logger    *slog.Logger          // nil discards
	Metrics   prometheus.Registerer // nil registers nothing

	// HeaderTimeout is how long one request may take to its headers,
	// connecting included; 0 is 5 s.
	HeaderTimeout time.Duration
	// FailoverTimeout is the same, and the longest time without a byte, while
	// there is another upstream to ask; 0 is 2.5 s: above one lost SYN, and a
	// client has its answer from the next one within 3 s.
	FailoverTimeout time.Duration
	// AnswerTimeout is how long an upstream's answer may take with all
	// retries, redirects, tokens and other upstreams; 0 is 9 s, so that a
	// client hears within 10 s that a blob cannot be had.
	AnswerTimeout time.Duration
	// NoProgress is how long a body may go without a byte; 0 is 10 s.
	NoProgress time.Duration

	// TLS is the client configuration for HTTPS; nil is Go's default.
	TLS *tls.Config
	// Dial and Resolver reach the network; nil is net's own.
	Dial     DialFunc
	Resolver Resolver
}

// Client talks to all upstream registries. It is safe for concurrent use.
type Client struct {
	o          Options
	registries map[string][]*upstream
	listed     *http.Transport
	guarded    *http.Transport // to public addresses only
	tokens     *auth.Tokens
	targets    *targets
	metrics    *metrics
	probes     *probes
	anonymous  atomic.Uint64 // bodies without any validator
}

// upstream is one base URL of a registry.
type upstream struct {
	base      *url.URL // scheme and host, nothing else
	label     string   // of the registry, in metrics
	unlisted  bool     // everything it leads to must be public
	transport *http.Transport
	health    *health // nil if it is not listed, because then there is no other
}

// New returns a Client. It fails if an upstream is not a plain http or https
// URL, or if the metrics are registered already.
func New(o Options) (*Client, error) {
	o = o.withDefaults()
	c := &Client{o: o, registries: map[string][]*upstream{}, tokens: auth.NewTokens(), targets: newTargets(), probes: &probes{closing: make(chan struct{})}}
	c.listed = o.transport(o.Dial)
	c.guarded = o.transport(public.NewDialer(o.Resolver, o.Dial, dialTimeout).DialContext)
	registries := Upstreams{DockerHub: {"https://registry-1.docker.io"}}
	for name, bases := range o.Registries {
		registries[strings.ToLower(name)] = bases
	}
	for name, bases := range registries {
		if len(bases) == 0 {
			return nil, fmt.Errorf("registry %s has no upstream", name)
		}
		for _, base := range bases {
			u, err := parseBase(base)
			if err != nil {
				return nil, fmt.Errorf("registry %s: %w", name, err)
			}
			c.registries[name] = append(c.registries[name], &upstream{base: u, label: name, transport: c.listed, health: &health{}})
		}
	}
	var err error
	if c.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	for name, ups := range c.registries {
		for _, up := range ups {
			c.metrics.failing.WithLabelValues(name, up.base.String()).Set(0)
		}
	}
	return c, nil
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.UserAgent == "" {
		o.UserAgent = "shoal"
	}
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
	}{{&o.HeaderTimeout, 5 * time.Second}, {&o.FailoverTimeout, 2500 * time.Millisecond}, {&o.AnswerTimeout, 9 * time.Second}, {&o.NoProgress, 10 * time.Second}} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	return o
}

// transport returns an HTTP/1.1 transport: one stream for each connection has
// no window to be throttled by, and ranges of one blob are spread over several.
func (o Options) transport(dial DialFunc) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        o.TLS.Clone(),
		TLSHandshakeTimeout:    o.HeaderTimeout,
		Protocols:              protocols,
		DisableCompression:     true, // what is hashed is what was sent
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         32 << 10,
	}
}

// parseBase checks the base URL of an upstream.
func parseBase(base string) (*url.URL, error) {
	u, err := url.Parse(base)
	if err != nil {
		// The error would quote it, with a password if it holds one.
		return nil, errors.New("upstream is not a URL")
	}
	switch {
	case u.User != nil:
		return nil, fmt.Errorf("upstream at %s: credentials do not belong into the URL", u.Host)
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return nil, fmt.Errorf("upstream %q is not an http or https URL", base)
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("upstream %q has more than scheme, host and port", base)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// Close ends probes and drops idle connections. Bodies that are being read go
// on.
func (c *Client) Close() {
	c.probes.close()
	c.listed.CloseIdleConnections()
	c.guarded.CloseIdleConnections()
}

// Repository is one repository of a registry.
type Repository struct {
	client    *Client
	upstreams []*upstream
	registry  string
	name      string
}

// String returns the repository as people write it, such as
// "docker.io/library/nginx". It is the same for all sources of the repository.
func (r *Repository) String() string { return r.registry + "/" + r.name }

// nameGrammar is <name> of the distribution specification.
var nameGrammar = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// pathGrammar is what comes behind the name: tags, digests, and the fixed parts
// of paths. It has no room for "..", escapes and queries.
var pathGrammar = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.+:-]*(/[a-zA-Z0-9_][a-zA-Z0-9_.+:-]*)*$`)

// Repository returns the repository name of the registry that is called by
// that host name, with a port if it has one. It asks nobody. Errors:
// ErrRegistryRefused for a registry that is neither listed nor public, and
// blob.ErrNotFound for a name outside the grammar; both are blob.ErrNotFound.
func (c *Client) Repository(registry, name string) (*Repository, error) {
	if len(name) > 255 || !nameGrammar.MatchString(name) {
		return nil, fmt.Errorf("%w: invalid repository name", blob.ErrNotFound)
	}
	registry = strings.ToLower(registry)
	ups, ok := c.registries[registry]
	if !ok {
		host, err := public.Name(registry)
		if err != nil {
			return nil, err
		}
		ups = []*upstream{{
			base:      &url.URL{Scheme: "https", Host: host},
			label:     unlistedLabel,
			unlisted:  true,
			transport: c.guarded,
		}}
	}
	return &Repository{client: c, upstreams: slices.Clone(ups), registry: registry, name: name}, nil
}

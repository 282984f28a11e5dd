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
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
	"shoal/proxy/name"
	"shoal/proxy/origin/auth"
	"shoal/proxy/origin/public"
)

// DockerHub is the registry that a request means when it names none.
const DockerHub = "docker.io"

// dockerHubHost is where it answers.
const dockerHubHost = "registry-1.docker.io"

// dialTimeout is how long a look-up and a connect may take: over two lost SYNs
// (1 s and 2 s), and below HeaderTimeout.
const dialTimeout = 3500 * time.Millisecond

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
	Registries Registries
	// Offline: nothing is asked, and every question is blob.ErrUnavailable at once.
	Offline bool
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
	// MaxManifest is the largest manifest in bytes; 0 is blob.MaxManifestSize.
	MaxManifest int64

	// Pace limits the bytes of all answers, each for the pace.Flow of the context
	// in which it was asked for; nil does not. Time spent waiting for it counts
	// for no deadline.
	Pace pace.Limits

	// TLS is the client configuration for HTTPS; nil is Go's default.
	TLS *tls.Config
	// Proxy names the proxy for a request of a registry that says none itself;
	// nil is http.ProxyFromEnvironment.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial and Resolver reach the network; nil is net's own.
	Dial     DialFunc
	Resolver Resolver
}

// Client talks to all upstream registries. It is safe for concurrent use.
type Client struct {
	o          Options
	registries map[string]*registry
	unlisted   transports
	transports []*http.Transport // all of them
	tokens     *auth.Tokens
	targets    *targets
	metrics    *metrics
	probes     *probes
	anonymous  atomic.Uint64 // bodies without any validator
}

// registry is a registry that the operator listed.
type registry struct {
	Registry
	upstreams []*upstream
}

// upstream is one base URL of a registry.
type upstream struct {
	base     *url.URL // scheme, host, and the folder of its repositories
	label    string   // of the registry, in metrics
	unlisted bool     // everything it leads to must be public
	transports
	login  *login  // nil is anonymous
	health *health // nil if it is not listed, because then there is no other
}

// New returns a Client. It fails if a Registry is not as its fields want it,
// if its files cannot be read, or if the metrics are registered already.
func New(o Options) (*Client, error) {
	o = o.withDefaults()
	c := &Client{o: o, registries: map[string]*registry{}, tokens: auth.NewTokens(), targets: newTargets(), probes: newProbes()}
	g := c.guarded()
	c.unlisted = transports{own: g, away: g}
	var err error
	if c.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	if o.Offline {
		c.metrics.offline.Set(1)
	}
	registries := Registries{DockerHub: {}}
	for name, r := range o.Registries {
		registries[strings.ToLower(name)] = r
	}
	for name, r := range registries {
		if err := c.list(name, r); err != nil {
			return nil, fmt.Errorf("registry %s: %w", name, err)
		}
	}
	return c, nil
}

// list takes a registry in.
func (c *Client) list(name string, r Registry) error {
	if err := r.Check(); err != nil {
		return err
	}
	if len(r.Upstreams) == 0 {
		r.Upstreams = []string{"https://" + name}
		if name == DockerHub {
			r.Upstreams = []string{"https://" + dockerHubHost}
		}
	}
	if r.InsecureSkipVerify {
		c.o.Logger.Warn("insecure-skip-verify: whoever is on the way to this registry can say what its tags mean", "registry", name)
	}
	t, err := c.listed(r)
	if err != nil {
		return err
	}
	account, err := r.account()
	if err != nil {
		return err
	}
	listed := &registry{Registry: r}
	for _, base := range r.Upstreams {
		u, err := parseBase(base)
		if err != nil {
			return err
		}
		up := &upstream{base: u, label: name, transports: t, health: &health{}}
		if len(listed.upstreams) == 0 || sameHost(u, listed.upstreams[0].base) || r.DockerConfig != "" {
			up.login = account.at(u.Host)
		}
		c.metrics.failing.WithLabelValues(name, u.String()).Set(0)
		listed.upstreams = append(listed.upstreams, up)
	}
	c.registries[name] = listed
	return nil
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
	if o.MaxManifest == 0 {
		o.MaxManifest = blob.MaxManifestSize
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	return o
}

// Close ends probes and drops idle connections. Bodies that are being read go
// on.
func (c *Client) Close() {
	c.probes.close()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

// Repository is one repository of a registry.
type Repository struct {
	client    *Client
	upstreams []*upstream
	registry  string
	name      string
	listed    bool
	byClient  *ByClient // nil if the node asks in its own name
	bearer    string    // the header of a client, if byClient is set
}

// String returns the repository as people write it, such as
// "docker.io/library/nginx". It is the same for all sources of the repository.
func (r *Repository) String() string { return r.registry + "/" + r.name }

// pathGrammar is what comes behind the name: tags, digests, and the fixed parts
// of paths. It has no room for "..", escapes and queries.
var pathGrammar = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.+:-]*(/[a-zA-Z0-9_][a-zA-Z0-9_.+:-]*)*$`)

// Repository returns the repository name of the registry that is called by
// that host name, with a port if it has one. It asks nobody. Errors:
// ErrRegistryRefused for a registry that is neither listed nor public,
// ErrRepositoryRefused for one that the operator does not let be asked for,
// and blob.ErrNotFound for a name outside the grammar; all are
// blob.ErrNotFound.
func (c *Client) Repository(registry, repo string) (*Repository, error) {
	if !name.Valid(repo) {
		return nil, fmt.Errorf("%w: invalid repository name", blob.ErrNotFound)
	}
	registry = strings.ToLower(registry)
	if r, ok := c.registries[registry]; ok {
		if err := r.permit(registry, repo); err != nil {
			return nil, err
		}
		return &Repository{client: c, upstreams: r.upstreams, registry: registry, name: repo, listed: true, byClient: r.byClient()}, nil
	}
	host, err := public.Name(registry)
	if err != nil {
		return nil, err
	}
	up := &upstream{base: &url.URL{Scheme: "https", Host: host}, label: unlistedLabel, unlisted: true, transports: c.unlisted}
	return &Repository{client: c, upstreams: []*upstream{up}, registry: registry, name: repo}, nil
}

// repository returns the name that a repository has at the upstream.
func (u *upstream) repository(name string) string {
	return strings.TrimPrefix(u.base.Path+"/"+name, "/")
}

// carrier returns what carries a request to a URL that u led to.
func (u *upstream) carrier(to *url.URL) http.RoundTripper {
	if sameHost(to, u.base) {
		return u.own
	}
	return u.away
}

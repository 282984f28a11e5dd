// Package proxy is the registry endpoint that container runtimes are pointed
// at: the pull half of the OCI distribution specification in front of the
// cache, the swarm and the upstream registries. It is no registry: it takes no
// pushes, and has no word of its own on what a tag means. It keeps what
// upstreams said of tags, and what seeders were told whom the operator trusts, for
// as long as the operator lets it.
//
// What always holds: /v2/ is answered at once, whatever else hangs; what cannot
// be served is a 404 within ten seconds, before any header of a 200; once a 200
// is out the body ends cleanly only if it is proven, and else by a reset. What
// came by way of a registry that is asked in the name of each client is only for
// whom that registry permits it (access.go); that the cache has it is no
// permission.
//
// Requests are served in the goroutines of the http.Server. Run owns those of
// prefetching and healing. A question about a tag, or about what a client may have, and a look into the cache that hashes a
// blob anew, can outlive the client that caused it, the former by ten seconds
// at most.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/lru"
	"shoal/blobcache/statement"
	"shoal/proxy/origin"
	"shoal/proxy/policy"
	"shoal/proxy/pull"
	"shoal/proxy/request"
)

// lookupPatience bounds everything that happens before the headers of an
// answer. Clients wait 30 s and longer, but have a next endpoint to go to: ten
// seconds are promised.
const lookupPatience = 9 * time.Second

// Fetcher brings blobs into the cache; the node in the swarm is one.
type Fetcher interface {
	// Fetch returns the fill of d, joined or started, as soon as some source
	// has committed itself to d. ctx governs the wait for that only; the fill
	// goes on without it, and is started even if ctx has ended. origin is asked
	// when nobody else has d; it gives the blobs of a repository in the order
	// in which their fills were started. Errors: those of package blob,
	// wrapped.
	Fetch(ctx context.Context, d blob.Descriptor, origin blob.Source) (*blobcache.Fill, error)
}

// Options say what a Proxy works with. Cache, Fetcher and Origin are needed.
type Options struct {
	Cache   *blobcache.Cache
	Fetcher Fetcher
	Origin  *origin.Client
	// MaxManifest is the largest manifest in bytes, the same as that of Origin; 0
	// is blob.MaxManifestSize.
	MaxManifest int64
	// Offline: Origin asks nobody, so that tags are what they were, however long
	// ago.
	Offline bool
	// Platforms are the ones whose images are prefetched when an index names
	// several; nil is Linux on this machine's architecture.
	Platforms []ocispec.Platform
	// Signer signs leases of the tags that registries are asked about, and Lease
	// has others told of each, without waiting; nil: none are made.
	Signer  *statement.Signer
	Lease   func(statement.Lease)
	Logger  *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil registers nothing
	// Pulls is told of all requests for manifests and blobs; nil: none is.
	Pulls *pull.Recorder
}

// Proxy is the endpoint, an http.Handler.
type Proxy struct {
	cache    *blobcache.Cache
	fetcher  Fetcher
	origin   *origin.Client
	log      *slog.Logger
	metrics  *metrics
	tags     *tags
	leases   *leases
	prefetch *prefetcher
	// maxManifest is the largest manifest in bytes.
	maxManifest int64
	notices     *notices
	pulls       *pull.Recorder // nil if nobody wants to know
	offline     bool
	book        *policy.Book // of registries that are asked in the name of clients
	wallets     *wallets
	greeting    *greeting
	version     []string // the header that every answer has
	// heads are what manifests are, of those whose bytes say it: a HEAD need not
	// read them again.
	heads   *lru.Cache[digest.Digest, head]
	accepts *lru.Cache[string, accepts] // by the header
	date    date
	// rotten are blobs of which wrong bytes went out past the cache, with the
	// time until which they are not served.
	rotten *lru.Cache[digest.Digest, time.Time]
	// reprovePatience is the constant of that name; tests have less.
	reprovePatience time.Duration
	// waiting is how many clients follow a fill.
	waiting atomic.Int64
}

// New returns a Proxy that serves at once; Run adds prefetching and healing.
func New(o Options) (*Proxy, error) {
	p := &Proxy{cache: o.Cache, fetcher: o.Fetcher, origin: o.Origin, log: o.Logger, reprovePatience: reprovePatience}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if p.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	wanted := o.Platforms
	if wanted == nil {
		wanted = []ocispec.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	p.maxManifest = cmp.Or(o.MaxManifest, blob.MaxManifestSize)
	p.tags = newTags(p.cache)
	p.leases = newLeases(o.Signer, o.Lease)
	p.offline = o.Offline
	p.notices = newNotices()
	p.pulls = o.Pulls
	p.book = policy.New(time.Now)
	p.wallets = newWallets(p.book)
	p.greeting = &greeting{origin: p.origin}
	p.version = []string{"registry/2.0"}
	p.heads = lru.New[digest.Digest, head](maxHeads)
	p.accepts = lru.New[string, accepts](maxAccepts)
	p.prefetch = newPrefetcher(p, wanted)
	p.rotten = lru.New[digest.Digest, time.Time](maxNotices)
	return p, nil
}

// Run prefetches, and brings again what rotted, until ctx ends, and returns when
// its goroutines have.
func (p *Proxy) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	for _, part := range []func(context.Context){p.prefetch.run, p.heal, p.learn} {
		parts.Go(func() { part(ctx) })
	}
	parts.Wait()
	return context.Cause(ctx)
}

// exchange is one request and its answer.
type exchange struct {
	*Proxy
	w     http.ResponseWriter
	r     *http.Request
	req   request.Request
	repo  *origin.Repository
	named string // the repository: registry and name
	start time.Time
	// Of a client in whose name the registry is asked: how, its token and who
	// that is. by is nil if the registry is asked in the node's name.
	by     *origin.ByClient
	bearer string
	who    policy.Who
	// sure: the registry said that what is asked for is in this repository.
	sure bool
	// anew: what a tag is is asked, however long it may be believed.
	anew bool
	// status is that of the headers that went out, 0 before.
	status int

	// Of the body of a blob: its size, what of it the client wants, once the
	// headers are out, and how many bytes of that went out.
	size int64
	want blob.Range
	sent int64

	seen *pull.Request // what the recorder of pulls is told; nil if it is nothing
}

// ServeHTTP answers a client. It panics with http.ErrAbortHandler, as net/http
// wants it, to cut a body off.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{Proxy: p, w: w, r: r, start: time.Now()}
	defer func() { p.metrics.count(x.req.Kind, r.Method, x.status) }()
	w.Header()["Docker-Distribution-Api-Version"] = p.version
	if r.ContentLength != 0 { // a push; net/http would wait for its body for ever
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(pushPatience))
	}
	ctx := r.Context()
	err := x.answer(ctx)
	x.seenOff(ctx, err)
	if err != nil {
		x.fail(ctx, err)
	}
}

func (x *exchange) answer(ctx context.Context) (err error) {
	x.req, err = request.Parse(x.r.URL)
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return errReadOnly
	}
	if err != nil {
		return err
	}
	if x.req.Kind == request.Ping { // before anything that could wait
		x.ping(ctx)
		return nil
	}
	repo, err := x.origin.Repository(x.req.Registry, x.req.Name)
	if err != nil {
		return err
	}
	x.identify(repo)
	x.see()
	switch x.req.Kind {
	case request.Manifest:
		return x.manifest(ctx)
	case request.Blob:
		return x.blob(ctx)
	case request.Tags:
		return x.tagList(ctx)
	default:
		return x.referrers(ctx)
	}
}

// ping answers /v2/: with how to get a token for Docker Hub, if its clients are to
// bring one.
func (x *exchange) ping(ctx context.Context) {
	x.w.Header().Set("Content-Type", "application/json")
	if bearer(x.r.Header) == "" {
		if challenge := x.greeting.get(ctx); challenge != "" {
			x.w.Header().Set("WWW-Authenticate", challenge)
			x.small(http.StatusUnauthorized, logIn().body())
			return
		}
	}
	x.small(http.StatusOK, []byte("{}"))
}

// fetch asks the Fetcher for d. The size may be what an upstream's HEAD or some
// other image's manifest said; if it is wrong, d is asked for without it.
func (x *exchange) fetch(ctx context.Context, d blob.Descriptor, source blob.Source) (*blobcache.Fill, error) {
	if err := x.restrict(d.Digest); err != nil {
		return nil, err
	}
	fill, err := x.fetcher.Fetch(ctx, d, source)
	if x.by != nil && errors.Is(err, blob.ErrDenied) {
		// It may have been another client that was refused.
		if again, errAgain := x.fetcher.Fetch(ctx, d, source); errAgain == nil {
			return again, nil
		}
	}
	if d.Size >= 0 && errors.Is(err, blob.ErrCorrupt) && !errors.Is(err, blob.ErrNotFound) {
		d.Size = blob.UnknownSize
		return x.fetcher.Fetch(ctx, d, source)
	}
	return fill, err
}

// small sends a body that is at hand; net/http keeps it back for HEAD.
func (x *exchange) small(status int, body []byte) {
	x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	x.header(status)
	// A client that has left needs no body.
	_, _ = x.w.Write(body)
}

func (x *exchange) header(status int) {
	x.status = status
	x.w.WriteHeader(status)
}

// fail tells the client about err, or cuts it off if it is in a body already.
func (x *exchange) fail(ctx context.Context, err error) {
	gone := ctx.Err() != nil
	if !gone {
		x.note(ctx, err)
	}
	if gone || x.status != 0 {
		panic(http.ErrAbortHandler)
	}
	f, told := x.refuse(err)
	if !told {
		f = explain(err, x.req)
	}
	h := x.w.Header()
	for _, key := range []string{"Docker-Content-Digest", "Etag", "Accept-Ranges", "Warning", leaseHeader} {
		h.Del(key) // of the content that there is not
	}
	if f.status == http.StatusMethodNotAllowed {
		h.Set("Allow", "GET, HEAD")
	}
	h.Set("Content-Type", "application/json")
	x.small(f.status, f.body())
}

// note logs why a client does not get what it asked for: once a minute for each
// thing, because clients try again by the thousand.
func (x *exchange) note(ctx context.Context, err error) {
	ref := x.req.Tag + x.req.Digest.String()
	level := gravity(err)
	if x.by != nil && errors.Is(err, blob.ErrDenied) && x.repo.Challenge(err) != "" {
		level = slog.LevelDebug // every pull begins like that
	}
	if level > slog.LevelDebug && !x.notices.first(x.req.Registry+"/"+x.req.Name+"@"+ref, time.Minute) {
		level = slog.LevelDebug
	}
	x.log.Log(ctx, level, "not served", "kind", x.req.Kind.String(), "registry", x.req.Registry,
		"name", x.req.Name, "ref", ref, "cut", x.status != 0, "error", err)
}

// gravity tells the clients' mistakes, and what just is not there, from what an
// operator should know.
func gravity(err error) slog.Level {
	if errors.Is(err, origin.ErrRepositoryRefused) {
		return slog.LevelInfo // the operator wants it so, and others may ask him why
	}
	for _, usual := range []error{
		blob.ErrNotFound, blob.ErrDigestInvalid, errReadOnly, errClient,
		request.ErrNoRoute, request.ErrNameInvalid, request.ErrTagInvalid, request.ErrRange,
	} {
		if errors.Is(err, usual) {
			return slog.LevelDebug
		}
	}
	return slog.LevelWarn
}

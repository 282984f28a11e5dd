// Package origintest is the origin registry of tests, demo and lab: it serves
// images that it makes up from a seed, over an uplink whose rate is shared by
// all connections, counts and logs what it was asked and what left it, and
// misbehaves in declared ways. It serves pulls only and is not a registry for
// real use: it stores nothing and trusts everybody.
//
// A Registry is an http.Handler and may be served by anything; Listen and
// Start serve it on a port of their own, a Pipe serves it without a network.
// What always holds: the counters are exact, whatever fault is injected, and
// the same seed gives the same digests. A Registry starts no goroutines; a
// Server owns those of its listeners and has ended them when Close returns.
package origintest

import (
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// Options declare a Registry. The zero value is a fast, open registry without
// faults.
type Options struct {
	// UplinkBitsPerSecond limits the bodies of all responses together; 0 is
	// no limit. Connections that want more share it evenly.
	UplinkBitsPerSecond int64
	// Latency passes before the headers of every response, as a round trip
	// to a distant registry would.
	Latency time.Duration
	// Auth, if set, demands a bearer token, or a user and password, for
	// everything below /v2/.
	Auth *TokenAuth
	// RedirectBlobs answers GET and HEAD of blobs with 307 to a second host,
	// as registries with a CDN do. CDN is the base URL of that host; a Server
	// fills it in when it is empty.
	RedirectBlobs bool
	CDN           string
	// NoRange ignores Range on every request.
	NoRange bool
}

// Registry is the whole of one origin: content, link, log and faults. Its
// methods may be called from any goroutine, also while it serves.
type Registry struct {
	o       Options
	link    *uplink
	pool    []byte // random bytes that layers are cut from
	buffers sync.Pool
	tokens  tokens

	mu     sync.Mutex
	cdn    string
	signed int // redirects carry this number; lower ones are expired
	repos  map[string]*repository
	bodies map[digest.Digest]content
	faults []*injected

	log record // locks itself
}

// repository is one name with its tags; guarded by Registry.mu.
type repository struct {
	tags      map[string]digest.Digest
	manifests map[digest.Digest]blob.Descriptor
	blobs     map[digest.Digest]blob.Descriptor
}

// New returns a Registry without images.
func New(o Options) *Registry {
	r := &Registry{
		o:       o,
		link:    newUplink(o.UplinkBitsPerSecond),
		pool:    randomPool(),
		buffers: sync.Pool{New: func() any { b := make([]byte, sliceMax); return &b }},
		cdn:     o.CDN,
		repos:   map[string]*repository{},
		bodies:  map[digest.Digest]content{},
		log:     record{stats: newStats()},
	}
	if o.Auth != nil {
		r.tokens.login = o.Auth.Login
	}
	return r
}

// AddBlob puts a blob into the repository name and returns its descriptor.
func (r *Registry) AddBlob(name string, data []byte) blob.Descriptor {
	return r.AddBlobBy(digest.SHA256, name, data)
}

// AddBlobBy is AddBlob with a digest of any algorithm.
func (r *Registry) AddBlobBy(algorithm digest.Algorithm, name string, data []byte) blob.Descriptor {
	d := blob.Descriptor{
		Digest:    algorithm.FromBytes(data),
		Size:      int64(len(data)),
		MediaType: "application/octet-stream",
	}
	r.add(name, d, bytesContent(data))
	return d
}

// AddManifest puts a manifest of any type into the repository name, and lets
// tag point to it unless tag is empty. The bytes are not looked at.
func (r *Registry) AddManifest(name, tag, mediaType string, data []byte) blob.Descriptor {
	return r.AddManifestBy(digest.SHA256, name, tag, mediaType, data)
}

// AddManifestBy is AddManifest with a digest of any algorithm.
func (r *Registry) AddManifestBy(algorithm digest.Algorithm, name, tag, mediaType string, data []byte) blob.Descriptor {
	d := blob.Descriptor{Digest: algorithm.FromBytes(data), Size: int64(len(data)), MediaType: mediaType}
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := r.repo(name)
	repo.manifests[d.Digest] = d
	r.bodies[d.Digest] = bytesContent(data)
	if tag != "" {
		repo.tags[tag] = d.Digest
	}
	return d
}

// Remove forgets a blob or manifest of every repository, and the tags on it.
func (r *Registry) Remove(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.bodies, d)
	for _, repo := range r.repos {
		delete(repo.manifests, d)
		delete(repo.blobs, d)
		for tag, to := range repo.tags {
			if to == d {
				delete(repo.tags, tag)
			}
		}
	}
}

// ExpireRedirects makes every redirect that was handed out so far answer 403,
// as signed URLs of CDNs do after some minutes.
func (r *Registry) ExpireRedirects() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signed++
}

func (r *Registry) add(name string, d blob.Descriptor, c content) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repo(name).blobs[d.Digest] = d
	r.bodies[d.Digest] = c
}

// repo returns the repository name, made when missing. r.mu is held.
func (r *Registry) repo(name string) *repository {
	repo := r.repos[name]
	if repo == nil {
		repo = &repository{
			tags:      map[string]digest.Digest{},
			manifests: map[digest.Digest]blob.Descriptor{},
			blobs:     map[digest.Digest]blob.Descriptor{},
		}
		r.repos[name] = repo
	}
	return repo
}

// ServeHTTP answers one request; see the package comment.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	ask := parse(req)
	entry := r.log.arrive(ask, req)
	p := r.answer(req, ask)
	for _, effect := range r.effects(ask) {
		effect(p)
	}
	r.play(&logged{ResponseWriter: w, log: &r.log, entry: entry}, req, p)
}

package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/lru"
	"shoal/blobcache/statement"
	"shoal/proxy/origin"
	"shoal/proxy/request"
)

const (
	// leaseValidity is how long what a seeder was told of a tag may be believed by
	// those who trust it: an image that was pushed is seen everywhere within that,
	// and a seeder signs twice in that time at most.
	leaseValidity = 5 * time.Minute
	// maxTagLeases bounds the leases of one tag: registries answer by what a client
	// accepts, with an index or with an image.
	maxTagLeases = 3
	// leaseHeader of an answer about a tag says that it is a lease.
	leaseHeader = "Shoal-Lease"
)

// Why a tag was answered by a lease: values of the label "why".
const (
	leasedForOutage = "outage"    // the registry could not be asked
	leasedPreferred = "preferred" // the operator wants it so
)

// errOldLease: a lease that is not newer than what was seen or forgotten.
var errOldLease = errors.New("is not newer than what is known")

// leases are what trusted seeders say of tags, and what this node says itself if
// it is one. They are in memory only: after a restart they come again within half
// their validity.
type leases struct {
	signer *statement.Signer // nil: this node signs none
	spread func(statement.Lease)

	mu        sync.Mutex
	taken     *lru.Cache[string, []statement.Lease] // by tag, the newest first
	given     *lru.Cache[string, statement.Lease]   // by tag and media type
	forgotten *lru.Cache[string, time.Time]         // when, by prefix and digest as for forget
}

func newLeases(signer *statement.Signer, spread func(statement.Lease)) *leases {
	return &leases{
		signer: signer, spread: spread, taken: lru.New[string, []statement.Lease](maxTags),
		given: lru.New[string, statement.Lease](maxTags), forgotten: lru.New[string, time.Time](maxTags),
	}
}

// TakeLease takes in what a trusted key has signed of a tag; the caller has checked
// that.
func (p *Proxy) TakeLease(l statement.Lease) {
	result := "taken"
	if err := p.takeLease(l); err != nil {
		result = "refused"
		p.log.Debug("lease refused", "tag", l.Tag, "key", l.Signer.String(), "error", err)
	}
	p.metrics.leases.WithLabelValues(result).Inc()
}

func (p *Proxy) takeLease(l statement.Lease) error {
	image, err := request.ParseImage(l.Tag)
	if err == nil && (image.Tag == "" || image.String() != l.Tag) {
		err = errors.New("is not the whole name of a tag")
	}
	if err != nil {
		return err
	}
	repo, err := p.origin.Repository(image.Registry, image.Name)
	if err != nil {
		return err
	}
	if repo.TagLeases() == origin.LeasesOff {
		return errors.New("the registry's settings want none")
	}
	return p.leases.take(l, image)
}

// take keeps a lease that is newer than any of its tag, and than when the tag, its
// repository or the digest was to be forgotten.
func (s *leases) take(l statement.Lease, image request.Image) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := image.Registry + "/" + image.Name + ":"
	for _, what := range []string{all, below(l.Tag), all + l.Manifest.Digest.String()} {
		if at, ok := s.forgotten.Peek(what); ok && !l.Issued.After(at) {
			return errOldLease
		}
	}
	known, _ := s.taken.Get(l.Tag)
	if len(known) > 0 && !l.Issued.After(known[0].Issued) {
		return errOldLease
	}
	newest := []statement.Lease{l}
	for _, k := range known {
		if k.Manifest.MediaType != l.Manifest.MediaType && len(newest) < maxTagLeases {
			newest = append(newest, k)
		}
	}
	s.taken.Add(l.Tag, newest)
	return nil
}

// of returns the newest lease of the tag that is good now and of a type that the
// client accepts, by a key that may still be believed.
func (s *leases) of(tag string, accept []string, believed func(statement.Key) bool) (statement.Lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, _ := s.taken.Get(tag)
	i := slices.IndexFunc(known, func(l statement.Lease) bool {
		return slices.Contains(accept, l.Manifest.MediaType) && l.Good(time.Now()) == nil && believed(l.Signer)
	})
	if i < 0 {
		return statement.Lease{}, false
	}
	return known[i], true
}

// give signs what the registry has just said of a tag, and has others told, unless
// it has done so a while ago.
func (s *leases) give(tag string, d blob.Descriptor) error {
	if s.signer == nil || d.Size < 0 || d.MediaType == "" {
		return nil
	}
	key := below(tag) + d.MediaType
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	last, ok := s.given.Get(key)
	if age := now.Sub(last.Issued); ok && last.Manifest == d && age >= 0 && age < leaseValidity/2 {
		return nil
	}
	l, err := s.signer.Lease(tag, d, now, leaseValidity)
	if err != nil {
		return err
	}
	s.given.Add(key, l)
	s.spread(l)
	return nil
}

// drop forgets that the tag is d, because d is not to be had.
func (s *leases) drop(tag string, d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.taken.Peek(tag); ok {
		s.taken.Add(tag, without(known, d))
	}
}

// without returns the leases but for those of d, or none if d is empty.
func without(known []statement.Lease, d digest.Digest) []statement.Lease {
	return slices.DeleteFunc(slices.Clone(known), func(l statement.Lease) bool { return d == "" || l.Manifest.Digest == d })
}

// forget drops leases as tags.forget does, and no older ones are taken any more.
func (s *leases) forget(prefix string, d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten.Add(prefix+d.String(), time.Now())
	for _, tag := range s.taken.Keys() {
		if known, _ := s.taken.Peek(tag); strings.HasPrefix(below(tag), prefix) {
			s.taken.Add(tag, without(known, d))
		}
	}
	for _, key := range s.given.Keys() {
		if l, _ := s.given.Peek(key); strings.HasPrefix(below(l.Tag), prefix) && (d == "" || l.Manifest.Digest == d) {
			s.given.Remove(key)
		}
	}
}

// issue signs what the registry has just said of the tag that is asked for.
func (x *exchange) issue(d blob.Descriptor) {
	if x.leases.signer == nil || x.repo.TagLeases() == origin.LeasesOff {
		return
	}
	if err := x.leases.give(x.tagName(), d); err != nil {
		x.log.Warn("no lease of a tag", "tag", x.tagName(), "error", err)
	}
}

// preferred returns what a lease says of the tag that is asked for, where that
// counts more than to ask, unless the registry itself has only just said it.
func (x *exchange) preferred(key tagKey, accept []string, maxAge time.Duration) (blob.Descriptor, bool) {
	x.w.Header().Del(leaseHeader)
	if x.repo.TagLeases() != origin.LeasesPrefer {
		return blob.Descriptor{}, false
	}
	if _, fresh, _ := x.tags.fresh(key, maxAge); fresh {
		return blob.Descriptor{}, false
	}
	l, ok := x.leased(accept)
	if ok {
		x.sayLeased(l, leasedPreferred)
	}
	return l.Manifest, ok
}

// unasked returns what the tag that is asked for was when somebody last said so: a
// trusted seeder, or the registry within the window. why is why it cannot be asked.
func (x *exchange) unasked(key tagKey, accept []string, window time.Duration, why error) (blob.Descriptor, bool) {
	kept, old := x.tags.last(key, accept, window)
	l, ok := x.leased(accept)
	switch {
	case ok && x.repo.TagLeases() != origin.LeasesOff && (!old || l.Issued.After(kept.At)):
		x.sayLeased(l, leasedForOutage)
		x.w.Header().Set("Warning", `111 shoal "Revalidation Failed"`)
		return l.Manifest, true
	case old:
		x.stale(kept, why)
	}
	return kept.Manifest, old
}

func (x *exchange) leased(accept []string) (statement.Lease, bool) {
	return x.leases.of(x.tagName(), accept, func(k statement.Key) bool { return !x.cache.Convicted(k) })
}

// sayLeased says to everybody concerned that the answer is the word of a seeder.
func (x *exchange) sayLeased(l statement.Lease, why string) {
	x.w.Header().Set(leaseHeader, fmt.Sprintf("%s; issued=%s; until=%s", l.Signer, l.Issued.UTC().Format(time.RFC3339), l.Until.UTC().Format(time.RFC3339)))
	x.metrics.leased.WithLabelValues(why).Inc()
	if x.notices.first("leased "+x.tagName(), time.Minute) {
		x.log.Info("a tag is what a trusted seeder says", "tag", x.tagName(), "digest", l.Manifest.Digest, "why", why,
			"key", l.Signer.String(), "age", time.Since(l.Issued).Round(time.Second))
	}
}

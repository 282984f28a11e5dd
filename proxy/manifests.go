package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/manifest"
	"shoal/proxy/origin"
	"shoal/proxy/policy"
	"shoal/proxy/pull"
)

// forEver is longer than anything is kept.
const forEver = 100 * 365 * 24 * time.Hour

// maxMoves is how often a tag may move while a client waits for what it is.
const maxMoves = 2

// manifest answers GET and HEAD of a manifest. A tag is what the upstream says
// now; the manifest itself is had by its digest, like any blob.
func (x *exchange) manifest(ctx context.Context) error {
	if h, ok := x.atHand(); ok {
		x.manifestHeader(h)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	d := blob.Descriptor{Digest: x.req.Digest, Size: blob.UnknownSize}
	if x.req.Tag == "" {
		if err := x.admit(ctx, d.Digest); err != nil {
			return err
		}
	} else {
		var err error
		if d, err = x.resolve(ctx); err != nil {
			return err
		}
		if x.r.Method == http.MethodHead && !x.coming(d.Digest) && d.Size >= 0 && d.MediaType != "" {
			// All that a HEAD tells is known, and a client that only looks
			// for changes must not cost a GET, which Docker Hub counts.
			x.manifestHeader(newHead(d))
			return nil
		}
	}
	mine, err := x.mine(ctx, d.Digest)
	if err != nil {
		return err
	}
	if h, ok := x.recall(d.Digest); ok && mine && x.r.Method == http.MethodHead {
		x.manifestHeader(h)
		return nil
	}
	d, m, body, err := x.read(ctx, d)
	if err != nil {
		return err
	}
	ahead := x.refer(m)
	if x.manifestHeader(newHead(d)); x.r.Method == http.MethodHead || x.status == http.StatusNotModified {
		return nil
	}
	x.seenNames(m)
	// A client that has left needs no body.
	_, _ = x.w.Write(body)
	if ahead {
		x.prefetch.offer(image{manifest: d.Digest, blobs: m.Blobs, origin: x.blobs()})
	}
	return nil
}

// read brings the manifest d, or what the tag is by then if that is asked for and
// has moved on, and keeps what it says.
func (x *exchange) read(ctx context.Context, d blob.Descriptor) (blob.Descriptor, *manifest.Manifest, []byte, error) {
	m, body, err := x.load(ctx, d)
	for moves := 0; x.req.Tag != "" && errors.Is(err, blob.ErrNotFound) && moves < maxMoves; moves++ {
		var to blob.Descriptor
		if to, err = x.moved(ctx, d, err); err == nil {
			d = to
			m, body, err = x.load(ctx, d)
		}
	}
	if err != nil {
		return blob.Descriptor{}, nil, nil, err
	}
	d.Size, d.MediaType = int64(len(body)), m.MediaType
	x.remember(m)
	if blob.Shared(d.Digest) {
		x.cache.Refer(d.Digest, m.Refs()...)
		x.cache.KeepName(x.imageName(), d)
	}
	if m.Stated {
		x.heads.Add(d.Digest, newHead(d))
	}
	return d, m, body, nil
}

// coming says whether the cache has or gets a blob.
func (x *exchange) coming(d digest.Digest) bool {
	if _, whole := x.cache.Stat(d); whole {
		return true
	}
	_, running := x.cache.Running(d)
	return running
}

// atHand returns what a HEAD tells, if nobody need be asked: of a manifest that
// was read before and is for everybody, by its digest or by a tag of which it is
// known what it is.
func (x *exchange) atHand() (head, bool) {
	if x.r.Method != http.MethodHead || x.by != nil {
		return head{}, false
	}
	d := x.req.Digest
	if x.req.Tag != "" {
		maxAge, _ := x.repo.TagAges(x.req.Tag)
		a, ok, _ := x.tags.fresh(x.tagKey(x.accepted()), maxAge)
		if !ok {
			return head{}, false
		}
		d = a.desc.Digest // none of a failure
	}
	if x.cache.Reach(d) != blobcache.Everybody {
		return head{}, false
	}
	return x.recall(d)
}

// recall returns what a HEAD tells of a manifest that the cache has and that
// was read here before, whose image is in use then. It moves no bytes, so none
// need be proven again.
func (x *exchange) recall(d digest.Digest) (head, bool) {
	h, ok := x.heads.Get(d)
	return h, ok && x.cache.Use(d)
}

// resolve asks the upstream what the tag points to. The client's Accept goes
// along, because registries choose by it. While no upstream can be asked it is
// what was answered last, or what a trusted seeder was told since, and the answer
// says so.
func (x *exchange) resolve(ctx context.Context) (blob.Descriptor, error) {
	accept := x.accepted()
	key := x.tagKey(accept)
	maxAge, staleIfError := x.repo.TagAges(x.req.Tag)
	if x.offline && x.by == nil {
		staleIfError = forEver - maxAge
	}
	var err error
	if x.anew {
		maxAge = 0
	}
	d, ok := x.preferred(key, accept.types, maxAge)
	if !ok {
		d, err = x.tags.resolve(ctx, key, maxAge, func(ctx context.Context) (blob.Descriptor, error) {
			d, err := x.repo.Resolve(ctx, x.req.Tag, accept.types)
			if err == nil {
				x.told(d)
			}
			return d, err
		})
	}
	if staleIfError > 0 && origin.Outage(err) {
		if last, ok := x.unasked(key, accept.types, maxAge+staleIfError, err); ok {
			d, err = last, nil
		}
	}
	if err == nil && d.Size > x.maxManifest {
		err = fmt.Errorf("%w: a manifest of %d bytes", blob.ErrTooLarge, d.Size)
	}
	if err == nil && manifest.IsSchema1(d.MediaType) {
		err = manifest.ErrSchema1
	}
	if x.by != nil {
		if x.metrics.decide(policy.Heard(err)); err == nil {
			x.book.Grant(x.who, x.place(d.Digest), x.by.Lease)
		}
	}
	return d, err
}

// told takes in what an upstream has said that the tag is.
func (x *exchange) told(d blob.Descriptor) {
	x.issue(d)
	if blob.Shared(d.Digest) {
		x.cache.KeepName(x.tagName(), d) // clients get it by its digest after a HEAD
	}
}

// tagName is the name of the tag that is asked for.
func (x *exchange) tagName() string { return x.named + ":" + x.req.Tag }

// imageName is what the image is called that is asked for.
func (x *exchange) imageName() string {
	if x.req.Tag != "" {
		return x.tagName()
	}
	return x.named + "@" + x.req.Digest.String()
}

// tagKey names the question about it. An answer to one client is none to
// another if the registry is asked in the name of each.
func (x *exchange) tagKey(accept accepts) tagKey {
	key := tagKey{tag: x.tagName(), accept: accept.key}
	if x.by != nil {
		key.who = string(x.who[:])
	}
	return key
}

// stale says to everybody concerned that the answer is an old one, because the
// upstream could not be asked. The warnings are those of RFC 7234, section
// 5.5: RFC 9111 has dropped them, and nothing has come in their place.
func (x *exchange) stale(kept blobcache.Tag, why error) {
	h := x.w.Header()
	h.Del("Warning")
	h.Add("Warning", `110 shoal "Response is Stale"`)
	if x.offline {
		h.Add("Warning", `112 shoal "Disconnected Operation"`)
	} else {
		h.Add("Warning", `111 shoal "Revalidation Failed"`)
	}
	x.metrics.stale.Inc()
	if x.notices.first("stale "+x.tagName(), time.Minute) {
		x.log.Warn("the registry cannot be asked: a tag is what it was", "tag", x.tagName(), "digest", kept.Manifest.Digest,
			"age", time.Since(kept.At).Round(time.Second), "error", why)
	}
}

// moved asks again what the tag is, because the upstream does not have d any
// more, which it was; why says that. It is an error if the tag is still d.
func (x *exchange) moved(ctx context.Context, d blob.Descriptor, why error) (blob.Descriptor, error) {
	x.tags.doubt(x.tagKey(x.accepted()), d.Digest)
	x.leases.drop(x.tagName(), d.Digest)
	to, err := x.resolve(ctx)
	if err == nil && to.Digest == d.Digest {
		err = why
	}
	return to, err
}

// load brings the manifest d, proven and parsed, from the cache or by a fill.
func (x *exchange) load(ctx context.Context, d blob.Descriptor) (*manifest.Manifest, []byte, error) {
	if known, ok := x.cache.Lookup(d.Digest); ok {
		if d.Size < 0 {
			d.Size = known.Size
		}
		if d.MediaType == "" {
			d.MediaType = known.MediaType
		}
	}
	if d.Size > x.maxManifest {
		return nil, nil, fmt.Errorf("%w: a manifest of %d bytes", blob.ErrTooLarge, d.Size)
	}
	body, err := x.bytes(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	m, err := manifest.Parse(body, d.MediaType)
	return m, body, err
}

// bytes returns the proven bytes of the manifest d: past the cache if it has no
// room for them, cannot keep them, or has them for others.
func (x *exchange) bytes(ctx context.Context, d blob.Descriptor) ([]byte, error) {
	if blob.Shared(d.Digest) {
		body, err := x.stored(ctx, d)
		if err == nil {
			err = x.still(ctx, d.Digest)
		}
		if err == nil {
			return body, nil
		}
		if !errors.Is(err, blob.ErrNoSpace) && !errors.Is(err, errPast) {
			return nil, err
		}
	}
	x.seenFrom(pull.Past)
	_, body, err := x.repo.Manifest(ctx, d.Digest.String(), manifest.Accept()) // which proves them
	if err == nil && x.by == nil {
		x.cache.Widen(d.Digest) // the registry has it, and not only its word for it
	}
	return body, err
}

// stored returns the proven bytes of the manifest d from the cache, or by a fill.
func (x *exchange) stored(ctx context.Context, d blob.Descriptor) ([]byte, error) {
	whole, err := x.cache.Get(ctx, d.Digest)
	if err == nil {
		defer whole.Close()
		x.seenFrom(pull.FromCache)
		return x.readManifest(whole.File(), whole.Descriptor().Size)
	}
	if !errors.Is(err, blob.ErrNotFound) {
		return nil, err
	}
	fill, err := x.fetch(ctx, d, x.manifests())
	if err != nil {
		return nil, err
	}
	return x.follow(ctx, fill)
}

// follow reads a manifest from its fill, which yields all of it only when it is
// proven.
func (x *exchange) follow(ctx context.Context, fill *blobcache.Fill) ([]byte, error) {
	r, err := fill.Open(ctx, blob.Range{Length: -1})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return x.readManifest(r, fill.Descriptor().Size)
}

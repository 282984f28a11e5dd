package origin

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"shoal/blobcache/blob"
	"shoal/blobcache/lru"
	"shoal/proxy/origin/public"
)

const (
	// redirectsMax is how many redirects one request follows. Registries use
	// one, some with a CDN of their own two.
	redirectsMax = 5
	// targetTime is how long the target of a redirect is used again. Signed
	// URLs are good for minutes, and one that is not costs a request.
	targetTime = time.Minute
	// targetsMax is how many targets are remembered.
	targetsMax = 1024
)

// follow goes where resp redirects to. Authorization goes along only to the
// very host that asked for it. The target of a blob is remembered, so that the
// next range of it needs no round trip to the registry.
func (c *Client) follow(ctx context.Context, up *upstream, q request, key targetKey, resp *http.Response) (*http.Response, error) {
	from, left := resp.Request.URL, false
	for hops := 0; isRedirect(resp.StatusCode); hops++ {
		location := resp.Header.Get("Location")
		c.discard(resp)
		if hops == redirectsMax {
			return nil, lie(up, blob.ErrUnavailable, "more than %d redirects", redirectsMax)
		}
		to, err := redirectTarget(up, q, from, location)
		if err != nil {
			return nil, err
		}
		var as authorization
		if !sameHost(to, up.base) {
			left = true
		} else if as, err = c.authorization(ctx, up, q); err != nil {
			return nil, fmt.Errorf("%s: %w", up.base, err)
		}
		if resp, err = c.send(ctx, up, q.as(kindRedirect), q.request(to, as.header)); err != nil {
			return nil, err
		}
		from = to
	}
	resp, err := c.check(up, q, resp)
	if err == nil && left && q.kind == kindBlob {
		c.targets.put(key, from)
	}
	return resp, err
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// refused tells whether the target of an earlier redirect no longer is one:
// its signature has expired, or what it points to is gone.
func refused(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return true
	}
	return isRedirect(status) || status >= 500 || status == http.StatusBadRequest
}

// redirectTarget checks where a redirect leads.
func redirectTarget(up *upstream, q request, from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	switch {
	case err != nil, location == "", to.Host == "", to.User != nil, to.Scheme != "https" && to.Scheme != "http":
		return nil, lie(up, blob.ErrUnavailable, "redirect without a usable Location")
	case up.unlisted && to.Scheme != "https":
		return nil, public.Refuse("%s redirects to plain HTTP", up.base)
	case from.Scheme == "https" && to.Scheme == "http" && q.kind != kindBlob:
		// A blob is proven against its digest, a tag is not.
		return nil, lie(up, blob.ErrUnavailable, "redirect from https to http")
	}
	if up.unlisted {
		if _, err := public.Name(to.Host); err != nil {
			return nil, err
		}
	}
	to.Fragment = ""
	return to, nil
}

// sameHost tells whether two URLs mean the same server.
func sameHost(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

// targets remembers where blobs were redirected to.
type targets struct {
	cache *lru.Cache[targetKey, target]
}

// targetKey is a request that was redirected. URLs are signed for a method, and
// were given to the credentials of a registry.
type targetKey struct {
	registry string
	client   [sha256.Size]byte // of its token; zero is the node
	method   string
	url      string
}

type target struct {
	url     *url.URL
	expires time.Time
}

func newTargets() *targets {
	return &targets{cache: lru.New[targetKey, target](targetsMax)}
}

// get returns the target for key, or nil.
func (t *targets) get(key targetKey) *url.URL {
	if to, ok := t.cache.Get(key); ok && time.Now().Before(to.expires) {
		return to.url
	}
	return nil
}

func (t *targets) put(key targetKey, to *url.URL) {
	t.cache.Add(key, target{url: to, expires: time.Now().Add(targetTime)})
}

func (t *targets) drop(key targetKey) { t.cache.Remove(key) }

package origin

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"shoal/blobcache/blob"
)

const (
	// passes is how often the upstreams are gone through. A fault that
	// survives two repeats is no hiccup, and the caller has other sources.
	passes = 3
	// backoffFirst is the mean pause after the first pass; it triples.
	backoffFirst = 100 * time.Millisecond
	// retryAfterMax is the longest Retry-After that is waited for. A client
	// waits at the other end.
	retryAfterMax = 3 * time.Second
)

// verdict is what to do about an error of one upstream.
type verdict int

const (
	settled   verdict = iota // it is the answer
	elsewhere                // ask the next upstream, not this one again
	again                    // ask the next one, then this one again
)

// judge decides about an error while the caller still waits. For again it also
// says how long the upstream wants to be left alone.
func judge(err error) (verdict, time.Duration) {
	var resp *ResponseError
	if errors.As(err, &resp) {
		switch resp.Status {
		case http.StatusTooManyRequests:
			// A limit that does not say when it ends is not over in a moment.
			if resp.RetryAfter > 0 && resp.RetryAfter <= retryAfterMax {
				return again, resp.RetryAfter
			}
			return elsewhere, 0
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			if resp.RetryAfter > retryAfterMax {
				return elsewhere, 0
			}
			return again, resp.RetryAfter
		}
	}
	var (
		certificate *tls.CertificateVerificationError
		name        *net.DNSError
	)
	switch {
	case errors.Is(err, errLie), errors.Is(err, blob.ErrStalled), errors.As(err, &certificate), errors.As(err, &resp) && resp.Status >= 500:
		return elsewhere, 0
	case errors.As(err, &name) && name.IsNotFound:
		return elsewhere, 0
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrDenied), errors.Is(err, blob.ErrTooLarge):
		return settled, 0
	case errors.As(err, &resp):
		return elsewhere, 0
	}
	return again, 0
}

// pause is how long to wait after pass n, counted from 0; chance in [0, 1)
// spreads clients that failed together over half to one and a half times the
// mean.
func pause(n int, chance float64) time.Duration {
	mean := backoffFirst
	for range n {
		mean *= 3
	}
	return spread(mean, chance)
}

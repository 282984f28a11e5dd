package origin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
)

// errOffline is the answer to everything while Options.Offline.
var errOffline = fmt.Errorf("%w: this node is offline", blob.ErrUnavailable)

// Kinds of requests, as metrics and errors name them.
const (
	kindManifest = "manifest"
	kindBlob     = "blob"
	kindForward  = "forward"
	kindToken    = "token"
	kindRedirect = "redirect"
	kindPing     = "ping"
)

const (
	// errorBodyMax is how much of the body of an error is read, in bytes.
	errorBodyMax = 8 << 10
	// errorBodyTime is how long reading that may take. It is worth little
	// more than the connection that can be used again afterwards.
	errorBodyTime = 500 * time.Millisecond
)

// request is one question to a repository, for any of its upstreams.
type request struct {
	method string
	kind   string
	repo   string
	path   string // below /v2/REPO, or /v2 if there is no repo, without a slash in front
	query  string
	header http.Header
	by     time.Time // when the answer must be there
	client *client   // in whose name; nil is the node's

	// patience is how long the upstream that is asked may say nothing.
	patience time.Duration
}

// as returns q as a request of another kind that it leads to.
func (q request) as(kind string) request {
	q.kind = kind
	return q
}

// ask puts q to the upstreams of r until one of them answers in a way that
// read accepts; see judge for what is tried again. read owns the answer; its
// body is open, and the status is a success.
func ask[T any](ctx context.Context, r *Repository, q request, read func(*upstream, *http.Response) (T, error)) (T, error) {
	var none T
	if r.client.o.Offline { // nothing is tried again
		return none, errOffline
	}
	if len(q.path) > 512 || !pathGrammar.MatchString(q.path) {
		return none, fmt.Errorf("%w: invalid reference %.80q", blob.ErrNotFound, q.path)
	}
	c := r.client
	q.repo, q.by, q.client = r.name, time.Now().Add(c.o.AnswerTimeout), r.asker()
	q.patience = c.o.HeaderTimeout
	waiting, working := c.line(ctx, r, q)
	for pass := 0; ; pass++ {
		var left []*upstream
		var last error
		wait := pause(pass, rand.Float64())
		for i, up := range waiting {
			if q.patience = c.o.HeaderTimeout; pass == 0 && i+1 < working {
				q.patience = c.o.FailoverTimeout
			}
			out, err := try(ctx, c, up, q, read)
			if err == nil {
				return out, nil
			}
			if ctx.Err() != nil {
				return none, context.Cause(ctx)
			}
			what, after := judge(err)
			if what == settled {
				return none, err
			}
			if what == again {
				left = append(left, up)
				wait = max(wait, after)
			}
			last = err
			if i+1 < len(waiting) {
				c.o.Logger.Debug("asking the next upstream", "registry", r.registry, "error", err)
			}
		}
		waiting = left
		if len(left) == 0 || pass+1 == passes || time.Until(q.by) <= wait {
			return none, last
		}
		c.o.Logger.Debug("asking again", "registry", r.registry, "in", wait, "error", last)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return none, context.Cause(ctx)
		}
	}
}

// try puts q to one upstream and takes note of what that says about it, unless
// the caller or the time for an answer cut it short.
func try[T any](ctx context.Context, c *Client, up *upstream, q request, read func(*upstream, *http.Response) (T, error)) (out T, err error) {
	era, hurried := up.era(), time.Until(q.by) < q.patience
	resp, err := c.attempt(ctx, up, q) //nolint:bodyclose // read owns it
	if err == nil {
		out, err = read(up, resp)
	}
	if ctx.Err() == nil && (!hurried || !errors.Is(err, blob.ErrStalled)) {
		c.note(up, era, err)
	}
	return out, err
}

// attempt asks one upstream, with a token and through redirects as it wants.
// The answer is a success; its body is a *body.
func (c *Client) attempt(ctx context.Context, up *upstream, q request) (*http.Response, error) {
	u := &url.URL{Scheme: up.base.Scheme, Host: up.base.Host, Path: "/v2/" + q.path, RawQuery: q.query}
	if q.repo != "" {
		u.Path = "/v2/" + up.repository(q.repo) + "/" + q.path
	}
	key := targetKey{registry: up.label, client: q.client.sum(), method: q.method, url: u.String()}
	if to := c.targets.get(key); to != nil {
		resp, err := c.send(ctx, up, q.as(kindRedirect), q.request(to, ""))
		if err == nil && !refused(resp.StatusCode) {
			return c.check(up, q, resp)
		}
		if err == nil {
			c.discard(resp)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c.targets.drop(key)
	}
	resp, err := c.authorized(ctx, up, q, u)
	if err != nil {
		return nil, err
	}
	return c.follow(ctx, up, q, key, resp)
}

// scope is what a token for q is for, where a challenge does not say.
func (q request) scope(up *upstream) string {
	if q.repo == "" {
		return "registry:catalog:*"
	}
	return "repository:" + up.repository(q.repo) + ":pull"
}

// request returns q as an HTTP request for u, with that Authorization if it is
// not empty.
func (q request) request(u *url.URL, authorization string) *http.Request {
	req := &http.Request{Method: q.method, URL: u, Host: u.Host, Header: q.header.Clone()}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return req
}

// send makes one HTTP request for q and waits for its headers.
func (c *Client) send(ctx context.Context, up *upstream, q request, req *http.Request) (*http.Response, error) {
	if c.o.Offline {
		return nil, errOffline
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	limit := min(q.patience, time.Until(q.by))
	if limit <= 0 {
		return nil, fmt.Errorf("%s: %w: no answer within %v", up.base, blob.ErrStalled, c.o.AnswerTimeout)
	}
	reading, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(blob.ErrStalled) })
	resp, err := up.carrier(req.URL).RoundTrip(req.WithContext(reading))
	if !timer.Stop() && err == nil {
		_ = resp.Body.Close()
		err = blob.ErrStalled
	}
	code := "error"
	if err == nil {
		code = strconv.Itoa(resp.StatusCode)
	}
	c.metrics.requests.WithLabelValues(up.label, req.Method, q.kind, code).Inc()
	if err != nil {
		if errors.Is(context.Cause(reading), blob.ErrStalled) {
			err = blob.ErrStalled
		}
		cancel(nil)
		return nil, sendError(ctx, up, req.URL.Host, limit, err)
	}
	b := newBody(c.o.Pace.Reader(reading, resp.Body, pace.FlowOf(ctx)), resp.Body, c.o.NoProgress, func() { cancel(nil) }, c.metrics.bytes.WithLabelValues(up.label))
	if q.patience < c.o.HeaderTimeout { // there is somebody else to ask
		b.noProgress = min(b.noProgress, q.patience)
	}
	b.stalls = func() { c.note(up, up.era(), fmt.Errorf("%w: no byte for %v", blob.ErrStalled, b.noProgress)) }
	resp.Body = b
	return resp, nil
}

// sendError explains why there was no answer of host.
func sendError(ctx context.Context, up *upstream, host string, limit time.Duration, err error) error {
	where := up.base.String()
	if host != up.base.Host {
		where += " by way of " + host
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, blob.ErrStalled):
		return fmt.Errorf("%s: %w: no headers for %v", where, blob.ErrStalled, limit.Round(time.Millisecond))
	case errors.Is(err, ErrRegistryRefused):
		return err
	}
	return fmt.Errorf("%s: %w: %w", where, blob.ErrUnavailable, err)
}

// check turns an answer that is no success into an error.
func (c *Client) check(up *upstream, q request, resp *http.Response) (*http.Response, error) {
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	raw := c.discard(resp)
	return nil, responseError(up, q, resp, raw, statusError(resp.StatusCode))
}

// responseError describes an answer whose body begins with raw.
func responseError(up *upstream, q request, resp *http.Response, raw []byte, err error) *ResponseError {
	advice := ""
	if resp.StatusCode == http.StatusUnauthorized {
		advice = up.advice(q, resp)
	}
	return &ResponseError{
		Upstream:   up.base.String(),
		Method:     q.method,
		What:       q.kind,
		Status:     resp.StatusCode,
		Code:       errorCode(raw),
		Challenge:  resp.Header.Values("WWW-Authenticate"),
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
		Advice:     advice,
		Err:        err,
	}
}

// discard closes an answer and returns the beginning of its body. One that is
// short is read to its end, so that its connection can be used again.
func (c *Client) discard(resp *http.Response) []byte {
	b, ok := resp.Body.(*body)
	if ok {
		defer b.within(errorBodyTime)()
	}
	// What cannot be read is not missed.
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, errorBodyMax))
	_ = resp.Body.Close()
	return raw
}

// errorCode reads the first code of an error document of the distribution
// specification. Codes are upper-case words; anything else is not told on.
func errorCode(raw []byte) string {
	var doc struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if json.Unmarshal(raw, &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	code := doc.Errors[0].Code
	if len(code) > 64 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		return ""
	}
	return code
}

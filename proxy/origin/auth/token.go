package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/singleflight"

	"shoal/blobcache/blob"
	"shoal/blobcache/lru"
)

const (
	// answerMax is the largest answer of a token endpoint in bytes; the
	// longest tokens seen in the field have 10 KiB.
	answerMax = 64 << 10
	// tokenTime is how long one fetch of a token may take in all.
	tokenTime = 5 * time.Second
	// validDefault is how long a token is valid that does not say so, as the
	// distribution specification's token document has it.
	validDefault = 60 * time.Second
	// validMax is the longest that a token is used, whatever it says.
	validMax = time.Hour
	// keep is how many tokens are remembered, one for each repository.
	keep = 4096
)

// Fetch asks the token endpoint that a challenge names, with the credentials
// that are for it if there are any. It follows no redirects.
type Fetch func(context.Context, Bearer) (*http.Response, error)

// Tokens fetches and remembers tokens. It is made by NewTokens.
type Tokens struct {
	flights singleflight.Group
	cache   *lru.Cache[string, token]
}

type token struct {
	value   string
	expires time.Time
	bearer  Bearer // what it was got by
}

// NewTokens returns an empty Tokens.
func NewTokens() *Tokens {
	return &Tokens{cache: lru.New[string, token](keep)}
}

// Cached returns the token for key, or "" if there is none. One that is about
// to expire is replaced first where it came from, so that a pull which takes long
// is not refused in the middle; errors are those of Get, but one that is refused
// there is "": the registry says what it wants now.
func (t *Tokens) Cached(ctx context.Context, key string, fetch Fetch) (string, error) {
	tok, ok := t.cache.Get(key)
	if !ok || time.Now().Before(tok.expires) {
		return tok.value, nil
	}
	value, err := t.Get(ctx, key, tok.value, tok.bearer, fetch)
	if err != nil {
		t.cache.Remove(key)
	}
	if errors.Is(err, blob.ErrDenied) {
		return "", nil
	}
	return value, err
}

// Get returns a token for key other than stale, which was refused; it asks the
// endpoint that b names unless somebody got one meanwhile. Errors:
// blob.ErrDenied when the endpoint refuses, blob.ErrStalled when it does not
// answer in time, blob.ErrUnavailable otherwise.
func (t *Tokens) Get(ctx context.Context, key, stale string, b Bearer, fetch Fetch) (string, error) {
	if tok, ok := t.cache.Get(key); ok && tok.value != stale && time.Now().Before(tok.expires) {
		return tok.value, nil
	}
	done := t.flights.DoChan(key+" "+b.URL().String(), func() (any, error) {
		// Others may wait for it when the first one no longer does.
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), tokenTime, blob.ErrStalled)
		defer cancel()
		tok, err := request(ctx, b, fetch)
		if err != nil {
			return "", fmt.Errorf("token from %s: %w", b.Realm.Host, err)
		}
		tok.bearer = b
		t.cache.Add(key, tok)
		return tok.value, nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return "", r.Err
		}
		return r.Val.(string), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// request asks the endpoint for a token.
func request(ctx context.Context, b Bearer, fetch Fetch) (token, error) {
	resp, err := fetch(ctx, b)
	if err != nil {
		return token{}, err
	}
	defer resp.Body.Close()
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return token{}, fmt.Errorf("%w: status %d", blob.ErrDenied, code)
	case code != http.StatusOK:
		return token{}, fmt.Errorf("%w: status %d", blob.ErrUnavailable, code)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerMax+1))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return token{}, fmt.Errorf("%w: %w", blob.ErrUnavailable, err)
	}
	if len(raw) > answerMax {
		return token{}, fmt.Errorf("%w: answer over %d bytes", blob.ErrUnavailable, answerMax)
	}
	return parse(raw, time.Now())
}

// parse reads the answer of a token endpoint that came at now. Its errors
// quote nothing of it.
func parse(raw []byte, now time.Time) (token, error) {
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"` // seconds
	}
	if json.Unmarshal(raw, &answer) != nil {
		return token{}, fmt.Errorf("%w: answer is not a token", blob.ErrUnavailable)
	}
	value := answer.Token
	if value == "" {
		value = answer.AccessToken
	}
	if value == "" {
		return token{}, fmt.Errorf("%w: answer without a token", blob.ErrUnavailable)
	}
	for i := range len(value) {
		// A header takes no more than visible ASCII.
		if value[i] <= ' ' || value[i] > '~' {
			return token{}, fmt.Errorf("%w: token is not fit for a header", blob.ErrUnavailable)
		}
	}
	valid := validDefault
	if answer.ExpiresIn > 0 {
		valid = time.Duration(min(answer.ExpiresIn, int64(validMax/time.Second))) * time.Second
	}
	// It must still be valid when it arrives.
	valid -= min(valid/10, 10*time.Second)
	return token{value: value, expires: now.Add(valid)}, nil
}

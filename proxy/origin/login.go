package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/origin/auth"
	"shoal/proxy/origin/credential"
	"shoal/proxy/origin/public"
)

// login is the account of the node at one upstream.
type login struct {
	source  credential.Source
	setting string // where the operator has put it
	remedy  string // what to do if that is not enough; at replaces HOST

	direct  atomic.Bool // the upstream was seen to want the credential with each request
	missing atomic.Bool // the source had none when it was last asked
}

// account returns what r has credentials from, for no upstream yet, or nil. A
// keychain of a cloud that is no program would be one more line here.
func (r Registry) account() (*login, error) {
	l := &login{}
	var err error
	switch {
	case r.Username != "":
		l.setting, l.remedy = "username and password-file", "put the right ones there"
		l.source, err = credential.Password(r.Username, r.PasswordFile)
	case r.DockerConfig != "":
		l.setting, l.remedy = "docker-config", `run "docker login HOST" for it`
		l.source, err = credential.Docker(r.DockerConfig)
	case len(r.CredentialCommand) > 0:
		l.setting, l.remedy = "credential-command", "look at what it prints"
		l.source, err = credential.Command(r.CredentialCommand)
	default:
		return nil, nil
	}
	return l, err
}

// at returns the account for an upstream at a host.
func (l *login) at(host string) *login {
	if l == nil {
		return nil
	}
	return &login{source: l.source, setting: l.setting, remedy: strings.ReplaceAll(l.remedy, "HOST", loginHost(host))}
}

// loginHost is what people tell docker to log in at a host.
func loginHost(host string) string {
	if host == dockerHubHost {
		return DockerHub
	}
	return host
}

// credential returns what the node has for q, other than refused if there is
// another.
func (u *upstream) credential(ctx context.Context, q request, refused credential.Credential) (credential.Credential, error) {
	if u.login == nil {
		return credential.Credential{}, nil
	}
	c, err := u.login.source.Get(ctx, u.base.Host, u.repository(q.repo), refused)
	u.login.missing.Store(err == nil && c == credential.Credential{})
	return c, err
}

// advice says what to do about a 401. Clients hear it.
func (u *upstream) advice(q request, resp *http.Response) string {
	if q.client != nil {
		return u.adviceToClient(q.client, resp)
	}
	name := u.label
	if u.unlisted {
		name = u.base.Host
	}
	switch {
	case u.login == nil:
		return fmt.Sprintf(`no credentials for %s: if this exists and is private, add docker-config (and run "docker login %s" for it), credential-command, or username and password-file to registry.%s, with access: shared`, u.base.Host, loginHost(u.base.Host), name)
	case u.login.missing.Load():
		return fmt.Sprintf("no credentials for %s in %s of registry.%s: %s", u.base.Host, u.login.setting, name, u.login.remedy)
	}
	return fmt.Sprintf("%s does not take the credentials in %s of registry.%s: %s", u.base.Host, u.login.setting, name, u.login.remedy)
}

// authorization is what a request says of who sends it.
type authorization struct {
	header     string
	credential credential.Credential // in header
	fresh      bool                  // header is a token that nobody has refused yet
}

// bearerPrefix stands before a token.
const bearerPrefix = "Bearer "

// authorized sends q to u, and again with what it is then asked for: once with
// a new token, or with the credential itself and, if that was changed
// meanwhile, with the new one.
func (c *Client) authorized(ctx context.Context, up *upstream, q request, u *url.URL) (*http.Response, error) {
	as, err := c.authorization(ctx, up, q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", up.base, err)
	}
	for {
		resp, err := c.send(ctx, up, q, q.request(u, as.header))
		if err != nil || resp.StatusCode != http.StatusUnauthorized || as.fresh || q.client != nil {
			return resp, err // a client follows challenges itself
		}
		raw := c.discard(resp) // so that its connection serves for what follows
		resp.Body = io.NopCloser(bytes.NewReader(raw))
		next, err := c.meet(ctx, up, q, as, resp)
		if errors.Is(err, blob.ErrDenied) {
			return nil, responseError(up, q, resp, raw, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", up.base, err)
		}
		if next.header == "" || next.credential == as.credential && !next.fresh {
			return resp, nil // this is the answer
		}
		as = next
	}
}

// authorization returns what up is known to want for q, or nothing.
func (c *Client) authorization(ctx context.Context, up *upstream, q request) (authorization, error) {
	if q.client != nil {
		return authorization{header: q.client.bearer}, nil
	}
	wait, cancel := context.WithDeadlineCause(ctx, q.by, blob.ErrStalled)
	defer cancel()
	token, err := c.tokens.Cached(wait, tokenKey(up, q), c.fetchToken(up, q))
	if err != nil {
		return authorization{}, err
	}
	if token != "" {
		return authorization{header: bearerPrefix + token}, nil
	}
	if up.login == nil || !up.login.direct.Load() {
		return authorization{}, nil
	}
	cred, err := up.credential(wait, q, credential.Credential{})
	return authorization{header: cred.Header(), credential: cred}, err
}

// meet returns what meets the challenge in resp, which was the answer to a
// request with refused. Nothing does if the header is empty or the credential
// the same.
func (c *Client) meet(ctx context.Context, up *upstream, q request, refused authorization, resp *http.Response) (authorization, error) {
	challenges := auth.Parse(resp.Header.Values("WWW-Authenticate"))
	bearer, noBearer := auth.Find(challenges, up.base.Scheme == "http", q.scope(up))
	if noBearer == nil && up.unlisted {
		_, noBearer = public.Name(bearer.Realm.Host)
	}
	if noBearer != nil && !auth.WantsBasic(challenges) {
		c.o.Logger.Debug("challenge not followed", "upstream", up.base.String(), "error", noBearer)
		return authorization{}, nil
	}
	wait, cancel := context.WithDeadlineCause(ctx, q.by, blob.ErrStalled)
	defer cancel()
	cred, err := up.credential(wait, q, refused.credential)
	if err != nil {
		return authorization{}, err
	}
	if noBearer != nil || cred.RegistryToken != "" {
		if up.login != nil {
			up.login.direct.Store(true)
		}
		return authorization{header: cred.Header(), credential: cred}, nil
	}
	token, err := c.tokens.Get(wait, tokenKey(up, q), strings.TrimPrefix(refused.header, bearerPrefix), bearer, c.fetchToken(up, q))
	return authorization{header: bearerPrefix + token, fresh: true}, err
}

// fetchToken returns what asks for a token for q, once more if the credential
// was changed meanwhile.
func (c *Client) fetchToken(up *upstream, q request) auth.Fetch {
	return func(ctx context.Context, bearer auth.Bearer) (*http.Response, error) {
		cred, err := up.credential(ctx, q, credential.Credential{})
		if err != nil {
			return nil, err
		}
		resp, err := c.askForToken(ctx, up, q, bearer, cred)
		if err != nil || up.login == nil || resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
			return resp, err
		}
		next, err := up.credential(ctx, q, cred)
		if err == nil && next == cred {
			return resp, nil // the refusal is the answer
		}
		c.discard(resp)
		if err != nil {
			return nil, err
		}
		return c.askForToken(ctx, up, q, bearer, next)
	}
}

// askForToken asks the endpoint that a challenge names for a token for q.
func (c *Client) askForToken(ctx context.Context, up *upstream, q request, bearer auth.Bearer, cred credential.Credential) (*http.Response, error) {
	q = request{method: http.MethodGet, kind: kindToken, by: time.Now().Add(q.patience), patience: q.patience}
	if cred.IdentityToken == "" {
		return c.send(ctx, up, q, q.request(bearer.URL(), cred.Header()))
	}
	q.method = http.MethodPost
	req := q.request(bearer.Realm, "")
	form := bearer.Form(cred.IdentityToken, c.o.UserAgent)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(form)), int64(len(form))
	return c.send(ctx, up, q, req)
}

// tokenKey names what a token of q is good for. Two registries may have one
// upstream, and credentials of their own.
func tokenKey(up *upstream, q request) string {
	return up.label + " " + up.base.String() + " " + q.repo
}

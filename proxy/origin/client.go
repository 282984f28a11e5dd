package origin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"shoal/proxy/origin/auth"
)

const (
	// leaseDefault is how long a client may have what the registry permitted
	// it without being asked again: as long as most tokens are valid, and no
	// longer than who revokes access will wait without a thought.
	leaseDefault = 5 * time.Minute
	// leaseMax keeps a revocation from being a matter of days.
	leaseMax = time.Hour
)

// ByClient is how a registry is asked in the name of each client.
type ByClient struct {
	// Lease is how long the registry's permission counts; 0 is 5 minutes.
	Lease time.Duration
	// ShareWithSwarm lets every holder of the swarm key have its images.
	ShareWithSwarm bool
}

// checkClient returns why the registry cannot be asked in the name of clients,
// or nil.
func (r Registry) checkClient() error {
	switch {
	case r.Access != AccessClient && r.ShareWithSwarm:
		return errors.New("share-with-swarm is for \"access: client\": images of other registries are shared anyway")
	case r.Access != AccessClient && r.Lease != 0:
		return errors.New("lease is for \"access: client\"")
	case r.Access != AccessClient:
		return nil
	case r.Username != "" || r.PasswordFile != "" || r.DockerConfig != "" || len(r.CredentialCommand) > 0:
		return errors.New("with \"access: client\" each client brings its own token: remove the credentials, or set \"access: shared\"")
	case len(r.MaxAge) > 0 || r.StaleIfError > 0:
		return errors.New("with \"access: client\" the registry is asked about tags for each client: remove max-age and stale-if-error")
	case r.TagLeases == LeasesOutage || r.TagLeases == LeasesPrefer:
		return errors.New("with \"access: client\" the registry is asked about tags for each client: remove tag-leases")
	case r.Lease < 0 || r.Lease > leaseMax:
		return fmt.Errorf("lease %v: use up to %v", r.Lease, leaseMax)
	case r.CredentialsInClear:
		return nil
	}
	for _, s := range r.Upstreams {
		if u, err := parseBase(s); err == nil && u.Scheme == "http" {
			return fmt.Errorf("%s would get the tokens of clients in clear: use https://, or set \"credentials-in-clear: true\"", u)
		}
	}
	return nil
}

// byClient returns how the registry is asked in the name of clients, or nil.
func (r *registry) byClient() *ByClient {
	if r.Access != AccessClient {
		return nil
	}
	by := r.ByClient
	if by.Lease == 0 {
		by.Lease = leaseDefault
	}
	return &by
}

// ByClient returns how the repository is asked in the name of each client, or
// nil if the node asks in its own. Then nothing of it is for another client
// only because this one may have it.
func (r *Repository) ByClient() *ByClient { return r.byClient }

// Listed tells whether the operator listed the registry. Whoever can name one
// that is not listed may be the one who answers for it.
func (r *Repository) Listed() bool { return r.listed }

// As returns the repository for a client: bearer is its Authorization header,
// or "". It goes to the upstreams of the registry and to no other host. It is
// for repositories with a ByClient.
func (r *Repository) As(bearer string) *Repository {
	as := *r
	as.bearer = bearer
	return &as
}

// client is in whose name a question is asked.
type client struct{ bearer string }

// asker returns in whose name r asks; nil is the node's.
func (r *Repository) asker() *client {
	if r.byClient == nil {
		return nil
	}
	return &client{r.bearer}
}

// sum tells clients apart.
func (c *client) sum() (sum [sha256.Size]byte) {
	if c != nil {
		sum = sha256.Sum256([]byte(c.bearer))
	}
	return sum
}

// adviceToClient says what to do about a 401 to a client.
func (u *upstream) adviceToClient(c *client, resp *http.Response) string {
	challenges := auth.Parse(resp.Header.Values("WWW-Authenticate"))
	switch _, err := auth.Find(challenges, u.base.Scheme == "http", ""); {
	case err != nil && auth.WantsBasic(challenges):
		return fmt.Sprintf("%s wants passwords, which no client is asked for on behalf of another: registry.%s cannot have \"access: client\"; use \"access: shared\" or the registry without this mirror", u.base.Host, u.label)
	case c.bearer == "":
		return fmt.Sprintf("a client without a token, which %s gives to who logs in", u.base.Host)
	}
	return fmt.Sprintf("%s does not take the client's token", u.base.Host)
}

// Challenge returns what a client needs for a token (RFC 9110, section 11.6.1;
// the distribution project's "Token Authentication Specification"): the bearer
// challenge of the upstream that refused it with err, or "". A challenge of any
// other scheme is not passed on: it would have clients send passwords here.
func (r *Repository) Challenge(err error) string {
	var resp *ResponseError
	if r.byClient == nil || !errors.As(err, &resp) || resp.Status != http.StatusUnauthorized {
		return ""
	}
	base, err := url.Parse(resp.Upstream)
	if err != nil {
		return ""
	}
	return auth.Forward(auth.Parse(resp.Challenge), base.Scheme == "http")
}

// Greeting returns the bearer challenge of the /v2/ of a registry with
// AccessClient, or "" if it has none. It asks the upstreams in order, and is an
// error if none answers.
func (c *Client) Greeting(ctx context.Context, name string) (string, error) {
	r, ok := c.registries[name]
	if !ok || r.byClient() == nil {
		return "", nil
	}
	var last error
	for _, up := range r.upstreams {
		q := request{method: http.MethodGet, kind: kindPing, by: time.Now().Add(c.o.AnswerTimeout), patience: c.o.FailoverTimeout}
		resp, err := c.send(ctx, up, q, q.request(&url.URL{Scheme: up.base.Scheme, Host: up.base.Host, Path: "/v2/"}, ""))
		if err == nil {
			c.discard(resp)
			return auth.Forward(auth.Parse(resp.Header.Values("WWW-Authenticate")), up.base.Scheme == "http"), nil
		}
		last = err
	}
	return "", last
}

package origintest

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// TokenAuth declares the bearer-token flow of Docker Hub: requests without a
// valid token get a challenge that names the token endpoint, which is the path
// /token of the same server.
type TokenAuth struct {
	// Login is "USER:PASSWORD" that the endpoint wants to see; empty is
	// nothing, as for public images.
	Login string
	// IdentityToken is what the endpoint wants to see instead, by POST as
	// OAuth 2 has it.
	IdentityToken string
	// Basic wants Login with each request instead of tokens.
	Basic bool
	// Service is told in the challenge; empty is "origintest".
	Service string
	// Realm is the URL of the token endpoint; empty is /token at the host
	// that was asked, by plain HTTP.
	Realm string
	// Expires is how long a token is valid; 0 is 5 minutes. It is told in
	// whole seconds.
	Expires time.Duration
}

// tokens are those that were issued.
type tokens struct {
	mu     sync.Mutex
	login  string // of Options.Auth, until SetLogin
	issued int
	valid  map[string]grant // by token
}

type grant struct {
	scope   string
	expires time.Time
}

// RevokeTokens makes all tokens that were issued invalid.
func (r *Registry) RevokeTokens() {
	r.tokens.mu.Lock()
	defer r.tokens.mu.Unlock()
	r.tokens.valid = nil
}

// Token returns a token for a repository, as the endpoint gives one to a user
// who may pull from it.
func (r *Registry) Token(repo string) string {
	return r.grant("repository:"+repo+":pull", r.o.Auth.expires())
}

// Revoke makes a token invalid.
func (r *Registry) Revoke(token string) {
	r.tokens.mu.Lock()
	defer r.tokens.mu.Unlock()
	delete(r.tokens.valid, token)
}

// SetLogin is Login from now on. Tokens stay valid.
func (r *Registry) SetLogin(login string) {
	r.tokens.mu.Lock()
	defer r.tokens.mu.Unlock()
	r.tokens.login = login
}

// loggedIn tells whether a request has the right user and password.
func (t *tokens) loggedIn(req *http.Request) bool {
	user, password, _ := req.BasicAuth()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.login == user+":"+password
}

// issue answers a request for a token.
func (r *Registry) issue(req *http.Request) *reply {
	a := r.o.Auth
	if a == nil {
		return problem(http.StatusNotFound, "UNSUPPORTED")
	}
	switch {
	case a.IdentityToken != "":
		if req.PostFormValue("grant_type") != "refresh_token" || req.PostFormValue("refresh_token") != a.IdentityToken {
			return problem(http.StatusUnauthorized, "UNAUTHORIZED")
		}
	case req.Method != http.MethodGet || a.Login != "" && !r.tokens.loggedIn(req):
		return problem(http.StatusUnauthorized, "UNAUTHORIZED")
	}
	expires := a.expires()
	token := r.grant(req.FormValue("scope"), expires)
	return document(http.StatusOK, "application/json", encode(map[string]any{
		"token":      token,
		"expires_in": int(expires / time.Second),
		"issued_at":  time.Now().UTC().Format(time.RFC3339),
	}))
}

func (a *TokenAuth) expires() time.Duration {
	if a.Expires == 0 {
		return 5 * time.Minute
	}
	return a.Expires
}

// grant returns a token that is valid for so long.
func (r *Registry) grant(scope string, expires time.Duration) string {
	t := &r.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	t.issued++
	token := fmt.Sprintf("token-%d", t.issued)
	if t.valid == nil {
		t.valid = map[string]grant{}
	}
	t.valid[token] = grant{scope: scope, expires: time.Now().Add(expires)}
	return token
}

// authorize returns the challenge for a request without what Auth wants, or
// nil.
func (r *Registry) authorize(req *http.Request, q question) *reply {
	if r.o.Auth.Basic {
		if r.tokens.loggedIn(req) {
			return nil
		}
		p := problem(http.StatusUnauthorized, "UNAUTHORIZED")
		p.header.Set("Www-Authenticate", `Basic realm="origintest"`)
		return p
	}
	scope := ""
	if q.repo != "" {
		scope = "repository:" + q.repo + ":pull"
	}
	token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	r.tokens.mu.Lock()
	g, ok := r.tokens.valid[token]
	r.tokens.mu.Unlock()
	if ok && time.Now().Before(g.expires) && (scope == "" || g.scope == scope) {
		return nil
	}
	a := r.o.Auth
	realm, service := a.Realm, a.Service
	if realm == "" {
		realm = "http://" + req.Host + tokenPath
	}
	if service == "" {
		service = "origintest"
	}
	p := problem(http.StatusUnauthorized, "UNAUTHORIZED")
	header := fmt.Sprintf("Bearer realm=%q,service=%q", realm, service)
	if scope != "" {
		header += fmt.Sprintf(",scope=%q", scope)
	}
	p.header.Set("Www-Authenticate", header)
	return p
}

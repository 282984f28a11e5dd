//go:build linux

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
)

// Ports on the origin's host of what this test starts there.
const (
	htpasswdPort = 7200
	tokenPort    = 7201
	issuerPort   = 7202
)

// tokenSeconds is how long a token is valid by what its server says: so short
// that a test that changes the password meets tokens for the new one.
const tokenSeconds = 1

// The user of these registries, and the bcrypt of the password.
const (
	user         = "robot$lab+node"
	password     = "open-sesame-7f3a"
	passwordHash = "$2b$05$g7kTNtjvqsJUYnEG2vjFqODwCP2jwT7LCpJ/8.AO6qqtBamF6AI6C"
)

// TestLogin: registries that want a user and password, themselves or by a
// token server. A client that has no credentials gets the image, and nobody
// finds the password in what the node says.
func TestLogin(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 33, 3)
	dir := t.TempDir()
	l.guarded(ctx, t, dir)
	for file, text := range map[string]string{"password": password + "\n", "wrong": "sesame\n"} {
		check(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
	}

	file := filepath.Join(dir, "shoal.yaml")
	config := "registry:\n"
	for name, c := range map[string]struct {
		port     int
		password string
	}{"htpasswd": {htpasswdPort, "password"}, "token": {tokenPort, "password"}, "mistaken": {htpasswdPort, "wrong"}, "refused": {tokenPort, "wrong"}} {
		config += fmt.Sprintf("  %s.example: {upstreams: ['https://%v:%d'], ca-file: %s/ca.pem, username: %s, password-file: %[4]s/%[6]s, access: shared}\n",
			name, l.origin.Host.Addr, c.port, dir, user, c.password)
	}
	check(t, os.WriteFile(file, []byte(config), 0o600))
	n := l.swarm(ctx, t, 1, "--config", file, "--log-level", "debug")[0]

	for _, name := range []string{"htpasswd", "token"} {
		t.Run(name, func(t *testing.T) { l.copies(ctx, t, n, name+".example/"+img.Ref()) })
	}
	for _, name := range []string{"mistaken", "refused"} {
		t.Run(name, func(t *testing.T) {
			status, _ := ask(ctx, t, n, http.MethodGet, program.MirrorURL+"/v2/"+name+".example/"+img.Repository+"/manifests/"+img.Tag)
			why := "does not take the credentials in username and password-file of registry." + name + ".example: put the right ones there"
			if log := must(os.ReadFile(n.Process.LogFile))(t); status != http.StatusUnauthorized || !strings.Contains(string(log), why) {
				t.Errorf("answer %d, and the log does not say %q", status, why)
			}
		})
	}
	silent(ctx, t, n, "", password, "sesame")
}

// silent fails the test if the node, or anything that it said to others,
// tells a password, or a token.
func silent(ctx context.Context, t *testing.T, n *program.Node, said string, passwords ...string) {
	t.Helper()
	said += string(must(os.ReadFile(n.Process.LogFile))(t)) + string(must(os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.Process.PID())))(t))
	for _, path := range []string{"/metrics", "/api/v1/status", "/api/v1/peers"} {
		_, body := ask(ctx, t, n, http.MethodGet, "http://127.0.0.1:5050"+path)
		said += body
	}
	secrets := []string{"eyJ"} // of which tokens begin
	for _, p := range passwords {
		secrets = append(secrets, p, base64.StdEncoding.EncodeToString([]byte(user+":"+p)))
	}
	for _, secret := range secrets {
		if strings.Contains(said, secret) {
			t.Errorf("%q is told on:\n%s", secret, said)
		}
	}
}

// guarded starts the registries, with certificates of a CA of their own, which
// it leaves in dir. It returns what changes the hash in htpasswd and the
// password of the token server.
func (l *lab) guarded(ctx context.Context, t *testing.T, dir string) (change func(hash, password string)) {
	t.Helper()
	ca, key := newPKI(t, dir, l.origin.Host.Addr.AsSlice())
	var issued atomic.Value
	change = func(hash, password string) {
		issued.Store(password)
		file := filepath.Join(dir, "htpasswd")
		check(t, os.WriteFile(file+".new", []byte(user+":"+hash+"\n"), 0o600))
		check(t, os.Rename(file+".new", file))
	}
	change(passwordHash, password)
	l.issuer(ctx, t, dir, func() string { return issued.Load().(string) }, func(claims map[string]any) string { return sign(t, ca, key, claims) })
	secure := fmt.Sprintf("tls: {certificate: %s/server.pem, key: %[1]s/server.key}", dir)
	l.listens(ctx, t, htpasswdPort, must(l.origin.Registry("htpasswd", fmt.Sprintf(`http: {addr: "%v:%d", secret: none, %s}
auth: {htpasswd: {realm: lab, path: %s/htpasswd}}`, l.origin.Host.Addr, htpasswdPort, secure, dir)))(t))
	l.listens(ctx, t, tokenPort, must(l.origin.Registry("token", fmt.Sprintf(`http: {addr: "%v:%d", secret: none, %s}
auth: {token: {realm: "https://%[1]v:%[4]d/token", service: lab, issuer: lab, rootcertbundle: %[5]s/ca.pem}}`,
		l.origin.Host.Addr, tokenPort, secure, issuerPort, dir)))(t))
	return change
}

// ask sends a request from the node's host.
func ask(ctx context.Context, t *testing.T, n *program.Node, method, url string) (status int, body string) {
	t.Helper()
	resp, err := n.Host.Client(20 * time.Second).Do(must(http.NewRequestWithContext(ctx, method, url, nil))(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode, string(must(io.ReadAll(resp.Body))(t))
}

// issuer starts a token server (the distribution project's "Token
// Authentication Specification"). A login without a scope, as docker does it,
// gets a token for nothing, and one that is to last an identity token, which
// counts for as long as the password (the project's "OAuth2 Token
// Authentication").
func (l *lab) issuer(ctx context.Context, t *testing.T, dir string, password func() string, sign func(map[string]any) string) {
	t.Helper()
	cert := must(tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")))(t)
	listener := tls.NewListener(must(l.origin.Host.Listen(ctx, l.origin.Host.Addr, issuerPort))(t), &tls.Config{Certificates: []tls.Certificate{cert}})
	issue(t, listener, password, sign)
}

// issue lets a token server answer at the listener.
func issue(t *testing.T, at net.Listener, password func() string, sign func(map[string]any) string) {
	t.Helper()
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, secret, _ := r.BasicAuth()
		identity := "identity-" + password()
		if r.Method == http.MethodPost && r.PostFormValue("grant_type") == "refresh_token" && r.PostFormValue("refresh_token") == identity {
			who, secret = user, password()
		}
		if who != user || secret != password() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.FormValue("offline_token") != "true" {
			identity = ""
		}
		access := []any{}
		for _, scope := range r.Form["scope"] { // which FormValue has parsed
			if part := strings.Split(scope, ":"); len(part) == 3 {
				access = append(access, map[string]any{"type": part[0], "name": part[1], "actions": []string{"pull"}})
			}
		}
		token := sign(map[string]any{
			"iss": "lab", "sub": who, "aud": r.FormValue("service"), "jti": "1",
			"iat": time.Now().Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
			"access": access,
		})
		_, _ = fmt.Fprintf(w, `{"token":%q,"access_token":%[1]q,"refresh_token":%q,"expires_in":%d}`, token, identity, tokenSeconds)
	})}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(at) }() // ends by Close
}

// sign returns claims as a JSON Web Token (RFC 7519) with ES256.
func sign(t *testing.T, ca *x509.Certificate, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	part := func(v any) string { return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v))(t)) }
	text := part(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(ca.Raw)}}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	check(t, err)
	return text + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

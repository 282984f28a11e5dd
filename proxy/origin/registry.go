package origin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/name"
)

// Registries are those that the operator listed, by the name that requests
// have for them.
type Registries map[string]Registry

// Registry is what the operator says of a registry.
type Registry struct {
	// Upstreams are base URLs, the first one preferred: see CheckUpstream.
	// None is https://NAME, and for docker.io https://registry-1.docker.io.
	Upstreams []string

	// CAFile is a file with certificates, in PEM, that are trusted besides the
	// system's.
	CAFile string
	// ClientCert and ClientKey are files, in PEM, for the upstreams and nobody
	// else. They are read for each connection, so that they can be renewed.
	// Both or none.
	ClientCert, ClientKey string
	// InsecureSkipVerify takes any certificate of the upstreams.
	InsecureSkipVerify bool
	// Proxy is the URL of a proxy for all that belongs to the registry, or
	// ProxyNone; empty is what the environment says.
	Proxy string

	// Username and PasswordFile log in at the host of the first upstream, and
	// at the token endpoint that it names. Both or none. Of these, of
	// DockerConfig and CredentialCommand there is one, and only with an Access
	// of AccessShared.
	Username, PasswordFile string
	// DockerConfig is a config.json of docker, or an auth.json of podman. Each
	// upstream gets what it holds for the upstream's own host.
	DockerConfig string
	// CredentialCommand is a program with arguments, which speaks the protocol
	// of docker's credential helpers. What it prints is for the same as
	// Username.
	CredentialCommand []string
	// CredentialsInClear lets them go over http://.
	CredentialsInClear bool
	// Access is who may have what is asked for: AccessPublic, which is the
	// same as nothing, AccessShared or AccessClient.
	Access string
	// ByClient is how it is with AccessClient; otherwise it is zero.
	ByClient

	// Allow and Deny are patterns of repositories (see CheckPattern) that may
	// be asked for, or not. Deny wins; no Allow is all.
	Allow, Deny []string

	// MaxAge is how long what tags are is believed without asking again: the
	// first one that covers a tag counts, and none is always to ask.
	MaxAge []TagAge
	// StaleIfError is for how long after that the last answer still counts
	// while no upstream can be asked; 0 is DefaultStaleIfError, less is never.
	StaleIfError time.Duration
	// TagLeases is when what trusted seeders say of tags counts: LeasesOutage,
	// which is the same as nothing, LeasesPrefer or LeasesOff.
	TagLeases string
}

// Values of Access.
const (
	AccessPublic = "public" // everybody: the registry is asked as anonymous
	AccessShared = "shared" // whoever reaches the mirror, or is in the swarm
	AccessClient = "client" // whom the registry permits it, by the client's own token
)

// ProxyNone is the Proxy of a registry that is reached directly, whatever the
// environment says.
const ProxyNone = "none"

// ErrRepositoryRefused is a repository that the operator does not let be asked
// for. It is a blob.ErrNotFound too, so that runtimes go on by themselves.
var ErrRepositoryRefused = fmt.Errorf("%w: refused by the configuration", blob.ErrNotFound)

// CheckUpstream returns why s is not the base URL of an upstream, or nil. It
// is https or http, a host, a port if need be, and a path if the upstream has
// all repositories in a folder, as the proxy projects of Harbor do: of
// https://HOST/PROJECT, library/alpine is PROJECT/library/alpine. That may be
// written as https://HOST/v2/PROJECT, too.
func CheckUpstream(s string) error {
	_, err := parseBase(s)
	return err
}

// parseBase reads the base URL of an upstream. Its path is the folder of the
// repositories, with a slash in front, or nothing.
func parseBase(base string) (*url.URL, error) {
	u, err := url.Parse(base)
	if err != nil {
		// The error would quote it, with a password if it holds one.
		return nil, errors.New("is no URL of a registry: use https://HOST or http://HOST:PORT")
	}
	switch {
	case u.User != nil:
		return nil, fmt.Errorf("%s: credentials do not belong into the URL", u.Redacted())
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return nil, fmt.Errorf("%q is no URL of a registry: use https://HOST or http://HOST:PORT", base)
	case u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return nil, fmt.Errorf("%q has more than scheme, host, port and path", base)
	}
	folder := strings.Trim(u.Path, "/")
	if folder == "v2" {
		folder = ""
	}
	folder = strings.TrimPrefix(folder, "v2/")
	if folder == "" {
		return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
	}
	if !name.Valid(folder) || path.Base(folder) == "v2" {
		return nil, fmt.Errorf("%q: the path is no folder of repositories: use https://HOST/PROJECT", base)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/" + folder}, nil
}

// CheckPattern returns why s is not a pattern of repositories, or nil. It is
// one of path.Match, for the name of a repository without its registry, and
// covers all that lies below what it matches, too.
func CheckPattern(s string) error {
	if _, err := path.Match(s, ""); err != nil || strings.Trim(s, "/") != s || s == "" {
		return fmt.Errorf("%q is no pattern of repositories: use for instance library/* or team/app", s)
	}
	return nil
}

// covers tells whether pattern matches the repository or a folder that it is
// in.
func covers(pattern, name string) bool {
	for at := name; at != "." && at != "/"; at = path.Dir(at) {
		if ok, err := path.Match(pattern, at); ok && err == nil {
			return true
		}
	}
	return false
}

// permit returns an ErrRepositoryRefused if the operator does not let name be
// asked for.
func (r Registry) permit(registry, name string) error {
	for _, p := range r.Deny {
		if covers(p, name) {
			return fmt.Errorf("%w: %s/%s is covered by %q of deny", ErrRepositoryRefused, registry, name, p)
		}
	}
	for _, p := range r.Allow {
		if covers(p, name) {
			return nil
		}
	}
	if len(r.Allow) > 0 {
		return fmt.Errorf("%w: no pattern of allow covers %s/%s", ErrRepositoryRefused, registry, name)
	}
	return nil
}

// CheckProxy returns why s is not the URL of a proxy, nor ProxyNone, or nil.
func CheckProxy(s string) error {
	if s == ProxyNone {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		return fmt.Errorf("%s: credentials do not belong here: set HTTPS_PROXY in the environment", u.Redacted())
	case err != nil, u.Scheme != "http" && u.Scheme != "socks5", u.Host == "", strings.Trim(u.Path, "/") != "":
		return fmt.Errorf("%q is no proxy: use http://HOST:PORT, socks5://HOST:PORT or %s", s, ProxyNone)
	}
	return nil
}

// Check returns the first thing that is wrong with the registry, or nil. It
// opens no files.
func (r Registry) Check() error {
	for _, u := range r.Upstreams {
		if err := CheckUpstream(u); err != nil {
			return err
		}
	}
	for _, p := range slices.Concat(r.Allow, r.Deny) {
		if err := CheckPattern(p); err != nil {
			return err
		}
	}
	for _, a := range r.MaxAge {
		if err := a.check(); err != nil {
			return err
		}
	}
	if r.TagLeases != "" {
		if err := CheckTagLeases(r.TagLeases); err != nil {
			return err
		}
	}
	if r.Proxy != "" {
		if err := CheckProxy(r.Proxy); err != nil {
			return err
		}
	}
	if (r.ClientCert == "") != (r.ClientKey == "") {
		return errors.New("client-cert and client-key belong together: set both")
	}
	if err := r.checkClient(); err != nil {
		return err
	}
	return r.checkLogin()
}

// TakesCredentials tells whether the operator lets the registry have
// credentials of the node and has named none.
func (r Registry) TakesCredentials() bool {
	return r.Access == AccessShared && r.Username == "" && r.PasswordFile == "" && r.DockerConfig == "" && len(r.CredentialCommand) == 0
}

// CheckAccess returns why s is not a value of Access, or nil.
func CheckAccess(s string) error {
	if s != AccessPublic && s != AccessShared && s != AccessClient {
		return fmt.Errorf("%q is no access: use %s, %s or %s", s, AccessPublic, AccessShared, AccessClient)
	}
	return nil
}

// checkLogin returns why the credentials cannot be used, or nil.
func (r Registry) checkLogin() error {
	if r.Access != "" {
		if err := CheckAccess(r.Access); err != nil {
			return err
		}
	}
	// Of upstreams that the credentials are for.
	upstreams, sources := r.Upstreams[:min(1, len(r.Upstreams))], 0
	if r.DockerConfig != "" {
		upstreams = r.Upstreams
	}
	for _, set := range []bool{r.Username != "", r.DockerConfig != "", len(r.CredentialCommand) > 0} {
		if set {
			sources++
		}
	}
	switch {
	case (r.Username == "") != (r.PasswordFile == ""):
		return errors.New("username and password-file belong together")
	case sources == 0:
		return nil
	case sources > 1:
		return errors.New("username, docker-config and credential-command exclude each other: keep one of them")
	case strings.ContainsFunc(r.Username, func(c rune) bool { return c == ':' || c < ' ' || c == 0x7f }):
		return errors.New("username has a colon or control characters")
	case r.Access != AccessShared:
		return errors.New(`with credentials, whoever reaches this mirror may pull what they can get, and every holder of the swarm key may have it: set "access: shared" if that is meant`)
	case r.CredentialsInClear:
		return nil
	}
	for _, base := range upstreams {
		if u, err := parseBase(base); err == nil && u.Scheme == "http" {
			return fmt.Errorf(`%s would get the password in clear: use https://, or set "credentials-in-clear: true"`, u)
		}
	}
	return nil
}

// tls returns the client configurations for the upstreams themselves, and for
// where they lead to: the latter sees no client certificate and is always
// verified.
func (r Registry) tls(base *tls.Config) (own, away *tls.Config, err error) {
	if away = base.Clone(); away == nil {
		away = &tls.Config{}
	}
	if r.CAFile != "" {
		if away.RootCAs, err = readCAs(r.CAFile, away.RootCAs); err != nil {
			return nil, nil, fmt.Errorf("ca-file: %w", err)
		}
	}
	own = away.Clone()
	own.InsecureSkipVerify = r.InsecureSkipVerify
	if r.ClientCert != "" {
		if _, err := tls.LoadX509KeyPair(r.ClientCert, r.ClientKey); err != nil {
			return nil, nil, fmt.Errorf("client-cert and client-key: %w", err)
		}
		own.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(r.ClientCert, r.ClientKey)
			return &cert, err
		}
	}
	return own, away, nil
}

// readCAs returns the certificates of a file and those of pool, or of the
// system if it is nil.
func readCAs(file string, pool *x509.CertPool) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if pool != nil {
		pool = pool.Clone()
	} else if pool, err = x509.SystemCertPool(); err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}

// proxy returns the proxy for requests; environment says it where the
// registry does not.
func (r Registry) proxy(environment proxyFunc) (proxyFunc, error) {
	switch r.Proxy {
	case "":
		return environment, nil
	case ProxyNone:
		return nil, nil
	}
	u, err := url.Parse(r.Proxy)
	return http.ProxyURL(u), err
}

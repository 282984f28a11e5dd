package origin_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

const password = "open-sesame"

// vault is a file with a password.
func vault(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	keep(t, file, text)
	return file
}

func keep(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// private is a registry that the user "me" may ask.
func private(file string, upstreams ...string) origin.Registry {
	return origin.Registry{
		Upstreams: upstreams, Username: "me", PasswordFile: file, Access: origin.AccessShared, CredentialsInClear: true,
	}
}

// silent fails the test if a secret is in the log, in a metric or in one of
// errs, plain or as Basic has it.
func (w *world) silent(errs ...error) {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	said := fmt.Sprint(w.log.String(), errs)
	for _, f := range families {
		said += f.String()
	}
	header := &http.Request{Header: http.Header{}}
	header.SetBasicAuth("me", password)
	for _, secret := range []string{password, strings.TrimPrefix(header.Header.Get("Authorization"), "Basic "), "token-"} {
		if strings.Contains(said, secret) {
			w.t.Errorf("%q is told on:\n%s", secret, said)
		}
	}
}

func TestLogin(t *testing.T) {
	for name, tt := range map[string]struct {
		auth origintest.TokenAuth
		saw  []string // of two pulls
		sent []string // kinds of Authorization, for each of these
	}{
		"token": {
			auth: origintest.TokenAuth{Login: "me:" + password},
			saw:  []string{blob401, token, blob200, blob200},
			sent: []string{"", "Basic", "Bearer", "Bearer"},
		},
		"password": {
			auth: origintest.TokenAuth{Login: "me:" + password, Basic: true},
			saw:  []string{blob401, blob200, blob200},
			sent: []string{"", "Basic", "Basic"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := vault(t, password+"\n")
			inWorld(t, func(w *world) {
				t := w.t
				r := w.registry("u.test:80", origintest.Options{Auth: &tt.auth})
				d := r.AddBlob("lib/x", []byte(data))
				c := w.client(origin.Options{Registries: origin.Registries{"r.test": private(file, "http://u.test"), "open.test": {Upstreams: []string{"http://u.test"}}}})
				pull := func(registry string) error {
					_, _, err := read(t.Context(), w.of(c, registry, "lib/x").Blobs(), d, whole)
					return err
				}
				if err := errors.Join(pull("r.test"), pull("r.test")); err != nil {
					t.Fatal(err)
				}
				wantLines(t, r, d.Digest.String(), tt.saw...)
				for i, q := range r.Requests() {
					if kind, _, _ := strings.Cut(q.Auth, " "); kind != tt.sent[i] {
						t.Errorf("request %d has an Authorization of %q, want %q", i, kind, tt.sent[i])
					}
				}
				// The same upstream as another registry, without credentials.
				err := pull("open.test")
				if !errors.Is(err, blob.ErrDenied) || !strings.Contains(err.Error(), `no credentials for u.test: if this exists and is private, add docker-config (and run "docker login u.test" for it), credential-command, or username and password-file to registry.open.test, with access: shared`) {
					t.Errorf("as anonymous: %v", err)
				}
				w.silent(err)
			})
		})
	}
}

func TestAPasswordIsRenewed(t *testing.T) {
	for _, basic := range []bool{false, true} {
		file := vault(t, "old")
		inWorld(t, func(w *world) {
			t := w.t
			r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{Login: "me:old", Basic: basic}})
			d := r.AddBlob("lib/x", []byte(data))
			c := w.client(origin.Options{Registries: origin.Registries{"r.test": private(file, "http://u.test")}})
			pull := func() error {
				_, _, err := read(t.Context(), w.of(c, "r.test", "lib/x").Blobs(), d, whole)
				return err
			}
			if err := pull(); err != nil {
				t.Fatal(err)
			}
			r.SetLogin("me:" + password)
			r.RevokeTokens()
			err := pull()
			if !errors.Is(err, blob.ErrDenied) || !strings.Contains(err.Error(), "u.test does not take the credentials in username and password-file of registry.r.test: put the right ones there") {
				t.Errorf("with the old password: %v", err)
			}
			keep(t, file, password)
			if err := pull(); err != nil {
				t.Errorf("with the new one: %v", err)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			r.RevokeTokens()
			if gone := pull(); !errors.Is(gone, blob.ErrUnavailable) || !strings.Contains(gone.Error(), "password-file: open "+file) {
				t.Errorf("without the file: %v", gone)
			}
			w.silent(err)
		})
	}
}

// TestAPasswordIsForOneHost: neither another upstream nor where the first one
// redirects to sees it.
func TestAPasswordIsForOneHost(t *testing.T) {
	file := vault(t, password)
	inWorld(t, func(w *world) {
		t := w.t
		auth := &origintest.TokenAuth{Login: "me:" + password, Basic: true}
		a, b := w.registry("a.test:80", origintest.Options{Auth: auth}), w.registry("b.test:80", origintest.Options{Auth: auth})
		away := w.registry("away.test:80", origintest.Options{Auth: auth})
		d := a.AddBlob("lib/x", []byte(data))
		repo := w.of(w.client(origin.Options{Registries: origin.Registries{"r.test": private(file, "http://a.test", "http://b.test")}}), "r.test", "lib/x")
		if _, _, err := read(t.Context(), repo.Blobs(), d, whole); err != nil {
			t.Fatal(err)
		}
		a.Fault(origintest.Fault{Kind: origintest.Blob, Times: 1, Effect: origintest.Redirect("http://away.test/v2/lib/x/blobs/" + d.Digest.String())})
		_, _, err := read(t.Context(), repo.Blobs(), d, whole)
		if !errors.Is(err, blob.ErrDenied) {
			t.Errorf("redirected: %v", err)
		}
		a.Fault(origintest.Fault{Effect: origintest.Status(503)})
		if _, _, err := read(t.Context(), repo.Blobs(), d, whole); !errors.Is(err, blob.ErrDenied) {
			t.Errorf("by the second upstream: %v", err)
		}
		synctest.Wait()
		if len(away.Requests()) == 0 || len(b.Requests()) == 0 {
			t.Error("the others were not asked")
		}
		for _, q := range append(away.Requests(), b.Requests()...) {
			if q.Auth != "" {
				t.Errorf("%s at %s: Authorization %q", q, q.Host, q.Auth)
			}
		}
		w.silent(err)
	})
}

// TestTokensOfRepositoriesDoNotMix: each is asked for with the scope of its
// own repository.
func TestTokensOfRepositoriesDoNotMix(t *testing.T) {
	file := vault(t, password)
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{Login: "me:" + password, Expires: time.Minute}})
		c := w.client(origin.Options{Registries: origin.Registries{"r.test": private(file, "http://u.test")}})
		for range 2 {
			for _, name := range []string{"lib/x", "lib/y"} {
				d := r.AddBlob(name, []byte(data))
				if _, _, err := read(t.Context(), w.of(c, "r.test", name).Blobs(), d, whole); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := r.Stats().Requests["GET token"]; n != 2 {
			t.Errorf("%d tokens were fetched", n)
		}
	})
}

func TestNewRefusesCredentials(t *testing.T) {
	file, empty := vault(t, password), vault(t, "\n")
	for want, change := range map[string]func(*origin.Registry){
		`set "access: shared" if that is meant`: func(r *origin.Registry) { r.Access = "" },
		`whoever reaches this mirror may pull`:  func(r *origin.Registry) { r.Access = origin.AccessPublic },
		`"all" is no access`:                    func(r *origin.Registry) { r.Access = "all" },
		`set "credentials-in-clear: true"`:      func(r *origin.Registry) { r.CredentialsInClear = false },
		`http://u.test would get the password in clear`: func(r *origin.Registry) {
			r.Upstreams, r.CredentialsInClear = []string{"HTTP://u.test"}, false
		},
		`username and password-file belong together`: func(r *origin.Registry) { r.Username = "" },
		`username has a colon`:                       func(r *origin.Registry) { r.Username = "me:you" },
		`password-file: open /nowhere: no such file`: func(r *origin.Registry) { r.PasswordFile = "/nowhere" },
		`password-file ` + empty + ` is empty`:       func(r *origin.Registry) { r.PasswordFile = empty },
	} {
		r := private(file, "http://u.test")
		change(&r)
		_, err := origin.New(origin.Options{Registries: origin.Registries{"r.test": r}})
		if err == nil || !strings.HasPrefix(err.Error(), "registry r.test: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), password) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

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

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// shared is a registry whose credentials are said by set.
func shared(set func(*origin.Registry), upstreams ...string) origin.Registries {
	r := origin.Registry{Upstreams: upstreams, Access: origin.AccessShared, CredentialsInClear: true}
	set(&r)
	return origin.Registries{"r.test": r}
}

// config is a config.json of docker with these credentials by host.
func config(t *testing.T, auths string) func(*origin.Registry) {
	t.Helper()
	file := vault(t, `{"auths":{`+auths+`}}`)
	return func(r *origin.Registry) { r.DockerConfig = file }
}

// TestDockerConfig: each upstream gets what is for its own host, one without
// gets nothing.
func TestDockerConfig(t *testing.T) {
	said := config(t, `"a.test":{"username":"me","password":"`+password+`"},"b.test":{"username":"you","password":"shibboleth"}`)
	inWorld(t, func(w *world) {
		t := w.t
		a := w.registry("a.test:80", origintest.Options{Auth: &origintest.TokenAuth{Login: "me:" + password}})
		b := w.registry("b.test:80", origintest.Options{Auth: &origintest.TokenAuth{Login: "you:shibboleth", Basic: true}})
		other := w.registry("other.test:80", origintest.Options{Auth: &origintest.TokenAuth{Login: "me:" + password, Basic: true}})
		d := a.AddBlob("lib/x", []byte(data))
		b.AddBlob("lib/x", []byte(data))
		repo := w.of(w.client(origin.Options{Registries: shared(said, "http://a.test", "http://b.test", "http://other.test")}), "r.test", "lib/x")
		pull := func() error {
			_, _, err := read(t.Context(), repo.Blobs(), d, whole)
			return err
		}
		if err := pull(); err != nil {
			t.Errorf("from the first: %v", err)
		}
		a.Fault(origintest.Fault{Effect: origintest.Drop()})
		if err := pull(); err != nil {
			t.Errorf("from the second: %v", err)
		}
		b.Fault(origintest.Fault{Effect: origintest.Drop()})
		err := pull()
		if !errors.Is(err, blob.ErrDenied) || !strings.Contains(err.Error(), `no credentials for other.test in docker-config of registry.r.test: run "docker login other.test" for it`) {
			t.Errorf("from the third: %v", err)
		}
		synctest.Wait()
		for _, q := range other.Requests() {
			if q.Auth != "" {
				t.Errorf("%s had an Authorization of %q", q, q.Auth)
			}
		}
		w.silent(err)
	})
}

// TestIdentityToken is what "docker login" leaves for some clouds.
func TestIdentityToken(t *testing.T) {
	said := config(t, `"u.test":{"auth":"bWU6","identitytoken":"`+password+`"}`)
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{IdentityToken: password}})
		d := r.AddBlob("lib/x", []byte(data))
		repo := w.of(w.client(origin.Options{Registries: shared(said, "http://u.test")}), "r.test", "lib/x")
		if _, _, err := read(t.Context(), repo.Blobs(), d, whole); err != nil {
			t.Fatal(err)
		}
		wantLines(t, r, d.Digest.String(), blob401, "POST token -> 200", blob200)
		for _, q := range r.Requests()[:2] {
			if q.Auth != "" || strings.Contains(q.Query, password) {
				t.Errorf("%s: Authorization %q, query %q", q, q.Auth, q.Query)
			}
		}
		w.silent()
	})
}

// TestRegistryToken is sent as it is, and asked for nowhere.
func TestRegistryToken(t *testing.T) {
	said := config(t, `"u.test":{"registrytoken":"`+password+`"}`)
	inWorld(t, func(w *world) {
		t := w.t
		var saw []string
		w.handle("u.test:80", func(rw http.ResponseWriter, r *http.Request) {
			saw = append(saw, r.URL.Path+" "+r.Header.Get("Authorization"))
			if r.Header.Get("Authorization") != "Bearer "+password {
				rw.Header().Set("Www-Authenticate", `Bearer realm="http://u.test/token"`)
				rw.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = rw.Write([]byte(data))
		})
		repo := w.of(w.client(origin.Options{Registries: shared(said, "http://u.test")}), "r.test", "lib/x")
		d := blob.Descriptor{Digest: digest.FromString(data), Size: int64(len(data))}
		for range 2 {
			if _, _, err := read(t.Context(), repo.Blobs(), d, whole); err != nil {
				t.Fatal(err)
			}
		}
		path := "/v2/lib/x/blobs/" + d.Digest.String() + " "
		if want := []string{path, path + "Bearer " + password, path + "Bearer " + password}; strings.Join(saw, "\n") != strings.Join(want, "\n") {
			t.Errorf("saw %q", saw)
		}
		w.silent()
	})
}

// script is a helper that prints what is in a file, and notes that it was run.
func script(t *testing.T) (program, file string, runs func() int) {
	t.Helper()
	dir := t.TempDir()
	program, file = filepath.Join(dir, "helper"), filepath.Join(dir, "secret")
	text := fmt.Sprintf("#!/bin/sh\necho >>%s/runs\nprintf '{\"Username\":\"me\",\"Secret\":\"%%s\"}' \"$(cat %s)\"\n", dir, file)
	if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, file, func() int {
		raw, err := os.ReadFile(filepath.Join(dir, "runs"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return len(raw)
	}
}

// TestAHelperIsAskedAgain when the registry, or its token endpoint, does not
// take what it has said, and the new secret is tried in the same pull.
func TestAHelperIsAskedAgain(t *testing.T) {
	for _, basic := range []bool{false, true} {
		program, file, runs := script(t)
		inWorld(t, func(w *world) {
			t := w.t
			r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{Login: "me:old", Basic: basic}})
			d := r.AddBlob("lib/x", []byte(data))
			set := func(r *origin.Registry) { r.CredentialCommand = []string{program} }
			repo := w.of(w.client(origin.Options{Registries: shared(set, "http://u.test")}), "r.test", "lib/x")
			pull := func(times int) error {
				t.Helper()
				_, _, err := read(t.Context(), repo.Blobs(), d, whole)
				if n := runs(); n != times {
					t.Errorf("basic %v: it was run %d times, want %d", basic, n, times)
				}
				w.pass(2 * time.Second) // an answer counts for a while, even if it is refused
				return err
			}
			keep(t, file, "old")
			if err := errors.Join(pull(1), pull(1)); err != nil {
				t.Fatal(err)
			}
			r.SetLogin("me:" + password)
			r.RevokeTokens()
			keep(t, file, password)
			if err := pull(2); err != nil {
				t.Errorf("basic %v: with the new secret: %v", basic, err)
			}
			r.SetLogin("me:other")
			r.RevokeTokens()
			r.ResetStats()
			err := pull(3)
			if !errors.Is(err, blob.ErrDenied) || !strings.Contains(err.Error(), "u.test does not take the credentials in credential-command of registry.r.test: look at what it prints") {
				t.Errorf("basic %v: with a wrong one: %v", basic, err)
			}
			if n := len(r.Requests()); n > 2 {
				t.Errorf("basic %v: the wrong one was tried again:\n%v", basic, r.Requests())
			}
			w.silent(err)
		})
	}
}

// TestAHelperThatFails keeps nobody from what is public.
func TestAHelperThatFails(t *testing.T) {
	program, _, _ := script(t)
	keep(t, program, "#!/bin/sh\necho "+password+"\nexit 1\n")
	inWorld(t, func(w *world) {
		t := w.t
		private := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{Login: "me:" + password}})
		d := private.AddBlob("lib/x", []byte(data))
		set := func(r *origin.Registry) { r.CredentialCommand = []string{program} }
		c := w.client(origin.Options{Registries: shared(set, "http://u.test")})
		_, _, err := read(t.Context(), w.of(c, "r.test", "lib/x").Blobs(), d, whole)
		if !errors.Is(err, blob.ErrUnavailable) || !strings.Contains(err.Error(), "helper: exit status 1: try it by hand") {
			t.Errorf("private: %v", err)
		}
		public := w.registry("u.test:80", origintest.Options{})
		public.AddBlob("lib/x", []byte(data))
		c.Close()
		if _, _, err := read(t.Context(), w.of(c, "r.test", "lib/x").Blobs(), d, whole); err != nil {
			t.Errorf("public: %v", err)
		}
		w.silent(err)
	})
}

// TestATokenThatIsNotRenewed: the endpoint that gave it refuses, or fails.
func TestATokenThatIsNotRenewed(t *testing.T) {
	for name, tt := range map[string]struct {
		effect origintest.Effect
		saw    []string
	}{
		"refuses": {origintest.Status(403), []string{"GET token -> 403", blob401, token, blob200}},
		"fails":   {origintest.Status(500), []string{"GET token -> 500", blob401, token, blob200}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{Expires: time.Minute}})
				d := r.AddBlob("lib/x", []byte(data))
				src := w.repository("u.test").Blobs()
				if _, _, err := read(t.Context(), src, d, whole); err != nil {
					t.Fatal(err)
				}
				w.pass(time.Hour)
				r.ResetStats()
				r.Fault(origintest.Fault{Kind: origintest.Token, Times: 1, Effect: tt.effect})
				if _, _, err := read(t.Context(), src, d, whole); err != nil {
					t.Error(err)
				}
				wantLines(t, r, d.Digest.String(), tt.saw...)
			})
		})
	}
}

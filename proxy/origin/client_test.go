package origin_test

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// byClient is a registry at those upstreams that is asked in the name of
// clients.
func byClient(upstreams ...string) origin.Options {
	return origin.Options{Registries: origin.Registries{"r.test": {Upstreams: upstreams, Access: origin.AccessClient, CredentialsInClear: true}}}
}

// A client's token goes to the upstreams, and neither to the host that they
// redirect to nor to the token endpoint that they name; and where one client
// was led to is of no use to another.
func TestTokensOfClientsStayWithTheRegistry(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{}, RedirectBlobs: true, CDN: "http://cdn.test"})
		w.serve("cdn.test:80", r, func(l net.Listener) net.Listener { return l })
		d := r.AddBlob("team/app", []byte(data))
		repo := w.of(w.client(byClient("http://u.test")), "r.test", "team/app")
		token := "Bearer " + r.Token("team/app")
		for range 2 {
			if _, body, err := read(t.Context(), repo.As(token).Blobs(), d, whole); err != nil || body != data {
				t.Fatalf("%q, %v", body, err)
			}
		}
		for _, other := range []string{"", "Bearer other"} {
			_, _, err := read(t.Context(), repo.As(other).Blobs(), d, whole)
			if !errors.Is(err, blob.ErrDenied) {
				t.Errorf("with %q: %v", other, err)
			}
			if got := repo.As(other).Challenge(err); got != `Bearer realm="http://u.test/token",service="origintest",scope="repository:team/app:pull"` {
				t.Errorf("challenge %q", got)
			}
			if err != nil && strings.Contains(err.Error(), "Bearer") {
				t.Errorf("it stands in the error: %v", err)
			}
		}
		for _, q := range r.Requests() {
			if q.Kind == origintest.Token || q.Host != "u.test" && q.Auth != "" {
				t.Errorf("%v at %s with %q", q, q.Host, q.Auth)
			}
		}
		if n := r.Stats().Requests["GET cdn"]; n != 2 {
			t.Errorf("%d times at the other host", n)
		}
	})
}

func TestGreeting(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{}})
		c := w.client(byClient("http://down.test", "http://u.test"))
		if got, err := c.Greeting(t.Context(), "r.test"); err != nil || got != `Bearer realm="http://u.test/token",service="origintest"` {
			t.Errorf("%q, %v", got, err)
		}
		for _, name := range []string{"docker.io", "other.com"} { // nobody's token is wanted there
			if got, err := c.Greeting(t.Context(), name); err != nil || got != "" {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		r.Fault(origintest.Fault{Effect: origintest.Challenge(`Basic realm="x"`)})
		if got, err := c.Greeting(t.Context(), "r.test"); err != nil || got != "" {
			t.Errorf("a password is asked for: %q, %v", got, err)
		}
		r.ClearFaults()
		r.Fault(origintest.Fault{Effect: origintest.Silence()})
		if got, err := c.Greeting(t.Context(), "r.test"); err == nil {
			t.Errorf("silence is %q", got)
		}
	})
}

func TestCheckClient(t *testing.T) {
	for want, r := range map[string]origin.Registry{
		"":                                       {Access: origin.AccessClient, Upstreams: []string{"https://u.test"}, ByClient: origin.ByClient{Lease: time.Hour, ShareWithSwarm: true}},
		"http://u.test would get the tokens":     {Access: origin.AccessClient, Upstreams: []string{"https://a.test", "http://u.test"}},
		"each client brings its own token":       {Access: origin.AccessClient, Username: "me", PasswordFile: "/p"},
		"remove max-age and stale-if-error":      {Access: origin.AccessClient, StaleIfError: time.Hour},
		"max-age and stale-if-error":             {Access: origin.AccessClient, MaxAge: []origin.TagAge{{Pattern: "*:*", Age: time.Hour}}},
		"remove tag-leases":                      {Access: origin.AccessClient, TagLeases: origin.LeasesPrefer},
		"share-with-swarm is for":                {Access: origin.AccessShared, ByClient: origin.ByClient{ShareWithSwarm: true}},
		"lease is for":                           {ByClient: origin.ByClient{Lease: time.Minute}},
		"lease 1h0m1s: use up to 1h0m0s":         {Access: origin.AccessClient, ByClient: origin.ByClient{Lease: time.Hour + time.Second}},
		"lease -1s: use up to 1h0m0s":            {Access: origin.AccessClient, ByClient: origin.ByClient{Lease: -time.Second}},
		`"all" is no access: use public, shared`: {Access: "all"},
	} {
		if err := r.Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Another upstream of the registry gets the token too; a refusal is final.
func TestClientsAndSeveralUpstreams(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("second.test:80", origintest.Options{Auth: &origintest.TokenAuth{}})
		d := r.AddBlob("team/app", []byte(data))
		repo := w.of(w.client(byClient("http://down.test", "http://second.test")), "r.test", "team/app")
		if _, body, err := read(t.Context(), repo.As("Bearer "+r.Token("team/app")).Blobs(), d, whole); err != nil || body != data {
			t.Errorf("%q, %v", body, err)
		}
		_, _, err := read(t.Context(), repo.As("").Blobs(), d, whole)
		var resp *origin.ResponseError
		if !errors.As(err, &resp) || resp.Status != http.StatusUnauthorized {
			t.Errorf("error %v", err)
		}
	})
}

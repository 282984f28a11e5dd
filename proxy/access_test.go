package proxy

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// clients has docker.io and other.example asked in the name of clients, by
// tokens; beside them there are the registries open.example, which is listed
// and for everybody, and evil.com, which nobody listed.
type clients struct {
	share bool // other.example's images with the swarm
	open  *origintest.Registry
	evil  http.HandlerFunc // nil refuses
}

func (c *clients) declare(r *rig, o *origin.Options, pipes map[string]*origintest.Pipe) {
	r.t.Helper()
	c.open = origintest.New(origintest.Options{})
	pipes["open.test:80"] = r.serve(c.open)
	o.Registries = origin.Registries{
		"docker.io":     {Upstreams: []string{"http://hub.test"}, Access: origin.AccessClient, CredentialsInClear: true},
		"other.example": {Upstreams: []string{"http://other.test"}, Access: origin.AccessClient, CredentialsInClear: true, ByClient: origin.ByClient{ShareWithSwarm: c.share}},
		"open.example":  {Upstreams: []string{"http://open.test"}},
	}
	cert, pool := certificate(r.t, "evil.com")
	pipe := origintest.NewPipe()
	pipes["203.0.114.1:443"] = pipe
	o.TLS, o.Resolver = &tls.Config{RootCAs: pool}, elsewhere{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if c.evil == nil {
			http.NotFound(w, req)
			return
		}
		c.evil(w, req)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(tls.NewListener(pipe, &tls.Config{Certificates: []tls.Certificate{cert}}))
	}()
	r.t.Cleanup(func() { _ = server.Close(); <-done })
}

// elsewhere resolves each name to a public address.
type elsewhere struct{}

func (elsewhere) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("203.0.114.1")}, nil
}

func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

const team = "/v2/other.example/team/app/"

// private runs test with an image of other.example, which a client with a token
// has pulled; it is in the cache.
func private(t *testing.T, c *clients, test func(r *rig, img testImage, token string)) {
	t.Helper()
	bubble(t, options{clients: c, auth: &origintest.TokenAuth{}}, func(r *rig) {
		img := addImage(r.t, r.other, "team/app", "v1")
		token := r.other.Token("team/app")
		r.pulls(team, "v1", img, token)
		r.other.ResetStats()
		test(r, img, token)
	})
}

func with(token string) string { return "Authorization: Bearer " + token }

// pulls has a client pull an image as dockerd does.
func (r *rig) pulls(repo, tag string, img testImage, token string) {
	r.t.Helper()
	r.get(repo+"manifests/"+tag, with(token)).wants(r.t, http.StatusOK, img.index.bytes)
	r.get(repo+"manifests/"+img.mine.manifest.ref(), with(token)).wants(r.t, http.StatusOK, img.mine.manifest.bytes)
	for _, b := range img.mine.blobs {
		r.get(repo+"blobs/"+b.ref(), with(token)).wants(r.t, http.StatusOK, b.bytes)
	}
}

// That a manifest is for everybody elsewhere does not say that this client may
// have it here: the registry is asked.
func TestAManifestForEverybodyIsAskedForHere(t *testing.T) {
	c := &clients{}
	bubble(t, options{clients: c, auth: &origintest.TokenAuth{}}, func(r *rig) {
		img := addImage(r.t, c.open, "library/app", "v1")
		manifest := "manifests/" + img.index.ref()
		r.get("/v2/open.example/library/app/"+manifest).wants(r.t, http.StatusOK, img.index.bytes)
		synctest.Wait() // it is on disk, and at hand
		addBlob(r.other, "team/app", random(96, 100))
		if a := r.do("HEAD", team+manifest); a.StatusCode != http.StatusUnauthorized {
			r.t.Errorf("without a token: status %d", a.StatusCode)
		}
		if a := r.do("HEAD", team+manifest, with(r.other.Token("team/app"))); a.StatusCode != http.StatusNotFound {
			r.t.Errorf("with one, of what the repository does not have: status %d", a.StatusCode)
		}
	})
}

// While the registry is down nobody can tell who may have what: a tag is
// nothing then, to whoever had it too, and nothing is kept on disk of what it
// was for whom.
func TestNoTagIsStaleForClients(t *testing.T) {
	private(t, &clients{}, func(r *rig, img testImage, token string) {
		if kept := r.cache.Tags("other.example/"); len(kept) != 0 {
			r.t.Errorf("kept on disk: %v", kept)
		}
		r.cache.KeepTag("other.example/team/app:v1\n", blobcache.Tag{Manifest: img.index.Descriptor, At: time.Now()}) // from when it was open
		sleep(tagValidity)
		r.other.Fault(origintest.Fault{Effect: origintest.Status(503)})
		for _, auth := range []string{with(token), "Authorization: none"} {
			if a := r.get(team+"manifests/v1", auth, "Accept: "+ocispec.MediaTypeImageIndex); a.StatusCode == http.StatusOK || a.isStale() {
				r.t.Errorf("status %d with headers %v", a.StatusCode, a.Header)
			}
		}
	})
}

// What a client of a private repository may have nobody else gets from the
// cache, by whatever way he asks.
func TestACachedImageIsNoPermission(t *testing.T) {
	c := &clients{}
	private(t, c, func(r *rig, img testImage, _ string) {
		t := r.t
		layer := img.mine.blobs[1]
		other := r.other.Token("team/else")
		addBlob(r.other, "team/else", random(99, 100))
		addBlob(r.hub, "library/app", random(98, 100))
		addBlob(c.open, "library/app", random(97, 100))
		c.evil = func(w http.ResponseWriter, _ *http.Request) { // has everything, it says
			w.Header().Set("Docker-Content-Digest", img.mine.manifest.ref())
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Content-Length", strconv.Itoa(len(img.mine.manifest.bytes)))
			_, _ = w.Write(bytes.Repeat([]byte("x"), len(img.mine.manifest.bytes)))
		}
		for _, intruder := range []struct {
			name, repo string
			auth       []string
			status     int
		}{
			{"no token", team, nil, 401},
			{"made-up token", team, []string{with("nonsense")}, 401},
			{"no token at all", team, []string{"Authorization: Bearer"}, 401},
			{"token of another repository", team, []string{with(other)}, 401},
			{"password", team, []string{"Authorization: Basic bWU6eW91"}, 401},
			{"token of a repository, which asks there", "/v2/other.example/team/else/", []string{with(other)}, 404},
			{"ns", "/v2/team/app/", []string{with(r.hub.Token("team/app"))}, 404},
			{"another registry of clients", "/v2/library/app/", []string{with(r.hub.Token("library/app"))}, 404},
			{"an open registry", "/v2/open.example/library/app/", nil, 404},
			{"an open registry by ns, with a token", "/v2/library/app/?ns=open.example", []string{with(other)}, 404},
			{"nobody's registry", "/v2/evil.com/library/app/", nil, 0}, // has blobs, by its word
		} {
			repo, ns, _ := strings.Cut(intruder.repo, "?")
			for _, path := range []string{
				"manifests/v1", "manifests/" + img.index.ref(), "manifests/" + img.mine.manifest.ref(),
				"blobs/" + img.mine.blobs[0].ref(), "blobs/" + layer.ref(), "blobs/" + img.mine.manifest.ref(), "manifests/" + img.mine.blobs[0].ref(),
			} {
				for _, how := range [][]string{{"GET"}, {"HEAD"}, {"GET", "Range: bytes=5-9"}, {"GET", `If-None-Match: "` + layer.ref() + `"`}} {
					a := r.do(how[0], repo+path+"?"+ns, append(how[1:], intruder.auth...)...)
					if intruder.status != 0 && a.StatusCode != intruder.status {
						t.Errorf("%s: %v %s: status %d, want %d", intruder.name, how, path, a.StatusCode, intruder.status)
					}
					if intruder.status == 0 && a.StatusCode != http.StatusNotFound && strings.HasPrefix(path, "manifests/") {
						t.Errorf("%s: %v %s: status %d", intruder.name, how, path, a.StatusCode)
					}
					if how[0] == "HEAD" && a.ContentLength == int64(len(layer.bytes)) {
						t.Errorf("%s: %v %s tells the size", intruder.name, how, path)
					}
					for _, b := range append([]thing{img.index, img.mine.manifest}, img.mine.blobs...) {
						if len(a.body) > 4 && bytes.Contains(b.bytes, a.body[:5]) {
							t.Fatalf("%s: %v %s: got %.40q", intruder.name, how, path, a.body)
						}
					}
				}
			}
		}
		for _, q := range append(r.other.Requests(), r.hub.Requests()...) {
			if strings.Contains(q.Auth, "Basic") {
				t.Errorf("a password was passed on: %v", q)
			}
		}
		for _, list := range []string{"tags/list", "referrers/" + img.mine.manifest.ref()} {
			if a := r.get(team + list); a.StatusCode != http.StatusUnauthorized || a.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: %d", list, a.StatusCode)
			}
			if a := r.get(team+list, with(r.other.Token("team/app"))); a.StatusCode != http.StatusOK {
				t.Errorf("%s with a token: %d", list, a.StatusCode)
			}
		}
		if n := r.labelled("shoal_proxy_decisions_total", "refused"); n < 100 {
			t.Errorf("%v refusals counted", n)
		}
	})
}

// The refusal says how to get in, as the registry said it.
func TestTheChallengeIsPassedOn(t *testing.T) {
	private(t, &clients{}, func(r *rig, img testImage, _ string) {
		for _, path := range []string{team + "manifests/v1", team + "blobs/" + img.mine.blobs[1].ref(), "/v2/team/app/manifests/v1?ns=other.example"} {
			a := r.get(path)
			a.refused(r.t, http.StatusUnauthorized, "UNAUTHORIZED")
			if got, want := a.Header.Get("WWW-Authenticate"), `Bearer realm="http://other.test/token",service="origintest",scope="repository:team/app:pull"`; got != want {
				r.t.Errorf("%s: challenge %q, want %q", path, got, want)
			}
		}
		r.other.Fault(origintest.Fault{Effect: origintest.Challenge(`Basic realm="x"`)})
		a := r.get(team + "manifests/v2")
		a.refused(r.t, http.StatusUnauthorized, "UNAUTHORIZED")
		if v := a.Header.Get("WWW-Authenticate"); v != "" {
			r.t.Errorf("challenge %q", v)
		}
		if r.logged(`registry.other.example cannot have \"access: client\"`) == 0 {
			r.t.Errorf("the log does not say what to do:\n%s", r.log)
		}
		r.other.ClearFaults()
		r.other.Fault(origintest.Fault{Effect: origintest.Status(403)})
		r.get(team+"manifests/v3").refused(r.t, http.StatusForbidden, "DENIED")
	})
}

// Another client with a token of its own gets the image from the cache, after
// the registry was asked for the manifest in its name.
func TestAnotherClientThatIsPermitted(t *testing.T) {
	private(t, &clients{}, func(r *rig, img testImage, _ string) {
		second := r.other.Token("team/app")
		r.pulls(team, "v1", img, second)
		r.asked(r.other, "HEAD manifest v1 -> 200")
		// By digest alone it takes one question each.
		third := r.other.Token("team/app")
		layer := img.mine.blobs[1]
		for range 2 {
			r.get(team+"blobs/"+layer.ref(), with(third), "Range: bytes=1-2").wants(r.t, http.StatusPartialContent, layer.bytes[1:3])
		}
		r.do("HEAD", team+"blobs/"+layer.ref(), with(third)).wants(r.t, http.StatusOK, nil)
		r.asked(r.other, "HEAD blob "+layer.ref()+" -> 200")
		for _, q := range append(r.hub.Requests(), r.other.Requests()...) {
			r.t.Errorf("asked: %v", q)
		}
		for _, token := range []string{second, third} {
			if r.logged(token) > 0 {
				r.t.Errorf("%s is in the log", token)
			}
		}
	})
}

// A permission ends with its lease, and is asked for again.
func TestALeaseEnds(t *testing.T) {
	private(t, &clients{}, func(r *rig, img testImage, token string) {
		t := r.t
		layer := "blobs/" + img.mine.blobs[1].ref()
		r.other.Revoke(token)
		r.get(team+layer, with(token)).wants(t, http.StatusOK, img.mine.blobs[1].bytes)
		sleep(2 * time.Second) // an answer about a tag is good for one
		for _, path := range []string{"manifests/v1", "tags/list"} {
			r.get(team+path, with(token)).refused(t, http.StatusUnauthorized, "UNAUTHORIZED")
		}
		sleep(5*time.Minute - 3*time.Second)
		r.get(team+layer, with(token)).wants(t, http.StatusOK, img.mine.blobs[1].bytes)
		sleep(2 * time.Second)
		for _, path := range []string{layer, "manifests/" + img.index.ref(), "manifests/" + img.mine.manifest.ref()} {
			r.get(team+path, with(token)).refused(t, http.StatusUnauthorized, "UNAUTHORIZED")
			r.do("HEAD", team+path, with(token)).wants(t, http.StatusUnauthorized, nil)
		}
		// Refusals are not kept.
		r.get(team+layer, with(r.other.Token("team/app"))).wants(t, http.StatusOK, img.mine.blobs[1].bytes)
	})
}

// A manifest may name what its repository does not have.
func TestAManifestThatNamesWhatIsElsewhere(t *testing.T) {
	private(t, &clients{}, func(r *rig, img testImage, _ string) {
		secret := img.mine.blobs[1]
		config := addBlob(r.other, "team/else", random(50, 100))
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: descriptor(config), Layers: []ocispec.Descriptor{descriptor(secret)}}
		m.SchemaVersion = 2
		forged := addManifest(r.t, r.other, "team/else", "v1", ocispec.MediaTypeImageManifest, m)
		token := r.other.Token("team/else")
		r.get("/v2/other.example/team/else/manifests/v1", with(token)).wants(r.t, http.StatusOK, forged.bytes)
		r.get("/v2/other.example/team/else/blobs/"+config.ref(), with(token)).wants(r.t, http.StatusOK, config.bytes)
		for _, method := range []string{"GET", "HEAD"} {
			if a := r.do(method, "/v2/other.example/team/else/blobs/"+secret.ref(), with(token)); a.StatusCode != http.StatusNotFound {
				r.t.Errorf("%s: %d", method, a.StatusCode)
			}
		}
	})
}

// What is also in a registry for everybody is for everybody, once that is known:
// a listed one's word is enough, of any other it takes the bytes.
func TestWhatEverybodyMayHave(t *testing.T) {
	for _, registry := range []string{"open.example", "evil.com"} {
		t.Run(registry, func(t *testing.T) {
			c := &clients{}
			private(t, c, func(r *rig, img testImage, _ string) {
				base := img.mine.blobs[2]
				c.open.AddBlob("library/base", base.bytes)
				c.evil = c.open.ServeHTTP
				for i, want := range []blobcache.Reach{blobcache.Everybody, blobcache.Everybody} {
					if before := r.cache.Reach(base.Digest); i == 0 && before != blobcache.Permitted {
						r.t.Errorf("it is for %v already", before)
					}
					r.get("/v2/"+registry+"/library/base/blobs/"+base.ref()).wants(r.t, http.StatusOK, base.bytes)
					sleep(time.Second) // the client has the last byte a moment before
					if got := r.cache.Reach(base.Digest); got != want {
						r.t.Errorf("then it is for %v", got)
					}
				}
				once := map[string]string{"open.example": "HEAD blob ", "evil.com": "GET blob "}[registry]
				r.asked(c.open, once+base.ref()+" -> 200")
				if got := r.cache.Reach(img.mine.blobs[1].Digest); got != blobcache.Permitted {
					r.t.Errorf("the others are for %v", got)
				}
			})
		})
	}
}

// Somebody waits for a blob that his registry does not give, when a client comes
// to the same fill that may have it: the bytes are for that one.
func TestAFillThatAPermittedClientJoins(t *testing.T) {
	c := &clients{}
	bubble(t, options{clients: c, auth: &origintest.TokenAuth{}}, func(r *rig) {
		t := r.t
		secret := addBlob(r.other, "team/app", random(7, 3*blob.PieceSize))
		c.evil = func(w http.ResponseWriter, req *http.Request) { // commits itself, and says nothing
			w.Header().Set("Docker-Content-Digest", secret.ref())
			w.Header().Set("Etag", `"x"`)
			w.Header().Set("Content-Length", strconv.Itoa(len(secret.bytes)))
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-req.Context().Done()
		}
		got := make(chan []byte)
		go func() {
			a := r.get("/v2/evil.com/x/y/blobs/" + secret.ref())
			got <- a.body
		}()
		sleep(time.Second)
		fill, ok := r.cache.Running(secret.Digest)
		if !ok {
			t.Fatal("no fill runs")
		}
		token := r.other.Token("team/app")
		permitted := make(chan answer)
		go func() { permitted <- r.get(team+"blobs/"+secret.ref(), with(token)) }()
		sleep(time.Second)
		for i := range blob.PieceCount(secret.Size) { // what its registry brings
			p := blob.Piece(i, secret.Size)
			if err := fill.WritePiece(i, secret.bytes[p.Offset:p.Offset+p.Length], blobcache.Provenance{Identity: "other"}); err != nil {
				t.Fatal(err)
			}
		}
		if b := <-got; len(b) > 0 {
			t.Errorf("the other one got %d bytes", len(b))
		}
		a := <-permitted
		a.wants(t, http.StatusOK, secret.bytes)
	})
}

// A fill goes on with the token of whoever waits.
func TestAWalletHasTheTokensOfAllWhoWait(t *testing.T) {
	bubble(t, options{clients: &clients{}, auth: &origintest.TokenAuth{}}, func(r *rig) {
		t := r.t
		b := addBlob(r.other, "team/app", random(7, 100))
		repo, err := r.proxy.origin.Repository("other.example", "team/app")
		if err != nil {
			t.Fatal(err)
		}
		first, second := r.other.Token("team/app"), r.other.Token("team/app")
		w := r.proxy.wallets.of(repo, "Bearer "+first)
		source := w.source(func(r *origin.Repository) blob.Source { return r.Blobs() })
		open := func() error {
			s, err := source.Open(t.Context(), b.Descriptor, blob.Range{Length: -1})
			if err == nil {
				s.Body.Close()
			}
			return err
		}
		if err := open(); err != nil {
			t.Fatal(err)
		}
		if again := r.proxy.wallets.of(repo, "Bearer "+second); again != w {
			t.Error("the second client has a wallet of its own")
		}
		r.other.Revoke(second)
		if err := open(); err != nil {
			t.Errorf("with the older token: %v", err)
		}
		r.other.Revoke(first)
		for range 2 {
			if err := open(); repo.Challenge(err) == "" {
				t.Errorf("with none: %v", err)
			}
		}
		w.add("Bearer " + r.other.Token("team/app"))
		if err := open(); err != nil {
			t.Errorf("with a new one: %v", err)
		}
		var codes []string
		for _, q := range r.other.Requests() {
			codes = append(codes, fmt.Sprint(q.Status))
		}
		if got := strings.Join(codes, " "); got != "200 401 200 401 200" {
			t.Errorf("the registry answered %s", got)
		}
	})
}

// Prefetching goes on with the token that got the manifest, and leaves marks.
func TestPrefetchInTheNameOfAClient(t *testing.T) {
	for _, share := range []bool{false, true} {
		bubble(t, options{run: true, clients: &clients{share: share}, auth: &origintest.TokenAuth{}}, func(r *rig) {
			img := addImage(r.t, r.other, "team/app", "v1")
			token := r.other.Token("team/app")
			r.get(team+"manifests/"+img.mine.manifest.ref(), with(token)).wants(r.t, http.StatusOK, img.mine.manifest.bytes)
			sleep(time.Minute)
			want := blobcache.Permitted
			if share {
				want = blobcache.Members
			}
			for _, b := range append(img.mine.blobs, img.mine.manifest) {
				if _, ok := r.cache.Stat(b.Digest); !ok || r.cache.Reach(b.Digest) != want {
					r.t.Errorf("%s is here: %v, and for %v", b.Digest, ok, r.cache.Reach(b.Digest))
				}
			}
			for _, q := range r.other.Requests() {
				if q.Auth != "Bearer "+token {
					r.t.Errorf("asked with %q: %v", q.Auth, q)
				}
			}
			r.get(team+"blobs/"+img.mine.blobs[1].ref()).refused(r.t, http.StatusUnauthorized, "UNAUTHORIZED")
		})
	}
}

// The image as dockerd pulls it: the challenge stands at /v2/.
func TestDockerHubGreetsClients(t *testing.T) {
	bubble(t, options{clients: &clients{}, auth: &origintest.TokenAuth{}}, func(r *rig) {
		t := r.t
		img := addImage(t, r.hub, "library/app", "v1")
		r.hub.Fault(origintest.Fault{Effect: origintest.Silence()})
		if a := r.get("/v2/"); a.StatusCode != http.StatusOK || a.took > greetingPatience {
			t.Errorf("%d after %v", a.StatusCode, a.took)
		}
		r.hub.ClearFaults()
		sleep(time.Minute)
		for range 3 {
			a := r.get("/v2/")
			a.refused(t, http.StatusUnauthorized, "UNAUTHORIZED")
			if got, want := a.Header.Get("WWW-Authenticate"), `Bearer realm="http://hub.test/token",service="origintest"`; got != want {
				t.Errorf("challenge %q, want %q", got, want)
			}
		}
		r.get("/v2/", with("any")).wants(t, http.StatusOK, []byte("{}"))
		r.pulls("/v2/library/app/", "v1", img, r.hub.Token("library/app"))
		if n := r.hub.Stats().Requests["GET ping"]; n != 2 {
			t.Errorf("%d pings", n)
		}
		sleep(greetingValidity)
		r.hub.Fault(origintest.Fault{Effect: origintest.Silence()})
		if a := r.get("/v2/"); a.StatusCode != http.StatusUnauthorized || a.took > 0 {
			t.Errorf("%d after %v", a.StatusCode, a.took)
		}
		sleep(10 * time.Second)
	})
}

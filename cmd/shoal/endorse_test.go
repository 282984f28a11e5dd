package main

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
	"shoal/cmd/shoal/internal/config"
	"shoal/p2p"
	"shoal/p2p/p2ptest"
	"shoal/p2p/swarmkey"
	"shoal/p2p/wire"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// seeding is a node whose only member is a seeder, which may be wrapped.
type seeding struct {
	node   *service
	reg    *origintest.Server
	seeder *p2ptest.Member
	d      blob.Descriptor // that the seeder has
	data   []byte
}

func startSeeding(t *testing.T, key *statement.Signer, trusted []statement.Key, wrap func(data []byte, honest http.Handler) http.Handler) *seeding {
	t.Helper()
	s := &seeding{reg: origintest.Start(t, origintest.Options{}), data: make([]byte, 8<<20)}
	_, _ = rand.NewChaCha8([32]byte{1}).Read(s.data) // never fails
	swarm := swarmkey.New()
	s.seeder = p2ptest.NewCluster(t, 1, p2ptest.Options{
		Key: swarm, Cache: blobcache.Options{Signer: key},
		Configure: func(_ int, o *p2p.Options) {
			o.WrapPieces = func(honest http.Handler) http.Handler { return wrap(s.data, honest) }
		},
	}).Members[0]
	s.d = s.seeder.Seed(s.data)
	keyFile := filepath.Join(t.TempDir(), "swarm.key")
	if err := os.WriteFile(keyFile, swarm.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.node = startService(t, config.Config{
		DataDir: t.TempDir(), Mirror: "127.0.0.1:0", Admin: "127.0.0.1:0", SwarmKey: keyFile, TrustedKeys: trusted, Patience: patience,
		Swarm: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}, Pieces: "127.0.0.1:0",
		Join: s.seeder.Addrs(), Registries: origin.Registries{"docker.io": {Upstreams: []string{s.reg.URL}}},
	})
	s.node.finds(t, s.d.Digest)
	return s
}

// get asks the node for the blob.
func (s *seeding) get(t *testing.T) (status int, body io.Reader) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.node.mirror.addr()+"/v2/a/b/blobs/"+s.d.Digest.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp.StatusCode, resp.Body
}

// TestFirstBytesOnTrust: only a seeder has a blob, and gives its first half. Where
// its key is trusted the client has these bytes before the rest is there; where it
// is not, it has none.
func TestFirstBytesOnTrust(t *testing.T) {
	key := statement.GenerateSigner()
	for name, trusted := range map[string][]statement.Key{"trusted": {key.Key()}, "not trusted": nil} {
		t.Run(name, func(t *testing.T) {
			rest := make(chan struct{})
			s := startSeeding(t, key, trusted, func(_ []byte, honest http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if req, err := wire.ParseRequest(r.URL.Path); err == nil && req.Kind == wire.KindPieces && req.First >= 4 {
						<-rest
					}
					honest.ServeHTTP(w, r)
				})
			})
			_, body := s.get(t)
			got, first := make([]byte, len(s.data)), make(chan error, 1)
			go func() {
				_, err := io.ReadFull(body, got[:4<<20])
				first <- err
			}()
			until(t, "the first half is there", func() bool { fills := s.node.node.Fills(); return len(fills) == 1 && fills[0].Done >= 4 })
			if trusted == nil {
				if served := counted(t, s.node, "shoal_proxy_served_bytes_total"); served != 0 {
					t.Errorf("%v bytes went out before the blob was proven", served)
				}
				close(rest)
			}
			if err := <-first; err != nil {
				t.Fatal(err)
			}
			if trusted != nil {
				if _, whole := s.node.cache.Stat(s.d.Digest); whole {
					t.Error("the blob was whole by then")
				}
				close(rest)
			}
			if _, err := io.ReadFull(body, got[4<<20:]); err != nil || !bytes.Equal(got, s.data) {
				t.Errorf("the rest: %v", err)
			}
		})
	}
}

// TestFalseSeeder: a seeder whose key is trusted signs the chain of other bytes,
// and gives these, the second half when the client has seen some. It gets no clean
// end, the digest is not served for a while, and the key counts no more.
func TestFalseSeeder(t *testing.T) {
	key, rest := statement.GenerateSigner(), make(chan struct{})
	s := startSeeding(t, key, []statement.Key{key.Key()}, func(data []byte, honest http.Handler) http.Handler {
		fake := bytes.Clone(data)
		fake[2<<20] ^= 1
		return forgery(key, fake, honest, rest)
	})
	s.reg.Registry.AddBlob("a/b", s.data)
	_, body := s.get(t)
	got := make([]byte, 2<<20+1)
	if _, err := io.ReadFull(body, got); err != nil || bytes.Equal(got, s.data[:len(got)]) {
		t.Errorf("nothing false was shown: %v", err)
	}
	close(rest)
	if n, err := io.Copy(io.Discard, body); err == nil {
		t.Errorf("a clean end after %d bytes more", n)
	}
	until(t, "the key is convicted", func() bool { return s.node.cache.Convicted(key.Key()) })
	if again, _ := s.get(t); again != http.StatusNotFound {
		t.Errorf("the digest is answered with %d", again)
	}
}

// forgery answers as if fake were the blob, with the key's word for it, and gives the
// second half when rest is closed.
func forgery(key *statement.Signer, fake []byte, honest http.Handler, rest <-chan struct{}) http.Handler {
	h := proof.NewHasher()
	h.Write(fake)
	chain, _ := h.Chain()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := wire.ParseRequest(r.URL.Path)
		var body []byte
		switch {
		case err == nil && req.Kind == wire.KindChain:
			honestly := httptest.NewRecorder()
			honest.ServeHTTP(honestly, r)
			if honestly.Code != http.StatusOK {
				w.WriteHeader(honestly.Code)
				return
			}
			body = chain.Bytes()
			d := blob.Descriptor{Digest: req.Digest, Size: req.Size}
			w.Header().Set(wire.EndorsementHeader, wire.PrintEndorsement(key.Endorse(d, sha256.Sum256(body), time.Now())))
		case err == nil && req.Kind == wire.KindPieces:
			if req.First >= 4 {
				select {
				case <-rest:
				case <-r.Context().Done():
				}
			}
			rng := req.Range()
			body = fake[rng.Offset : rng.Offset+rng.Length]
		default:
			honest.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // whoever asked may have gone
	})
}

// counted returns the sum of a counter of the node.
func counted(t *testing.T, s *service, name string) (sum float64) {
	t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

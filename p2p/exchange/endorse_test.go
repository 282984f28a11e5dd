package exchange

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/statement"
	"shoal/p2p/wire"
)

// reopen gives a member, which has nothing yet, a cache of other options.
func (m *member) reopen(o blobcache.Options) *member {
	m.close()
	m.open(o)
	return m
}

// seeded is a relay whose source is a seeder, and a third that trusts the key.
func seeded(t *testing.T, data []byte, key *statement.Signer, trusts bool) relayed {
	t.Helper()
	r := relay(t, data, func(mesh *mesh, wrap func(http.Handler) http.Handler) *member {
		return mesh.member(wrap).reopen(blobcache.Options{Signer: key})
	})
	if trusts {
		r.m.reopen(blobcache.Options{TrustedKeys: []statement.Key{key.Key()}})
	}
	return r
}

// Whoever trusts a seeder's key lets bytes out as they come, though they come
// from a member that can prove nothing, does not trust the key, and has passed on
// what was signed.
func TestEndorsedBytesFlow(t *testing.T) {
	data := content(1, 12*mib+1)
	r := seeded(t, data, statement.GenerateSigner(), true)
	if r.fill.Trusts() {
		t.Error("the relay trusts a key that it was not told to")
	}
	f, err := r.m.Fetch(t.Context(), r.reg.d, nil)
	if err != nil {
		t.Fatal(err)
	}
	rd, err := f.Open(t.Context(), blob.Range{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	got := make([]byte, 12*mib)
	if _, err := io.ReadFull(rd, got); err != nil || !bytes.Equal(got, data[:12*mib]) {
		t.Fatalf("%v\n%s", err, r.m.log)
	}
	if _, whole := r.m.cache.Stat(r.reg.d.Digest); whole || f.Proven().Any() {
		t.Error("it was proven by then")
	}
	r.m.mustPull(data, r.reg.src)
	r.m.lawful()
	if _, ok := r.m.cache.Endorsement(r.reg.d, chainOf(data)); !ok {
		t.Error("what was signed is not kept with the blob")
	}
}

// Who does not trust the key waits for closure.
func TestEndorsedBytesDoNotFlowWithoutTrust(t *testing.T) {
	r := seeded(t, content(1, 12*mib+1), statement.GenerateSigner(), false)
	f, err := r.m.Fetch(t.Context(), r.reg.d, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the relay gives nothing", func() bool { return f.Have().Count() == 12 })
	ctx, cancel := context.WithCancel(t.Context())
	rd, err := f.Open(ctx, blob.Range{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	cancel()
	if n, err := io.Copy(io.Discard, rd); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes flowed, %v", n, err)
	}
}

// A member that sends a chain with a word for it that was not given is banned,
// nothing flows, and the blob comes from elsewhere.
func TestForgedEndorsements(t *testing.T) {
	t.Parallel()
	data := content(1, 6*mib+1)
	key, other := statement.GenerateSigner(), statement.GenerateSigner()
	d, sum, now := describe(data), sha256.Sum256(chainOf(data).Bytes()), time.Now()
	for name, tt := range map[string]struct {
		says   statement.Endorsement
		banned bool
	}{
		"the word of another in the key's name": {inTheNameOf(key, other.Endorse(d, sum, now)), true},
		"of another blob":                       {key.Endorse(describe(data[1:]), sum, now), true},
		"of another chain":                      {key.Endorse(d, [sha256.Size]byte{}, now), true},
		"of tomorrow":                           {key.Endorse(d, sum, now.Add(24*time.Hour)), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mesh := newMesh(t)
			liar := mesh.member(on(wire.KindChain, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
				rec := httptest.NewRecorder()
				honest.ServeHTTP(rec, r)
				if _, err := wire.ParseEndorsement(rec.Header().Get(wire.EndorsementHeader)); err != nil {
					t.Errorf("a seeder says nothing: %v", err)
				}
				rec.Header().Set(wire.EndorsementHeader, wire.PrintEndorsement(tt.says))
				for name, values := range rec.Header() {
					w.Header()[name] = values
				}
				_, _ = w.Write(rec.Body.Bytes())
			})).reopen(blobcache.Options{Signer: key})
			m := mesh.member(nil).reopen(blobcache.Options{TrustedKeys: []statement.Key{key.Key()}})
			liar.seed(data)
			f, err := m.Fetch(t.Context(), d, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.banned {
				eventually(t, "not banned", func() bool { return m.metric("shoal_p2p_bans_total", "endorsement") == 1 })
			} else {
				eventually(t, "not said", func() bool { return len(m.log.find("signed chain not used", "clocks")) == 1 })
				m.lawful()
			}
			if f.Trusts() {
				t.Error("it is trusted")
			}
		})
	}
}

func inTheNameOf(key *statement.Signer, e statement.Endorsement) statement.Endorsement {
	e.Signer = key.Key()
	return e
}

package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

// on wraps a handler: requests of that kind are answered by do, which gets the
// honest handler. A member that answers questions for info in its own way is
// too old to be followed.
func on(kind wire.Kind, do func(w http.ResponseWriter, r *http.Request, honest http.Handler)) func(http.Handler) http.Handler {
	return func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if kind == wire.KindInfo && r.URL.Path == wire.FollowPath {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			if !strings.HasPrefix(r.URL.Path, wire.Prefix+string(kind)) {
				honest.ServeHTTP(w, r)
				return
			}
			do(w, r, honest)
		})
	}
}

// altered answers with what change makes of the honest answer.
func altered(kind wire.Kind, change func(body []byte) []byte) func(http.Handler) http.Handler {
	return on(kind, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		rec := httptest.NewRecorder()
		honest.ServeHTTP(rec, r)
		if rec.Code != http.StatusOK {
			w.WriteHeader(rec.Code)
			return
		}
		body := change(rec.Body.Bytes())
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
	})
}

// flip changes a bit of every piece.
func flip(body []byte) []byte {
	for i := 0; i < len(body); i += mib {
		body[i] ^= 1
	}
	return body
}

// convicted fails unless m has banned exactly this member, once, for one of
// those reasons, and has said so.
func (m *member) convicted(liar *member, reasons ...string) {
	m.mesh.t.Helper()
	eventually(m.mesh.t, "nobody is banned", func() bool { return m.metric("shoal_p2p_bans_total", "") > 0 })
	if n := m.metric("shoal_p2p_bans_total", ""); n != 1 {
		m.mesh.t.Errorf("%d bans", n)
	}
	if !m.bans.Holds(liar.id, time.Now()) {
		m.mesh.t.Error("somebody else is banned")
	}
	said := 0
	for _, r := range reasons {
		said += len(m.log.find("WARN member lied and is banned", "peer="+liar.id.String(), "about="+r, "digest=sha256:", "piece=", "for=10m0s"))
	}
	if said != 1 {
		m.mesh.t.Errorf("the log does not say who did what:\n%s", m.log)
	}
}

// lawful fails if m has banned anybody.
func (m *member) lawful() {
	m.mesh.t.Helper()
	if n := m.metric("shoal_p2p_bans_total", ""); n != 0 {
		m.mesh.t.Errorf("%d bans:\n%s", n, m.log)
	}
}

func TestLoneLiar(t *testing.T) {
	data := content(1, 6*mib+1)
	for _, withOrigin := range []bool{true, false} {
		t.Run(fmt.Sprint("origin ", withOrigin), func(t *testing.T) {
			reg := newRegistry(t, origintest.Options{}, data)
			mesh := newMesh(t)
			liar := mesh.member(altered(wire.KindPieces, flip))
			liar.seed(data)
			m := mesh.member(nil)
			if !withOrigin {
				m.limits.alone = 300 * time.Millisecond
				got, err := m.pull(reg.d, nil)
				if err == nil || len(got) != 0 {
					t.Errorf("the reader got %d bytes and %v", len(got), err)
				}
				m.checkBlobs()
			} else {
				m.mustPull(data, reg.src)
				if reg.gave() != reg.d.Size {
					t.Errorf("the origin gave %d bytes of %d", reg.gave(), reg.d.Size)
				}
			}
			m.convicted(liar, "piece", "blob")
		})
	}
}

// Two members, of whom one lies: whatever helps there is, the right bytes come
// out, and only the liar is banned.
func TestLiarAmongHolders(t *testing.T) {
	data := content(1, 12*mib+1)
	for _, chain := range []bool{true, false} {
		for _, withOrigin := range []bool{true, false} {
			t.Run(fmt.Sprint("chain ", chain, ", origin ", withOrigin), func(t *testing.T) {
				reg := newRegistry(t, origintest.Options{}, data)
				mesh := newMesh(t)
				noChain := func(h http.Handler) http.Handler { return h }
				if !chain {
					noChain = on(wire.KindChain, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { notFound(w) })
				}
				// The honest one lets the liar go first.
				lied := make(chan struct{})
				once := sync.OnceFunc(func() { close(lied) })
				liar := mesh.member(func(h http.Handler) http.Handler {
					return noChain(on(wire.KindPieces, func(w http.ResponseWriter, r *http.Request, h http.Handler) {
						altered(wire.KindPieces, flip)(h).ServeHTTP(w, r)
						once()
					})(h))
				})
				honest := mesh.member(func(h http.Handler) http.Handler {
					return noChain(on(wire.KindPieces, func(w http.ResponseWriter, r *http.Request, h http.Handler) {
						<-lied
						h.ServeHTTP(w, r)
					})(h))
				})
				liar.seed(data)
				honest.seed(data)
				m := mesh.member(nil)
				var src blob.Source
				if withOrigin {
					src = reg.src
				}
				m.mustPull(data, src)
				// Without an origin the liar may have been alone to give it all.
				m.convicted(liar, "piece", "blob")
				if !withOrigin && reg.gave() > 0 {
					t.Error("an origin out of nowhere")
				}
				if honest.served() == 0 {
					t.Error("the honest one was not asked")
				}
			})
		}
	}
}

func TestLieAgainstAProvenChain(t *testing.T) {
	data := content(1, 6*mib+1)
	mesh := newMesh(t)
	liar := mesh.member(altered(wire.KindPieces, flip))
	m := mesh.member(nil)
	// The blob was here once, and its chain is kept: the first wrong piece
	// convicts, and nothing of it is stored.
	m.close()
	m.open(blobcache.Options{Budget: 9 * mib})
	m.seed(data)
	other := content(2, 5*mib)
	m.seed(other) // no room for both
	if _, ok := m.cache.Stat(describe(data).Digest); ok {
		t.Fatal("the blob is still there")
	}
	liar.seed(data)
	reg := newRegistry(t, origintest.Options{}, data)
	m.mustPull(data, reg.src)
	m.convicted(liar, "piece")
	if reg.gave() != reg.d.Size {
		t.Errorf("the origin gave %d bytes of %d", reg.gave(), reg.d.Size)
	}
	if len(m.log.find("pieces do not lead to the digest")) > 0 {
		t.Error("a wrong piece got as far as closure")
	}
}

func TestForgedChain(t *testing.T) {
	data := content(1, 12*mib+1)
	for _, withOrigin := range []bool{true, false} {
		t.Run(fmt.Sprint("origin ", withOrigin), func(t *testing.T) {
			reg := newRegistry(t, origintest.Options{}, data)
			mesh := newMesh(t)
			var m *member
			forger := mesh.member(func(h http.Handler) http.Handler {
				h = altered(wire.KindChain, flip)(h)
				return on(wire.KindPieces, func(w http.ResponseWriter, r *http.Request, h http.Handler) {
					// The last piece comes after the chain, else there is no use for it.
					if req, err := wire.ParseRequest(r.URL.Path); err == nil && req.First+req.Count == 13 {
						eventually(t, "the chain did not arrive", func() bool { return len(m.log.find("DEBUG chain ")) > 0 })
					}
					h.ServeHTTP(w, r)
				})(h)
			})
			forger.seed(data)
			m = mesh.member(nil)
			var src blob.Source
			if withOrigin {
				src = reg.src
			}
			m.mustPull(data, src)
			m.convicted(forger, "chain")
		})
	}
}

func TestFalseSize(t *testing.T) {
	data := content(1, 3*mib+1)
	false1 := func(b []byte) []byte { return wire.Info{Size: 5 * mib, Whole: true}.Marshal() }
	t.Run("known", func(t *testing.T) {
		mesh := newMesh(t)
		liar, m := mesh.member(altered(wire.KindInfo, false1)), mesh.member(nil)
		honest := mesh.member(on(wire.KindPieces, func(w http.ResponseWriter, r *http.Request, h http.Handler) {
			eventually(t, "the liar said nothing", func() bool { return len(m.log.find("DEBUG member says another size")) > 0 })
			h.ServeHTTP(w, r)
		}))
		liar.seed(data)
		honest.seed(data)
		m.mustPull(data, nil)
		m.convicted(liar, "size")
	})
	t.Run("unknown", func(t *testing.T) {
		reg := newRegistry(t, origintest.Options{}, data)
		mesh := newMesh(t)
		liar := mesh.member(func(h http.Handler) http.Handler {
			return altered(wire.KindInfo, false1)(on(wire.KindPieces, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				req, _ := wire.ParseRequest(r.URL.Path)
				w.Header().Set("Content-Length", fmt.Sprint(req.Range().Length))
				_, _ = w.Write(make([]byte, req.Range().Length))
			})(h))
		})
		liar.seed(data)
		m := mesh.member(nil)
		d := blob.Descriptor{Digest: reg.d.Digest, Size: blob.UnknownSize}
		if got, err := m.pull(d, reg.src); !errors.Is(err, blob.ErrCorrupt) || len(got) > 0 {
			t.Errorf("the first reader got %d bytes and %v", len(got), err)
		}
		m.convicted(liar, "blob")
		// The claim did no harm to the next.
		got, err := m.pull(d, reg.src)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("the second reader got %d bytes and %v", len(got), err)
		}
		m.checkBlobs()
	})
}

// Answers that do not follow the protocol cost the member its part, not its
// name: what it said about the blob may be true.
func TestMalformedAnswers(t *testing.T) {
	t.Parallel()
	data := content(1, 6*mib+1)
	body := func(s string) func([]byte) []byte { return func([]byte) []byte { return []byte(s) } }
	protocol := map[string]bool{ // broken, and worth a warning
		"info garbage": true, "info endless": true, "info refused": true, "pieces too long": true, "pieces redirected": true,
	}
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"info garbage":    altered(wire.KindInfo, body("\x00\xff garbage")),
		"info huge claim": altered(wire.KindInfo, func([]byte) []byte { return wire.Info{Size: blob.MaxSize, Whole: true}.Marshal() }),
		"info endless": on(wire.KindInfo, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, mib)); err != nil {
					return
				}
			}
		}),
		"info refused": on(wire.KindInfo, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusInternalServerError)
		}),
		"pieces too long":  altered(wire.KindPieces, func(b []byte) []byte { return append(b, 1) }),
		"pieces too short": altered(wire.KindPieces, func(b []byte) []byte { return b[1:] }),
		"pieces redirected": on(wire.KindPieces, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}),
		"pieces never there": on(wire.KindPieces, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { notFound(w) }),
		"pieces busy": on(wire.KindPieces, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}),
		"pieces broken off": on(wire.KindPieces, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Length", fmt.Sprint(mib))
			_, _ = w.Write(make([]byte, 1000))
			panic(http.ErrAbortHandler)
		}),
		"chain garbage":  altered(wire.KindChain, body("chain")),
		"chain too long": altered(wire.KindChain, func(b []byte) []byte { return append(b, b...) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, origintest.Options{}, data)
			mesh := newMesh(t)
			bad := mesh.member(wrap)
			bad.seed(data)
			m := mesh.member(nil)
			m.mustPull(data, reg.src)
			said := len(m.log.find("WARN member breaks the protocol", "digest=sha256:", "peer="+bad.id.String()))
			if want := protocol[name]; (said > 0) != want {
				t.Errorf("%d warnings, want some: %v\n%s", said, want, m.log)
			}
			if strings.HasPrefix(name, "chain") {
				if reg.gave() != 0 {
					t.Errorf("the origin gave %d bytes though the pieces are right", reg.gave())
				}
			} else if reg.gave() != reg.d.Size {
				t.Errorf("the origin gave %d bytes of %d", reg.gave(), reg.d.Size)
			}
			if name != "info huge claim" {
				m.lawful()
			}
		})
	}
}

// after answers honestly for n bytes of pieces in all, and then does something
// else in the middle of the answer.
func after(n int64, do func(w http.ResponseWriter, r *http.Request)) func(http.Handler) http.Handler {
	var sent atomic.Int64
	return on(wire.KindPieces, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		rec := httptest.NewRecorder()
		honest.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		before := sent.Add(int64(len(body))) - int64(len(body))
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		rest := max(0, min(int64(len(body)), n-before))
		_, _ = w.Write(body[:rest])
		if rest < int64(len(body)) {
			_ = http.NewResponseController(w).Flush()
			do(w, r)
		}
	})
}

func die(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func freeze(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func trickle(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			if _, err := w.Write(make([]byte, 1)); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	}
}

func TestHolderFailsMidway(t *testing.T) {
	t.Parallel()
	data := content(1, 24*mib+mib/2) // a trickle of zeros would end a last piece of a byte, and be a lie
	for name, end := range map[string]func(http.ResponseWriter, *http.Request){"dies": die, "freezes": freeze, "trickles": trickle} {
		for _, rescue := range []string{"holder", "origin", "nobody"} {
			t.Run(name+", rescue by "+rescue, func(t *testing.T) {
				t.Parallel()
				reg := newRegistry(t, origintest.Options{}, data)
				mesh := newMesh(t)
				bad := mesh.member(after(5*mib, end))
				bad.seed(data)
				m := mesh.member(nil).impatient()
				m.limits.plan.SlowSwarm, m.limits.plan.Window = 1<<20, 400*time.Millisecond
				if rescue != "nobody" {
					m.limits.alone, m.limits.stalled = 30*time.Second, 30*time.Second
				} else {
					got, err := m.pull(reg.d, nil)
					if !errors.Is(err, blob.ErrStalled) && !errors.Is(err, blob.ErrUnavailable) {
						t.Errorf("%d bytes and %v", len(got), err)
					}
					return
				}
				var src blob.Source
				if rescue == "origin" {
					src = reg.src
				} else {
					mesh.member(nil).seed(data)
				}
				m.mustPull(data, src)
				if rescue == "holder" && reg.gave() != 0 {
					t.Error("the origin was asked")
				}
				if rescue == "origin" && reg.gave() < 15*mib {
					t.Errorf("the origin gave %d bytes", reg.gave())
				}
				m.lawful()
			})
		}
	}
}

func TestAllHoldersDie(t *testing.T) {
	data := content(1, 24*mib+1)
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	for range 3 {
		mesh.member(after(3*mib, die)).seed(data)
	}
	m := mesh.member(nil)
	m.mustPull(data, reg.src)
	peers := m.metric("shoal_p2p_fetched_bytes_total", "peers")
	if peers == 0 || reg.gave() > reg.d.Size-peers+4*mib {
		t.Errorf("peers gave %d bytes, the origin %d of %d", peers, reg.gave(), reg.d.Size)
	}
}

func TestBannedMemberIsNotAsked(t *testing.T) {
	data := content(1, 2*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	var asked atomic.Int64
	mesh := newMesh(t)
	holder := mesh.member(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); h.ServeHTTP(w, r) })
	})
	holder.seed(data)
	m := mesh.member(nil)
	m.convict(holder.id, "piece", reg.d.Digest, 0)
	m.mustPull(data, reg.src)
	if asked.Load() != 0 || reg.gave() != reg.d.Size {
		t.Errorf("a banned member was asked %d times; the origin gave %d bytes", asked.Load(), reg.gave())
	}
}

func TestNobodyLeftToAsk(t *testing.T) {
	t.Parallel()
	data := content(1, 12*mib)
	var asked atomic.Int64
	mesh := newMesh(t)
	mesh.member(on(wire.KindPieces, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		if asked.Add(1) > 2 {
			notFound(w) // evicted, say
			return
		}
		honest.ServeHTTP(w, r)
	})).seed(data)
	m := mesh.member(nil)
	m.limits.alone = 300 * time.Millisecond
	got, err := m.pull(describe(data), nil)
	if !errors.Is(err, blob.ErrUnavailable) || len(got) > 0 {
		t.Errorf("the reader got %d bytes and %v", len(got), err)
	}
	m.lawful()
}

package exchange

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
	"shoal/p2p/channel"
	"shoal/p2p/p2ptest/forge"
	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

// forger adds a member that lies about the pieces of data, and is honest in all
// else. outer wraps what it does, if it is not nil.
func (m *mesh) forger(lie forge.Lie, data []byte, outer func(http.Handler) http.Handler) *member {
	m.t.Helper()
	var forger atomic.Pointer[forge.Forger]
	lying := on(wire.KindPieces, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		rec := httptest.NewRecorder()
		honest.ServeHTTP(rec, r)
		req, err := wire.ParseRequest(r.URL.Path)
		if rec.Code != http.StatusOK || err != nil {
			w.WriteHeader(rec.Code)
			return
		}
		body := rec.Body.Bytes()
		forger.Load().Answer(req, w.Header(), body)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
	})
	liar := m.member(func(h http.Handler) http.Handler {
		if h = lying(h); outer != nil {
			h = outer(h)
		}
		return h
	})
	forger.Store(&forge.Forger{Lie: lie, Signer: liar.signer, Chain: sha256.Sum256(chainOf(data).Bytes())})
	return liar
}

func chainOf(data []byte) proof.Chain {
	h := proof.NewHasher()
	h.Write(data)
	c, _ := h.Chain()
	return c
}

// A lie that can be seen in the answer is seen there: nothing of it is stored,
// and the liar is banned at once.
func TestLiesAboutVouchers(t *testing.T) {
	t.Parallel()
	data := content(1, 8*mib+1)
	for _, lie := range forge.AtOnce() {
		t.Run(string(lie), func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, origintest.Options{}, data)
			mesh := newMesh(t)
			liar, m := mesh.forger(lie, data, nil), mesh.member(nil)
			liar.seed(data)
			m.mustPull(data, reg.src)
			reason := "voucher"
			if lie == forge.Chain {
				reason = "piece"
			}
			m.convicted(liar, reason)
			if n := m.metric("shoal_p2p_fetched_bytes_total", "peers"); n != 0 || reg.gave() != reg.d.Size {
				t.Errorf("%d bytes of the liar were stored, the origin gave %d of %d", n, reg.gave(), reg.d.Size)
			}
			if len(m.log.find("pieces do not lead to the digest")) > 0 {
				t.Error("a wrong piece got as far as closure")
			}
		})
	}
}

// A lie that only the right bytes show is found out with the origin's help, and
// the liar is banned when the blob is proven.
func TestVouchedLies(t *testing.T) {
	t.Parallel()
	data := content(1, 8*mib+1)
	for _, lie := range forge.Later() {
		t.Run(string(lie), func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, origintest.Options{}, data)
			mesh := newMesh(t)
			liar, m := mesh.forger(lie, data, nil), mesh.member(nil)
			liar.seed(data)
			m.mustPull(data, reg.src)
			m.convicted(liar, "piece", "blob")
		})
	}
}

// A crowd begins at the same moment, and one of it lies about what it took from
// the origin, or passes on. All get the right bytes, nobody who is honest is
// banned, and who was lied to bans the liar.
func TestCrowdWithALiar(t *testing.T) {
	t.Parallel()
	data := content(1, 24*mib+1)
	for _, lie := range slices.Concat(forge.AtOnce(), forge.Later()) {
		t.Run(string(lie), func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, origintest.Options{UplinkBitsPerSecond: 400 << 20}, data)
			mesh := newMesh(t)
			liar := mesh.forger(lie, data, nil)
			honest := []*member{mesh.member(nil), mesh.member(nil), mesh.member(nil)}
			all := append([]*member{liar}, honest...)
			mesh.connect(all...)
			pullAll(all, reg.d, reg.src)
			bans := int64(0)
			for _, m := range all {
				eventually(t, "a fill is not over", func() bool { return len(m.Fills()) == 0 })
				for _, h := range honest {
					if m.bans.Holds(h.id, time.Now()) {
						t.Errorf("somebody honest is banned:\n%s", m.log)
					}
				}
				bans += m.metric("shoal_p2p_bans_total", "")
			}
			if bans == 0 && lie != forge.Chain { // the liar has no chain yet to show: it is not believed, that is all
				t.Error("nobody is banned")
			}
		})
	}
}

// relayed is a swarm in which m is answered by the relay only, which got all
// but the last piece from the source, and gets that from nobody: it can prove
// nothing.
type relayed struct {
	source, relay, m *member
	fill             *blobcache.Fill // of the relay
	reg              *registry
}

func relay(t *testing.T, data []byte, source func(mesh *mesh, wrap func(http.Handler) http.Handler) *member) relayed {
	t.Helper()
	mesh := newMesh(t)
	last := blob.PieceCount(int64(len(data))) - 1
	r := relayed{relay: mesh.member(nil), m: mesh.member(nil), reg: newRegistry(t, origintest.Options{}, data)}
	r.source = source(mesh, func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			asked, err := wire.ParseRequest(req.URL.Path)
			switch id, _ := channel.RemotePeer(req.Context()); {
			case id != r.relay.id:
				notFound(w)
			case err == nil && asked.First <= last && last < asked.First+asked.Count:
				<-req.Context().Done()
			default:
				honest.ServeHTTP(w, req)
			}
		})
	})
	r.relay.limits.plan.RunPieces = 1
	d := r.source.seed(data)
	var err error
	if r.fill, err = r.relay.Fetch(t.Context(), d, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the relay has not got its part", func() bool { return r.fill.Have().Count() == uint(last) })
	mesh.mu.Lock()
	delete(mesh.holds, d.Digest)
	mesh.mu.Unlock()
	r.relay.announce(d)
	return r
}

// honestly adds an honest source.
func honestly(m *mesh, wrap func(http.Handler) http.Handler) *member { return m.member(wrap) }

// Whoever passes on what others vouched for is not to blame for it.
func TestRelayOfALieIsNotBanned(t *testing.T) {
	data := content(1, 12*mib+1)
	var liar *member
	r := relay(t, data, func(mesh *mesh, wrap func(http.Handler) http.Handler) *member {
		liar = mesh.forger(forge.Garbage, data, wrap)
		return liar
	})
	if r.fill.Shareable().None() {
		t.Fatal("the relay has nothing to give")
	}
	r.m.met.meet(liar.id)
	r.m.mustPull(data, r.reg.src)
	r.m.convicted(liar, "piece")
	if r.m.metric("shoal_p2p_fetched_bytes_total", "peers") == 0 {
		t.Error("nothing came from the relay")
	}
}

// What is vouched for by somebody who is banned is not taken, and who passes it
// on is not to blame.
func TestVoucherOfABannedMember(t *testing.T) {
	data := content(1, 12*mib+1)
	var liar *member
	r := relay(t, data, func(mesh *mesh, wrap func(http.Handler) http.Handler) *member {
		liar = mesh.forger(forge.Garbage, data, wrap)
		return liar
	})
	r.m.met.meet(liar.id)
	r.m.convict(liar.id, "piece", r.reg.d.Digest, 0)
	r.m.mustPull(data, r.reg.src)
	if n := r.m.metric("shoal_p2p_fetched_bytes_total", "peers"); n != 0 || r.reg.gave() != r.reg.d.Size {
		t.Errorf("%d bytes were taken, the origin gave %d of %d", n, r.reg.gave(), r.reg.d.Size)
	}
	if n := r.m.metric("shoal_p2p_bans_total", ""); n != 1 {
		t.Errorf("%d bans:\n%s", n, r.m.log)
	}
}

// Pieces go from hand to hand under the chain of who has the blob, hashed once
// by each, and nobody needs to have proved anything.
func TestRelayUnderAChain(t *testing.T) {
	data := content(1, 12*mib+1)
	r := relay(t, data, honestly)
	if got, have := r.fill.Shareable(), r.fill.Have(); !got.Equal(have) {
		t.Errorf("shareable are %s of %s", got, have)
	}
	if r.fill.Proven().Any() {
		t.Error("something is proven")
	}
	r.m.met.meet(r.source.id)
	r.m.mustPull(data, r.reg.src)
	r.m.lawful()
	if len(r.m.log.find("DEBUG chain offered", "peer="+r.source.id.String(), "signed=true")) != 1 {
		t.Errorf("the chain was not taken for that of its signer:\n%s", r.m.log)
	}
	if r.m.metric("shoal_p2p_fetched_bytes_total", "peers") == 0 || r.reg.gave() == r.reg.d.Size {
		t.Error("nothing came from the relay")
	}
}

// The bytes of members do not flow to clients before the blob is proven,
// whoever vouches for them.
func TestVouchedBytesDoNotFlow(t *testing.T) {
	r := relay(t, content(1, 12*mib+1), honestly)
	if r.fill.Shareable().None() {
		t.Fatal("there is nothing that could flow")
	}
	ctx, cancel := context.WithCancel(t.Context())
	rd, err := r.fill.Open(ctx, blob.Range{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	cancel()
	if n, err := io.Copy(io.Discard, rd); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes flowed, %v", n, err)
	}
}

// A member from before vouchers gets what is proven and nothing else.
func TestOldMembersGetProvenPieces(t *testing.T) {
	data := content(1, 12*mib+1)
	r := relay(t, data, honestly)
	first, _ := r.fill.Shareable().NextSet(0)
	path := wire.Request{Kind: wire.KindPieces, Digest: r.reg.d.Digest, Size: r.reg.d.Size, First: int(first), Count: 1}.Path()
	for name, want := range map[string]int{"old": http.StatusNotFound, "new": http.StatusOK} {
		r.m.client.know(Holder{Peer: r.relay.id, Pieces: []string{r.relay.addr}})
		for _, path := range []string{path, wire.Request{Kind: wire.KindChain, Digest: r.reg.d.Digest, Size: r.reg.d.Size}.Path()} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host(r.relay.id)+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if name == "new" {
				req.Header.Set(wire.VouchersHeader, wire.VouchersVersion)
			}
			resp, err := r.m.client.http.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: %s: %d, want %d", name, path, resp.StatusCode, want)
			}
		}
	}
}

// What a member took from the origin comes with its voucher, which says what
// it gives.
func TestOwnPiecesAreVouched(t *testing.T) {
	data := content(1, 3*mib+1)
	mesh := newMesh(t)
	m, other := mesh.member(nil), mesh.member(nil)
	f, _, err := m.cache.Fill(describe(data))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Fail(errors.New("enough"))
	if err := f.WritePiece(1, data[mib:2*mib], blobcache.Provenance{Identity: "registry"}); err != nil {
		t.Fatal(err)
	}
	other.client.know(m.Self())
	p, err := other.client.pieces(t.Context(), m.id, wire.Request{Kind: wire.KindPieces, Digest: describe(data).Digest, Size: int64(len(data)), First: 1, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.body.Close()
	body, err := io.ReadAll(p.body)
	v := p.pledges[0].Voucher
	if err != nil || v == nil || !bytes.Equal(body, data[mib:2*mib]) {
		t.Fatalf("%d bytes with %+v, %v", len(body), p.pledges, err)
	}
	id, err := signerOf(v.Signer)
	if err != nil || id != m.id || v.CheckPiece(describe(data), 1) != nil || v.Sum != sha256.Sum256(body) {
		t.Errorf("a voucher of %s for %x, %v", id, v.Sum, err)
	}
	if !other.met.know(m.id) || !m.met.know(other.id) || m.met.know(liarID(t)) {
		t.Error("who has been met is not known, or who has not")
	}
}

func liarID(t *testing.T) (id peer.ID) {
	t.Helper()
	id, err := signerOf(statement.Key{1})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

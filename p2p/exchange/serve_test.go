package exchange

import (
	"bytes"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache"
	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

// ask sends a request of any path to a member, over its piece channel.
func (m *member) ask(of *member, method, path string) (*http.Response, error) {
	m.mesh.t.Helper()
	m.client.know(Holder{Peer: of.id, Pieces: []string{of.addr}})
	req, err := http.NewRequestWithContext(m.mesh.t.Context(), method, "http://"+host(of.id)+path, nil)
	if err != nil {
		m.mesh.t.Fatal(err)
	}
	return m.client.http.RoundTrip(req)
}

func (m *member) status(of *member, r wire.Request) int {
	m.mesh.t.Helper()
	resp, err := m.ask(of, http.MethodGet, r.Path())
	if err != nil {
		m.mesh.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestServe(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	data := content(1, 6*mib+9)
	d := holder.seed(data)
	other := describe(content(2, 10))
	for _, c := range []struct {
		name string
		r    wire.Request
		want int
	}{
		{"info", wire.Request{Kind: wire.KindInfo, Digest: d.Digest}, 200},
		{"info of nothing", wire.Request{Kind: wire.KindInfo, Digest: other.Digest}, 404},
		{"chain", wire.Request{Kind: wire.KindChain, Digest: d.Digest, Size: d.Size}, 200},
		{"chain at another size", wire.Request{Kind: wire.KindChain, Digest: d.Digest, Size: d.Size + 1}, 404},
		{"pieces", wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, First: 3, Count: 4}, 200},
		{"pieces at another size", wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size - 1, First: 3, Count: 4}, 404},
		{"pieces of nothing", wire.Request{Kind: wire.KindPieces, Digest: other.Digest, Size: other.Size, First: 0, Count: 1}, 404},
		{"too many pieces", wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, First: 0, Count: 5}, 400},
		{"pieces behind the end", wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, First: 7, Count: 1}, 400},
		{"something else", wire.Request{Kind: "status", Digest: d.Digest}, 400},
	} {
		if got := m.status(holder, c.r); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodHead, http.MethodDelete} {
		resp, err := m.ask(holder, method, wire.Request{Kind: wire.KindInfo, Digest: d.Digest}.Path())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
	}
	if n := holder.metric("shoal_p2p_refused_requests_total", "malformed"); n != 6 {
		t.Errorf("%d malformed requests were counted", n)
	}
	pieces, err := m.client.pieces(t.Context(), holder.id, wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, First: 5, Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer pieces.body.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(pieces.body); err != nil || !bytes.Equal(got.Bytes(), data[5*mib:]) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	if n := holder.served(); n < mib+9 {
		t.Errorf("%d bytes served", n)
	}
}

func TestStrangersAreNotServed(t *testing.T) {
	mesh := newMesh(t)
	holder := mesh.member(nil)
	d := holder.seed(content(1, 10))
	rec := newRecorder()
	req, err := http.NewRequest(http.MethodGet, wire.Request{Kind: wire.KindInfo, Digest: d.Digest}.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	holder.ServeHTTP(rec, req) // did not come over the channel
	if rec.code != http.StatusForbidden {
		t.Errorf("%d", rec.code)
	}
}

type recorder struct {
	http.ResponseWriter
	header http.Header
	code   int
}

func newRecorder() *recorder                    { return &recorder{header: make(http.Header)} }
func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(code int)        { r.code = code }
func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }

func TestUploadsAreBounded(t *testing.T) {
	u := newUploads()
	for range maxPerMember {
		if !u.enter("a") {
			t.Fatal("refused before the limit")
		}
	}
	if u.enter("a") {
		t.Error("one member takes more than its part")
	}
	for i := range maxUploads - maxPerMember {
		if !u.enter(peer.ID(fmt.Sprint(i / 8))) {
			t.Fatal("refused before the limit")
		}
	}
	if u.enter("z") {
		t.Error("more uploads than the limit")
	}
	u.leave("a")
	if !u.enter("z") {
		t.Error("refused though one has left")
	}
}

func TestBusyMemberSaysSo(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	d := holder.seed(content(1, 10))
	for range maxPerMember {
		if !holder.uploads.enter(m.id) {
			t.Fatal("refused")
		}
	}
	if got := m.status(holder, wire.Request{Kind: wire.KindInfo, Digest: d.Digest}); got != http.StatusServiceUnavailable {
		t.Errorf("%d", got)
	}
	if n := holder.metric("shoal_p2p_refused_requests_total", "busy"); n != 1 {
		t.Errorf("%d were counted", n)
	}
}

// halfway is a member with a running fill of data that has its first pieces,
// from an origin that then falls silent.
func (m *mesh) halfway(data []byte, pieces int, prepare func(*member)) (*member, *blobcache.Fill) {
	m.t.Helper()
	reg := newRegistry(m.t, origintest.Options{}, data)
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Skip: pieces / 4, Effect: origintest.SilenceAfter(0)})
	mem := m.member(nil)
	if prepare != nil {
		prepare(mem)
	}
	f, err := mem.Fetch(m.t.Context(), reg.d, reg.src)
	if err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, "the first half did not come", func() bool { return int(f.Have().Count()) == pieces })
	mem.announce(reg.d)
	return mem, f
}

func TestUnprovenPiecesAreNotServed(t *testing.T) {
	data := content(1, 16*mib)
	mesh := newMesh(t)
	holder, _ := mesh.halfway(data, 8, nil)
	m := mesh.member(nil)
	d := describe(data)
	info, err := m.client.info(t.Context(), Holder{Peer: holder.id, Pieces: []string{holder.addr}}, d)
	if err != nil || info.Whole || info.Size != d.Size || info.Have.Count() != 8 || info.Proven.Count() != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if got := m.status(holder, wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, Count: 1}); got != 404 {
		t.Errorf("a piece that is not proven: %d", got)
	}
}

// A member whose fill has pieces that are proven, because their chain closed
// there before, gives these; the rest comes from the origin.
func TestProvenPartIsServed(t *testing.T) {
	data := content(1, 16*mib)
	mesh := newMesh(t)
	holder, _ := mesh.halfway(data, 8, func(m *member) {
		m.close()
		m.open(blobcache.Options{Budget: 18 * mib})
		m.seed(data)
		m.seed(content(2, 17*mib)) // no room for both; the chain is kept
		m.mesh.mu.Lock()
		clear(m.mesh.holds)
		m.mesh.mu.Unlock()
	})
	reg := newRegistry(t, origintest.Options{}, data)
	m := mesh.member(nil)
	d := describe(data)
	if got := m.status(holder, wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, First: 7, Count: 2}); got != 404 {
		t.Errorf("a run that is only partly proven: %d", got)
	}
	m.mustPull(data, reg.src)
	if reg.gave() != 8*mib || holder.served() < 8*mib {
		t.Errorf("the origin gave %d bytes, the member %d; want a half each", reg.gave(), holder.served())
	}
}

func TestRottenBlobIsNotServed(t *testing.T) {
	data := content(1, 3*mib)
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	d := holder.seed(data)
	holder.spoil(d)
	reg := newRegistry(t, origintest.Options{}, data)
	m.mustPull(data, reg.src)
	if reg.gave() != d.Size || holder.served() != 0 {
		t.Errorf("the origin gave %d bytes, the holder %d", reg.gave(), holder.served())
	}
	m.lawful()
}

func TestBudgetBoundsMemory(t *testing.T) {
	b := newBudget(3, newPool())
	if n := b.take(5); n != 3 {
		t.Errorf("took %d of 3", n)
	}
	if b.take(1) != 0 {
		t.Error("took more than there is")
	}
	b.done(b.buffer())
	b.give(1)
	if n := b.take(5); n != 2 {
		t.Errorf("took %d of 2", n)
	}
}

// With a budget of one piece everything takes its turn and nothing is stuck.
func TestTinyBudget(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	m.members = newBudget(1, newPool())
	var wg sync.WaitGroup
	for i := range byte(3) {
		data := content(i, 4*mib)
		holder.seed(data)
		wg.Go(func() {
			if got, err := m.pull(describe(data), nil); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if n := m.members.take(2); n != 1 {
		t.Errorf("%d pieces are free in the end, want 1", n)
	}
}

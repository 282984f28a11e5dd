package exchange

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

// What only permitted clients may have is not here for a member that knows its
// digest: neither as a whole nor while it comes, and with no word about it.
func TestMembersGetNothingThatIsForClients(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	whole, coming, shared := content(1, 6*mib+9), content(2, 3*mib), content(3, 2*mib)
	d, part, open := describe(whole), describe(coming), describe(shared)
	if err := holder.cache.Restrict(blobcache.Permitted, d.Digest, part.Digest); err != nil {
		t.Fatal(err)
	}
	if err := holder.cache.Restrict(blobcache.Members, open.Digest); err != nil {
		t.Fatal(err)
	}
	holder.seed(whole)
	holder.seed(shared)
	fill, _, err := holder.cache.Fill(part)
	if err != nil {
		t.Fatal(err)
	}
	if err := fill.WritePiece(0, coming[:mib], blobcache.Provenance{Identity: "o"}); err != nil {
		t.Fatal(err)
	}
	ask := func(b blob.Descriptor, want int) {
		t.Helper()
		for _, r := range []wire.Request{
			{Kind: wire.KindInfo, Digest: b.Digest},
			{Kind: wire.KindChain, Digest: b.Digest, Size: b.Size},
			{Kind: wire.KindPieces, Digest: b.Digest, Size: b.Size, First: 0, Count: 1},
		} {
			resp, err := m.ask(holder, http.MethodGet, r.Path())
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s of %d bytes: %d, want %d", r.Kind, b.Size, resp.StatusCode, want)
			}
		}
	}
	ask(d, http.StatusNotFound)
	ask(part, http.StatusNotFound)
	ask(open, http.StatusOK)
	for _, b := range []blob.Descriptor{d, part} {
		if w := holder.word(b.Digest, b.Size); w.kind != wire.FrameNone || len(w.body) > 0 {
			t.Errorf("who follows hears %v", w)
		}
	}
	holder.cache.Widen(d.Digest)
	ask(d, http.StatusOK)
	fill.Fail(context.Canceled)
}

// A fill of such a blob asks no member, and is not announced.
func TestFillsForClientsAskNoMember(t *testing.T) {
	var asked atomic.Int32
	mesh := newMesh(t)
	neighbour := mesh.member(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			next.ServeHTTP(w, r)
		})
	})
	m := mesh.member(nil)
	m.near = []Holder{neighbour.Self()}
	data := content(1, 6*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	d := reg.d
	mesh.holds[d.Digest] = []*member{neighbour}
	neighbour.seed(data)
	if err := m.cache.Restrict(blobcache.Permitted, d.Digest); err != nil {
		t.Fatal(err)
	}
	f, err := m.Fetch(t.Context(), d, reg.src)
	if err != nil {
		t.Fatal(err)
	}
	<-f.Done()
	if err := f.Err(); err != nil || asked.Load() > 0 || reg.gave() != d.Size {
		t.Errorf("%v, a member was asked %d times", err, asked.Load())
	}
}

// No member is asked whom a lookup would name, who is connected, or who asked
// here.
func TestSearchesForClientsAskNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := Holder{Peer: "a", Pieces: []string{"x"}}
		swarm := &quietSwarm{connected: 1, near: []Holder{h}}
		x := quiet(t, swarm)
		x.closed = true
		d := describe([]byte("secret"))
		if err := x.cache.Restrict(blobcache.Permitted, d.Digest); err != nil {
			t.Fatal(err)
		}
		s := newSearch(x, d)
		ctx, end := context.WithCancel(t.Context())
		go s.run(ctx)
		s.meet(h)
		time.Sleep(time.Minute) //nolint:forbidigo // within a bubble nobody waits
		s.mu.Lock()
		if n := swarm.found.Load(); n > 0 || len(s.asked) > 0 {
			t.Errorf("%d lookups, %d members asked", n, len(s.asked))
		}
		s.mu.Unlock()
		if !s.state(1).idle {
			t.Error("the origin waits for members")
		}
		end()
		synctest.Wait()
	})
}

// refusing is an origin that refuses for a while in the middle: the token of
// the client that began the fill has ended.
type refusing struct {
	blob.Source
	opened atomic.Int32
	better atomic.Bool
}

func (s *refusing) Open(ctx context.Context, d blob.Descriptor, r blob.Range) (*blob.Stream, error) {
	if s.opened.Add(1) > 1 && !s.better.Load() {
		return nil, fmt.Errorf("upstream: %w", blob.ErrDenied)
	}
	return s.Source.Open(ctx, d, r)
}

// A fill that is refused in the middle goes on when somebody else brings a
// token, and nobody who waits for it is cut off.
func TestRefusedInTheMiddle(t *testing.T) {
	mesh := newMesh(t)
	m := mesh.member(nil)
	m.alone = true
	data := content(1, 12*mib)
	src := &refusing{Source: newRegistry(t, origintest.Options{}, data).src}
	f, err := m.Fetch(t.Context(), describe(data), src)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for src.opened.Load() < 2 {
		select {
		case <-f.Done():
			t.Fatalf("it has ended: %v", f.Err())
		case <-deadline:
			t.Fatal("the origin was asked once only")
		case <-time.After(time.Millisecond):
		}
	}
	src.better.Store(true)
	if again, err := m.Fetch(t.Context(), describe(data), src); err != nil || again != f {
		t.Errorf("who joins gets another fill: %v, %v", again != f, err)
	}
	<-f.Done()
	if err := f.Err(); err != nil {
		t.Error(err)
	}
}

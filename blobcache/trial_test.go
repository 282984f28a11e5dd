package blobcache

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/blob"
)

func sortRejections(r []Rejection) []Rejection {
	slices.SortFunc(r, func(a, b Rejection) int { return a.Piece - b.Piece })
	return r
}

// A closure that fails drops what is not from the origin, names the senders,
// and convicts exactly the liar once the right bytes are known.
func TestFailedClosureRecovers(t *testing.T) {
	book, reg := new(logbook), prometheus.NewRegistry()
	c := open(t, t.TempDir(), Options{Logger: book.logger(), Metrics: reg})
	s := newSample(5*mib+1, 1)
	f := startFill(t, c, s)
	r, err := f.Open(t.Context(), blob.Range{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	write(t, f, s, origin, 0, 1)
	write(t, f, s, honest, 2, 5)
	if err := f.WritePiece(3, s.wrong(3), liar); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, liar, 4)
	want := []Rejection{
		{Piece: 2, From: honest, Missing: true, Origin: true},
		{Piece: 3, From: liar, Missing: true, Origin: true},
		{Piece: 4, From: liar, Missing: true, Origin: true},
		{Piece: 5, From: honest, Missing: true, Origin: true},
	}
	if got := sortRejections(rejections(t, f, 4)); !slices.Equal(got, want) {
		t.Errorf("rejections %v, want %v", got, want)
	}
	if got := f.Have().String(); got != "{0,1}" || flows(t, f) != 2*mib {
		t.Errorf("have %s, %d bytes flow", got, flows(t, f))
	}
	if _, ok := c.Stat(s.Digest); ok {
		t.Error("the blob counts as whole")
	}
	write(t, f, s, origin, 2, 3, 4, 5)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if got, want := f.Rejections(), []Rejection{{Piece: 3, From: liar, Proven: true}}; !slices.Equal(got, want) {
		t.Errorf("convicted %v, want %v", got, want)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, s.data) {
		t.Errorf("reader: %d bytes, %v", len(got), err)
	}
	has(t, c, s)
	clean(t, c)
	if n := metric(t, reg, "shoal_cache_corrupt_total", ""); n != 1 || book.count("do not lead to the digest") != 1 {
		t.Errorf("counted %v times, logged %d times", n, book.count("do not lead to the digest"))
	}
	if got := metric(t, reg, "shoal_cache_bytes", ""); got != float64(s.Size) {
		t.Errorf("%v bytes are counted, want %d", got, s.Size)
	}
}

// Any flipped bit anywhere keeps a blob from becoming whole, and with a kept
// chain does not even get stored.
func TestFlippedBitNeverCounts(t *testing.T) {
	s := newSample(3*mib+3, 2)
	for i := range s.n() {
		for _, at := range []int{0, len(s.piece(i)) - 1} {
			bad := bytes.Clone(s.piece(i))
			bad[at] ^= 1

			c := open(t, t.TempDir(), Options{})
			f := startFill(t, c, s)
			for k := range s.n() {
				if k != i {
					write(t, f, s, honest, k)
				}
			}
			if err := f.WritePiece(i, bad, liar); err != nil {
				t.Fatal(err)
			}
			rejections(t, f, s.n())
			if _, ok := c.Stat(s.Digest); ok || f.Have().Any() || f.Proven().Any() {
				t.Errorf("piece %d, byte %d: something of it counts", i, at)
			}
			clean(t, c)

			put(t, c, s) // ends f as well, in its own time
			has(t, c, s)
			f.Fail(errors.New("enough"))
			<-f.Done()
			for c.evictOne() {
			}
			f = startFill(t, c, s)
			if err := f.WritePiece(i, bad, liar); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("piece %d, byte %d: against a kept chain: %v", i, at, err)
			}
			if f.Have().Any() || len(f.Rejections()) > 0 {
				t.Errorf("piece %d, byte %d: stored", i, at)
			}
			write(t, f, s, honest, s.all(0)...)
			if err := ends(t, f); err != nil {
				t.Error(err)
			}
		}
	}
}

// A single piece needs no chain to be judged on the spot.
func TestOnePieceIsJudgedAtOnce(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(1000, 3)
	f := startFill(t, c, s)
	if err := f.WritePiece(0, s.wrong(0), origin); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("wrong bytes: %v", err)
	}
	write(t, f, s, liar, 0)
	if err := ends(t, f); err != nil {
		t.Error(err)
	}
	has(t, c, s)
}

// A forged chain with pieces to fit is found before the blob counts as whole,
// and its author is convicted by the closure that follows.
func TestForgedChainIsFound(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s, fake := newSample(3*mib+1, 4), newSample(3*mib+1, 5)
	f := startFill(t, c, s)
	if err := f.OfferChain(fake.chain, liar.Peer, nil); err != nil {
		t.Fatal(err)
	}
	write(t, f, fake, liar, 0, 1, 2) // they fit the chain
	if err := f.WritePiece(3, s.piece(3), honest); !errors.Is(err, ErrConflict) {
		t.Fatalf("the right last piece against the forged chain: %v", err)
	}
	if err := f.WritePiece(3, fake.piece(3), liar); !errors.Is(err, ErrConflict) {
		t.Fatalf("the forged last piece, which cannot reach the digest: %v", err)
	}
	if f.Proven().Any() || flows(t, f) != 0 {
		t.Error("forged pieces count as proven or flow")
	}
	write(t, f, s, origin, 3) // the origin's word ends the chain
	rejections(t, f, 3)
	write(t, f, s, origin, 0, 1, 2)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	want := []Rejection{
		{Piece: ChainPiece, From: liar, Proven: true},
		{Piece: 0, From: liar, Proven: true},
		{Piece: 1, From: liar, Proven: true},
		{Piece: 2, From: liar, Proven: true},
		{Piece: 3, From: liar, Proven: true},
	}
	if got := sortRejections(f.Rejections()); !slices.Equal(got, want) {
		t.Errorf("convicted %v, want %v", got, want)
	}
	has(t, c, s)
	clean(t, c)
}

// With an honest chain, a wrong piece is not stored, nobody is convicted yet,
// and closure needs no second look at any piece.
func TestOfferedChainKeepsWrongPiecesOut(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(4*mib, 6)
	f := startFill(t, c, s)
	if err := f.OfferChain(s.chain, "honest", nil); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{3, 0} {
		if err := f.WritePiece(i, s.wrong(i), liar); !errors.Is(err, ErrConflict) {
			t.Errorf("wrong piece %d: %v", i, err)
		}
	}
	if f.Have().Any() || len(f.Rejections()) > 0 {
		t.Error("stored or convicted")
	}
	write(t, f, s, honest, 3, 2, 1, 0)
	if f.front != 4 {
		t.Errorf("%d pieces are hashed, want all: they agree with the chain", f.front)
	}
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	want := []Rejection{{Piece: 0, From: liar, Proven: true}, {Piece: 3, From: liar, Proven: true}}
	if got := sortRejections(f.Rejections()); !slices.Equal(got, want) {
		t.Errorf("convicted %v, want %v", got, want)
	}
	if chain, ok := c.Chain(s.Descriptor); !ok || !slices.Equal(chain, s.chain) {
		t.Error("the chain that closed is not kept")
	}
}

// A forged chain cannot lock honest peers out: the same bytes twice count more.
func TestForgedChainLocksNobodyOut(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s, fake := newSample(3*mib, 7), newSample(3*mib, 8)
	f := startFill(t, c, s)
	if err := f.OfferChain(fake.chain, liar.Peer, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.WritePiece(1, s.piece(1), honest); !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	write(t, f, s, Provenance{Peer: "another"}, 1)
	if err := f.OfferChain(fake.chain, "third", nil); !errors.Is(err, ErrConflict) {
		t.Errorf("the dropped chain again: %v", err)
	}
	if err := f.OfferChain(s.chain, "honest", nil); err != nil {
		t.Errorf("another chain instead: %v", err)
	}
	write(t, f, s, honest, 0, 2)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	var convicted []string
	for _, r := range f.Rejections() {
		if r.Piece != ChainPiece || !r.Proven {
			t.Errorf("%v", r)
		}
		convicted = append(convicted, r.From.Peer)
	}
	slices.Sort(convicted)
	if want := []string{"liar", "third"}; !slices.Equal(convicted, want) {
		t.Errorf("convicted %v, want %v", convicted, want)
	}
}

// The origin's word ends an offered chain at once.
func TestOriginOverrulesChain(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s, fake := newSample(3*mib, 7), newSample(3*mib, 8)
	f := startFill(t, c, s)
	if err := f.OfferChain(fake.chain, liar.Peer, nil); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, origin, 2, 0, 1)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if got, want := f.Rejections(), []Rejection{{Piece: ChainPiece, From: liar, Proven: true}}; !slices.Equal(got, want) {
		t.Errorf("convicted %v, want %v", got, want)
	}
}

// A piece that agreed with a chain which was dropped while it was written is
// hashed in its turn like any other.
func TestHintDroppedUnderAWrite(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s, fake := newSample(3*mib, 7), newSample(3*mib, 8)
	f := startFill(t, c, s)
	if err := f.OfferChain(fake.chain, liar.Peer, nil); err != nil {
		t.Fatal(err)
	}
	d := &delivery{f: f, i: 1, from: liar}
	if needed, err := f.claim(d); err != nil || !needed {
		t.Fatal(needed, err)
	}
	if err := errors.Join(d.check(fake.piece(1)), f.store(1, fake.piece(1))); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, origin, 2) // drops the chain
	if err := f.OfferChain(s.chain, honest.Peer, nil); err != nil {
		t.Fatal(err)
	}
	f.settle(d, nil)
	f.inflight.Done()
	if f.linked.Any() {
		t.Error("a piece counts as agreeing with a chain that it was never compared with")
	}
	write(t, f, s, honest, 0)
	rejections(t, f, 2)
	write(t, f, s, origin, 0, 1)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
}

// A wrong piece that was hashed already does not hide behind the right chain
// for all that follows, at whatever moment that is offered.
func TestRightChainOnWrongStart(t *testing.T) {
	for name, sneak := range map[string]bool{"offered in time": false, "offered between two steps": true} {
		t.Run(name, func(t *testing.T) {
			c := open(t, t.TempDir(), Options{})
			s := newSample(4*mib, 7)
			f := startFill(t, c, s)
			if err := f.WritePiece(0, s.wrong(0), liar); err != nil {
				t.Fatal(err)
			}
			if sneak {
				f.mu.Lock()
				f.hashing = true // somebody is about to go on
				f.mu.Unlock()
			}
			err := f.OfferChain(s.chain, liar.Peer, nil)
			if want := map[bool]error{false: ErrConflict, true: nil}[sneak]; !errors.Is(err, want) {
				t.Errorf("offer: %v", err)
			}
			write(t, f, s, liar, 1, 2, 3)
			if sneak {
				f.mu.Lock()
				f.hashing = false
				f.advance()
				f.mu.Unlock()
			}
			rejections(t, f, 4)
			if _, ok := c.Stat(s.Digest); ok {
				t.Error("the blob counts as whole")
			}
			clean(t, c)
		})
	}
}

// What is kept of a closure is what was hashed, also when the chain that
// helped was right only in part.
func TestKeptChainIsWhatWasHashed(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s, fake := newSample(4*mib, 7), newSample(4*mib, 8)
	f := startFill(t, c, s)
	write(t, f, s, honest, 0, 1)
	until(t, "two pieces are hashed", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.front == 2 && !f.hashing })
	half := append(fake.chain[:1:1], s.chain[1:]...)
	if err := f.OfferChain(half, liar.Peer, nil); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, honest, 3, 2)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if chain, ok := c.Chain(s.Descriptor); !ok || !slices.Equal(chain, s.chain) {
		t.Error("a forged state is kept")
	}
	if got, want := f.Rejections(), []Rejection{{Piece: ChainPiece, From: liar, Proven: true}}; !slices.Equal(got, want) {
		t.Errorf("convicted %v, want %v", got, want)
	}
}

func TestOfferChain(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s, fake := newSample(3*mib, 9), newSample(3*mib, 10)
	f := startFill(t, c, s)
	write(t, f, s, honest, 0)
	until(t, "piece 0 is hashed", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.front == 1 && !f.hashing })
	for name, tt := range map[string]struct {
		chain []int
		want  error
	}{
		"too short":              {[]int{0}, ErrConflict},
		"against what is hashed": {[]int{-1, 1}, ErrConflict},
		"right":                  {[]int{0, 1}, nil},
	} {
		chain := s.chain[:0:0]
		for _, i := range tt.chain {
			if i < 0 {
				chain = append(chain, fake.chain[0])
			} else {
				chain = append(chain, s.chain[i])
			}
		}
		if err := f.OfferChain(chain, name, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if err := f.OfferChain(s.chain, "same again", nil); err != nil {
		t.Errorf("the same chain again: %v", err)
	}
	if err := f.OfferChain(fake.chain, "late liar", nil); !errors.Is(err, ErrConflict) {
		t.Errorf("another chain: %v", err)
	}
	f.Fail(errors.New("enough"))
	<-f.Done()
	if err := f.OfferChain(fake.chain, "too late", nil); err != nil {
		t.Errorf("after the end: %v", err)
	}
	put(t, c, s)
	for c.evictOne() {
	}
	f = startFill(t, c, s)
	if err := f.OfferChain(fake.chain, liar.Peer, nil); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("against a kept chain: %v", err)
	}
	if err := f.OfferChain(s.chain, honest.Peer, nil); err != nil {
		t.Errorf("like the kept chain: %v", err)
	}
}

// A chain that is offered while pieces are being hashed is dropped as soon as
// the next one leads elsewhere.
func TestHintIsDroppedByWhatIsHashed(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s, fake := newSample(4*mib, 11), newSample(4*mib, 12)
	f := startFill(t, c, s)
	write(t, f, s, honest, 1) // waits for piece 0
	if err := f.OfferChain(fake.chain, liar.Peer, nil); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.hint = append(f.hint[:0:0], s.chain[0], fake.chain[1], fake.chain[2])
	f.mu.Unlock()
	write(t, f, s, honest, 0) // agrees, then piece 1 is read back and does not
	until(t, "the hint is dropped", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.hint == nil && f.front == 2 })
	write(t, f, s, honest, 2, 3)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
}

// When everything came from one upstream and is wrong, nobody else is to
// blame: the fill fails, its readers see ErrCorrupt, and what flowed is not
// built upon for a minute.
func TestWrongOriginIsBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		c := open(t, t.TempDir(), Options{Metrics: reg})
		s := newSample(3*mib, 13)
		f := startFill(t, c, s)
		r, err := f.Open(t.Context(), blob.Range{Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		late, err := f.Open(t.Context(), blob.Range{Offset: mib, Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.WritePiece(0, s.wrong(0), origin); err != nil {
			t.Fatal(err)
		}
		if n, err := r.Read(make([]byte, 10)); n != 10 || err != nil {
			t.Fatalf("nothing flows: %v", err)
		}
		write(t, f, s, origin, 1, 2)
		if err := ends(t, f); !errors.Is(err, blob.ErrCorrupt) {
			t.Errorf("fill: %v", err)
		}
		for _, rd := range []*Reader{r, late} {
			if _, err := io.ReadAll(rd); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("reader: %v", err)
			}
			rd.Close()
		}
		buried := func(when string) {
			t.Helper()
			if _, err := c.Get(t.Context(), s.Digest); !errors.Is(err, blob.ErrCorrupt) || !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("%s, Get: %v", when, err)
			}
			if _, _, err := c.Fill(s.Descriptor); !errors.Is(err, blob.ErrCorrupt) || !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("%s, Fill: %v", when, err)
			}
			if err := c.Put(t.Context(), s.Descriptor, bytes.NewReader(s.data)); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("%s, Put: %v", when, err)
			}
			if _, ok := c.Stat(s.Digest); ok {
				t.Errorf("%s: Stat knows it", when)
			}
		}
		buried("at once")
		pass(59 * time.Second)
		buried("after 59 s")
		pass(time.Second)
		f = startFill(t, c, s)
		if f.Have().Any() {
			t.Error("wrong bytes were kept")
		}
		write(t, f, s, origin, 0, 1, 2)
		if err := ends(t, f); err != nil {
			t.Error(err)
		}
		has(t, c, s)
		if n := metric(t, reg, "shoal_cache_fills_total", "corrupt"); n != 1 {
			t.Errorf("%v corrupt fills", n)
		}
	})
}

// The same without a reader: nothing flowed, so nothing is buried.
func TestWrongOriginWithoutReaders(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(3*mib, 14)
	f := startFill(t, c, s)
	write(t, f, s, origin, 0, 1)
	if err := f.WritePiece(2, s.wrong(2), origin); err != nil {
		t.Fatal(err)
	}
	if err := ends(t, f); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("fill: %v", err)
	}
	f = startFill(t, c, s)
	write(t, f, s, origin, 0, 1, 2)
	if err := ends(t, f); err != nil {
		t.Error(err)
	}
}

// One upstream's wrong bytes flowed, another's right ones came after them. The
// blob ends whole, but who holds the wrong bytes must not go on with it.
func TestFlowedBytesOfAnotherUpstream(t *testing.T) {
	for name, restart := range map[string]bool{"in one go": false, "over a restart": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := open(t, dir, Options{})
			s := newSample(4*mib, 15)
			f := startFill(t, c, s)
			if err := f.WritePiece(0, s.wrong(0), origin); err != nil {
				t.Fatal(err)
			}
			r, err := f.Open(t.Context(), blob.Range{Length: -1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			if restart {
				r.Close()
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				c = open(t, dir, Options{})
				f = startFill(t, c, s)
				if r, err = f.Open(t.Context(), blob.Range{Length: -1}); err != nil {
					t.Fatal(err)
				}
			}
			defer r.Close()
			write(t, f, s, mirror, 1, 2, 3)
			if got := rejections(t, f, 1); got[0].Piece != 0 || !got[0].Missing {
				t.Errorf("rejected %v", got)
			}
			write(t, f, s, mirror, 0)
			if err := ends(t, f); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("fill: %v", err)
			}
			if _, err := io.ReadAll(r); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("reader: %v", err)
			}
			if _, err := c.Get(t.Context(), s.Digest); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("Get: %v", err)
			}
			c.mu.Lock()
			clear(c.graves) // a minute later
			c.mu.Unlock()
			has(t, c, s)
		})
	}
}

// Bytes that flowed before a restart and do not match the chain that has
// closed meanwhile.
func TestFlowedBytesAgainstKeptChain(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(3*mib, 16)
	f := startFill(t, c, s)
	if err := f.WritePiece(0, s.wrong(0), origin); err != nil {
		t.Fatal(err)
	}
	if flows(t, f) != mib {
		t.Fatal("nothing flowed")
	}
	f.Fail(errors.New("restart"))
	<-f.Done()
	c.meta.PutChain(s.Descriptor, s.chain)
	f = startFill(t, c, s)
	if err := ends(t, f); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("fill: %v", err)
	}
	if _, _, err := c.Fill(s.Descriptor); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("not buried: %v", err)
	}
}

// Two upstreams that disagree: it ends well with the one that is right, and it
// ends at all if the wrong one sent most.
func TestUpstreamsThatDisagree(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(5*mib, 17)
	f := startFill(t, c, s)
	write(t, f, s, origin, 1, 2)
	if err := f.WritePiece(0, s.wrong(0), origin); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, mirror, 3, 4)
	rejections(t, f, 2) // the mirror's, which sent less
	write(t, f, s, mirror, 3, 4)
	rejections(t, f, 3) // the origin's, which has failed twice
	if got := f.Have().String(); got != "{3,4}" {
		t.Errorf("have %s", got)
	}
	write(t, f, s, mirror, 0, 1, 2)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
}

// Lies without end do not keep a fill running without end.
func TestLiesEnd(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(2*mib, 18)
	f := startFill(t, c, s)
	rounds := 0
	for ; f.Err() == nil; rounds++ {
		if rounds > 20 {
			t.Fatal("it goes on")
		}
		if err := f.WritePiece(0, s.wrong(0), liar); err != nil {
			t.Fatal(err)
		}
		write(t, f, s, honest, 1)
		until(t, "the closure fails", func() bool { return len(f.Rejections()) == 2 || f.Err() != nil })
	}
	if err := ends(t, f); !errors.Is(err, blob.ErrCorrupt) || rounds != maxRounds {
		t.Errorf("after %d rounds: %v", rounds, err)
	}
	clean(t, c)
}

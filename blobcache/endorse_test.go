package blobcache

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/blob"
	"shoal/blobcache/statement"
)

// endorsed is the word of a key for the chain of s, as that of d.
func (s sample) endorsed(by *statement.Signer, d blob.Descriptor) statement.Endorsement {
	return by.Endorse(d, s.chainSum(), time.Now())
}

// trusting opens a cache that trusts the key.
func trusting(t *testing.T, key *statement.Signer) (c *Cache, reg *prometheus.Registry, book *logbook) {
	t.Helper()
	reg, book = prometheus.NewRegistry(), new(logbook)
	c = open(t, t.TempDir(), Options{TrustedKeys: []statement.Key{key.Key()}, Metrics: reg, Logger: book.logger()})
	return c, reg, book
}

func endorse(t *testing.T, f *Fill, s sample, by *statement.Signer) {
	t.Helper()
	if err := f.OfferEndorsed(s.chain, s.endorsed(by, f.named())); err != nil {
		t.Fatal(err)
	}
}

// follow opens a reader of a range.
func follow(t *testing.T, f *Fill, r blob.Range) *Reader {
	t.Helper()
	rd, err := f.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rd.Close() })
	return rd
}

// What agrees with a chain that a trusted key has signed flows as it comes, in the
// middle, too, and whoever sent it; the last piece of the blob waits for closure.
func TestEndorsedChainFlows(t *testing.T) {
	key := statement.GenerateSigner()
	c, reg, _ := trusting(t, key)
	s := newSample(6*mib+9, 1)
	f := startFill(t, c, s)
	endorse(t, f, s, key)
	if !f.Trusts() || flows(t, f) != 0 {
		t.Error("a chain alone flows, or does not count")
	}
	write(t, f, s, honest, 3, 4, 6)
	middle := follow(t, f, blob.Range{Offset: 3 * mib, Length: 2 * mib})
	if got, err := io.ReadAll(middle); err != nil || !bytes.Equal(got, s.data[3*mib:5*mib]) {
		t.Errorf("a range in the middle: %d bytes, %v", len(got), err)
	}
	end := follow(t, f, blob.Range{Offset: 6 * mib, Length: -1})
	if n, _, err := f.available(6*mib, s.Size); n != 0 || err != nil {
		t.Errorf("%d bytes of the last piece flow before closure, %v", n, err)
	}
	write(t, f, s, honest, 0, 1)
	if got := flows(t, f); got != 2*mib {
		t.Errorf("%d bytes flow, want 2 MiB", got)
	}
	if f.Proven().Any() {
		t.Error("members would be told that it is proven")
	}
	write(t, f, s, liar, 2, 5) // who sends what is right
	for name, r := range map[string]*Reader{"end": end, "whole": follow(t, f, blob.Range{Length: -1})} {
		if got, err := io.ReadAll(r); err != nil || !bytes.HasSuffix(s.data, got) || len(got) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
	if n := metric(t, reg, "shoal_cache_endorsements_total", "trusted"); n != 1 {
		t.Errorf("%v endorsements were trusted", n)
	}
}

// Without trust, with another key's signature and with none that counts nothing
// flows before closure.
func TestEndorsementsThatDoNotCount(t *testing.T) {
	key, other := statement.GenerateSigner(), statement.GenerateSigner()
	s, fake := newSample(4*mib, 1), newSample(4*mib, 2)
	longer := s.Descriptor
	longer.Size++
	for name, tt := range map[string]struct {
		offer sample
		word  statement.Endorsement
		want  error
	}{
		"a stranger's":       {s, s.endorsed(other, s.Descriptor), nil},
		"of another blob":    {s, s.endorsed(key, fake.Descriptor), statement.ErrSignature},
		"of another size":    {s, s.endorsed(key, longer), statement.ErrSignature},
		"of another chain":   {s, fake.endorsed(key, s.Descriptor), blob.ErrCorrupt},
		"of tomorrow":        {s, key.Endorse(s.Descriptor, s.chainSum(), time.Now().Add(24*time.Hour)), statement.ErrTime},
		"of a false signer":  {s, func() statement.Endorsement { e := s.endorsed(other, s.Descriptor); e.Signer = key.Key(); return e }(), statement.ErrSignature},
		"none of any signer": {s, statement.Endorsement{Sum: s.chainSum()}, statement.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, _ := trusting(t, key)
			f := startFill(t, c, s)
			if err := f.OfferEndorsed(tt.offer.chain, tt.word); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			write(t, f, s, honest, 0, 1, 2)
			if f.Trusts() || flows(t, f) != 0 {
				t.Error("it counts")
			}
			write(t, f, s, honest, 3)
			if err := ends(t, f); err != nil {
				t.Error(err)
			}
		})
	}
}

// A stranger's word is passed on where the fill goes by that chain, and is kept
// with the blob, over its eviction and a restart; a trusted one takes its place.
func TestEndorsementsArePassedOn(t *testing.T) {
	key, other := statement.GenerateSigner(), statement.GenerateSigner()
	dir := t.TempDir()
	o := Options{TrustedKeys: []statement.Key{key.Key()}}
	c := open(t, dir, o)
	s := newSample(3*mib, 1)
	f := startFill(t, c, s)
	endorse(t, f, s, other)
	if _, _, ok := f.Endorsed(); ok {
		t.Error("a chain that the fill does not go by is passed on")
	}
	if err := f.OfferChain(s.chain, honest.Peer, nil); err != nil {
		t.Fatal(err)
	}
	for _, by := range []*statement.Signer{other, key, other} {
		endorse(t, f, s, by)
	}
	chain, e, ok := f.Endorsed()
	if !ok || !slices.Equal(chain, s.chain) || e.Signer != key.Key() {
		t.Errorf("passed on: %v of %v", ok, e.Signer)
	}
	write(t, f, s, honest, 0, 1, 2)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	for c.evictOne() {
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir, o)
	if kept, ok := c.Endorsement(s.Descriptor, s.chain); !ok || kept != e {
		t.Errorf("after a restart: %v, %v", kept, ok)
	}
	f = startFill(t, c, s)
	write(t, f, s, honest, 0)
	if flows(t, f) != mib {
		t.Error("the chain was not kept")
	}
	f.Fail(errors.New("enough"))
	<-f.Done()
}

// A node with a signing key gives its own word with each chain that closed here,
// always the same.
func TestSignerEndorsesWhatIsProven(t *testing.T) {
	key := statement.GenerateSigner()
	c := open(t, t.TempDir(), Options{Signer: key})
	s, small := newSample(3*mib, 1), newSample(100, 2)
	put(t, c, s)
	put(t, c, small)
	e, ok := c.Endorsement(s.Descriptor, s.chain)
	if !ok || e.Signer != key.Key() || e.Check(s.Descriptor, time.Now()) != nil || e.Sum != s.chainSum() {
		t.Errorf("%v, %v", e, ok)
	}
	if again, _ := c.Endorsement(s.Descriptor, s.chain); again != e {
		t.Error("it signs anew each time")
	}
	if _, ok := c.Endorsement(small.Descriptor, small.chain); ok {
		t.Error("there is no chain to endorse of one piece")
	}
}

// What came before the chain of a trusted key, and does not agree with it, goes;
// the rest flows.
func TestEndorsedChainAfterWrongPieces(t *testing.T) {
	key := statement.GenerateSigner()
	c, _, _ := trusting(t, key)
	s := newSample(5*mib, 1)
	f := startFill(t, c, s)
	write(t, f, s, honest, 0, 2)
	if err := f.WritePiece(1, s.wrong(1), liar); err != nil {
		t.Fatal(err)
	}
	fake := newSample(5*mib, 2)
	if err := f.OfferChain(fake.chain, liar.Peer, nil); err != nil && !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	until(t, "what there is was hashed", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.front == 3 && !f.hashing
	})
	endorse(t, f, s, key)
	want := Rejection{Piece: 1, From: liar, Missing: true}
	if got := rejections(t, f, 1); !slices.Equal(got, []Rejection{want}) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := f.WritePiece(1, s.wrong(1), liar); !errors.Is(err, ErrConflict) {
		t.Errorf("the wrong piece again: %v", err)
	}
	write(t, f, s, honest, 1)
	until(t, "what there is flows", func() bool { return flows(t, f) == 3*mib })
	write(t, f, s, honest, 3, 4)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if got := f.Rejections(); !slices.ContainsFunc(got, func(r Rejection) bool { return r.From == liar && r.Proven }) {
		t.Errorf("the liar is not convicted: %v", got)
	}
}

// One member cannot talk a node out of a chain that a trusted key has signed, as
// often as it says the same.
func TestOneLiarDoesNotEndTrust(t *testing.T) {
	key := statement.GenerateSigner()
	c, _, _ := trusting(t, key)
	s := newSample(4*mib, 1)
	f := startFill(t, c, s)
	endorse(t, f, s, key)
	for range 2 * maxSuspects {
		if err := f.WritePiece(0, s.wrong(0), liar); !errors.Is(err, ErrConflict) {
			t.Fatalf("a wrong piece: %v", err)
		}
	}
	write(t, f, s, honest, 0, 1)
	if got := flows(t, f); got != 2*mib {
		t.Errorf("%d bytes flow, want 2 MiB", got)
	}
	write(t, f, s, honest, 2, 3)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
}

// A key that has signed a false chain: bytes went out on it, then the origin says
// otherwise. Nothing more flows, no reader comes to a clean end, the digest is
// buried, and the key does not count any more.
func TestFalseEndorsement(t *testing.T) {
	for name, tt := range map[string]struct {
		before bool  // the origin's piece was here before the chain
		from   int64 // where the reader begins
	}{
		"contradicted by what comes": {false, 0}, "contradicted by what is here": {true, 0}, "seen from the middle": {false, 2 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			key := statement.GenerateSigner()
			c, reg, book := trusting(t, key)
			s := newSample(6*mib, 1)
			fake := s.spoilt(2)
			f := startFill(t, c, s)
			if tt.before {
				write(t, f, s, origin, 5)
			}
			r := follow(t, f, blob.Range{Offset: tt.from, Length: -1})
			endorse(t, f, fake, key)
			write(t, f, fake, liar, 0, 1, 2, 3)
			out := make([]byte, 3*mib-tt.from)
			if _, err := io.ReadFull(r, out); err != nil || !bytes.Equal(out, fake.data[tt.from:3*mib]) {
				t.Fatalf("the false chain counts for nothing: %v", err)
			}
			write(t, f, fake, liar, 4) // and with what is here it is found out
			if !tt.before {
				write(t, f, s, origin, 5)
			}
			rejections(t, f, 5)
			write(t, f, s, origin, 0, 1, 2, 3) // which could flow, if nothing had gone out
			if n, _, err := f.available(3*mib, s.Size); n != 0 || err != nil {
				t.Errorf("%d more bytes flow: %v", n, err)
			}
			write(t, f, s, origin, 4)
			if rest, err := io.ReadAll(r); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("the reader ends with %v after %d more bytes", err, len(rest))
			}
			if err := ends(t, f); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("the fill ends with %v", err)
			}
			if _, err := c.Get(t.Context(), s.Digest); !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("the digest is not buried: %v", err)
			}
			if n := metric(t, reg, "shoal_cache_endorsements_total", "false"); n != 1 || !c.Convicted(key.Key()) || book.count("false chain") != 1 {
				t.Errorf("convicted %v times, logged %d times", n, book.count("false chain"))
			}
			next := newSample(3*mib, 9)
			g := startFill(t, c, next)
			endorse(t, g, next, key)
			if g.Trusts() {
				t.Error("the key still counts")
			}
			g.Fail(errors.New("enough"))
			<-g.Done()
		})
	}
}

// Where the true chain is known already, a false one convicts at once, and nothing
// goes out.
func TestFalseEndorsementOfAKnownChain(t *testing.T) {
	key := statement.GenerateSigner()
	c, _, _ := trusting(t, key)
	s := newSample(4*mib, 1)
	put(t, c, s)
	for c.evictOne() {
	}
	f := startFill(t, c, s)
	fake := s.spoilt(1)
	endorse(t, f, fake, key)
	if !c.Convicted(key.Key()) {
		t.Error("not convicted")
	}
	if err := f.WritePiece(1, fake.piece(1), liar); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("a piece that fits it: %v", err)
	}
	if _, _, ok := f.Endorsed(); ok {
		t.Error("it is passed on")
	}
	f.Fail(errors.New("enough"))
	<-f.Done()
}

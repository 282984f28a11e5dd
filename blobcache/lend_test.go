package blobcache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"shoal/blobcache/blob"
	"shoal/blobcache/statement"
)

// word is what tests take for a voucher: here nobody looks at signatures.
func word(signer string, sum [sha256.Size]byte) (v statement.Voucher) {
	copy(v.Signer[:], signer)
	v.Sum = sum
	return v
}

// signed is the own voucher of a piece.
func signed(i int, sum [sha256.Size]byte) statement.Voucher { return word(fmt.Sprint("own ", i), sum) }

// by is somebody's voucher of piece i.
func (s sample) by(signer string, i int) statement.Voucher {
	return word(signer, sha256.Sum256(s.piece(i)))
}

// chainBy is somebody's voucher of the chain.
func (s sample) chainBy(signer string) *statement.Voucher {
	v := word(signer, s.chainSum())
	return &v
}

func (s sample) chainSum() [sha256.Size]byte { return sha256.Sum256(s.chain.Bytes()) }

// lend reads pieces as a member gets them.
func lend(t *testing.T, f *Fill, first, count int) ([]byte, []Standing, error) {
	t.Helper()
	l, err := f.Lend(first, count, signed)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	want := l.Len()
	data, err := io.ReadAll(l)
	if err == nil && int64(len(data)) != want {
		t.Errorf("%d bytes, %d were told", len(data), want)
	}
	return data, l.Standings(), err
}

// What may be given to members is what somebody answers for, and each piece
// comes with what stands for it.
func TestLend(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(6*mib+7, 1)
	f := startFill(t, c, s)
	if got := f.Shareable(); got.Any() || got.Len() != 7 {
		t.Errorf("%s of a fill that has nothing", got)
	}
	write(t, f, s, origin, 2)
	write(t, f, s, mirror, 3)
	write(t, f, s, honest, 1) // whose word is all there is
	if err := f.WriteVouched(6, s.piece(6), honest.Peer, s.by("honest", 6)); err != nil {
		t.Fatal(err)
	}
	if got := f.Shareable().String(); got != "{2,3,6}" {
		t.Errorf("shareable are %s", got)
	}
	if f.Proven().Any() || flows(t, f) != 0 {
		t.Error("vouchers make something proven, or flow")
	}
	data, standings, err := lend(t, f, 2, 2)
	if err != nil || !bytes.Equal(data, s.data[2*mib:4*mib]) {
		t.Errorf("own pieces: %d bytes, %v", len(data), err)
	}
	for k, st := range standings {
		if st.Proven || st.Chain != nil || *st.Piece != s.by(fmt.Sprint("own ", 2+k), 2+k) {
			t.Errorf("own piece %d stands by %+v", 2+k, st)
		}
	}
	data, standings, err = lend(t, f, 6, 1)
	if err != nil || !bytes.Equal(data, s.piece(6)) || *standings[0].Piece != s.by("honest", 6) {
		t.Errorf("a vouched piece: %d bytes by %+v, %v", len(data), standings, err)
	}
	for _, run := range [][2]int{{1, 1}, {0, 1}, {1, 2}, {6, 2}, {-1, 1}, {2, 0}} {
		if _, _, err := lend(t, f, run[0], run[1]); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%d pieces from %d on: %v", run[1], run[0], err)
		}
	}
	// Vouched for or not, what comes next is proven by closure.
	write(t, f, s, honest, 0, 4, 5)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if got := f.Shareable().Count(); got != 7 {
		t.Errorf("%d pieces of a whole blob", got)
	}
	if _, _, err := lend(t, f, 0, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// Whoever answers for them, pieces of members flow to no client before closure.
func TestVouchedPiecesDoNotFlow(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(4*mib, 11)
	f := startFill(t, c, s)
	if err := f.WriteVouched(0, s.piece(0), honest.Peer, s.by("honest", 0)); err != nil {
		t.Fatal(err)
	}
	if err := f.OfferChain(s.chain, honest.Peer, s.chainBy("honest")); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteLinked(1, s.piece(1), s.chainSum()); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, origin, 2)
	if got := f.Shareable().Count(); got < 2 || flows(t, f) != 0 {
		t.Errorf("%d pieces are shareable, %d bytes flow", got, flows(t, f))
	}
}

// An own piece is hashed and signed once.
func TestOwnVoucherIsMadeOnce(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(2*mib, 2)
	f := startFill(t, c, s)
	write(t, f, s, origin, 1)
	made := 0
	for range 3 {
		l, err := f.Lend(1, 1, func(i int, sum [sha256.Size]byte) statement.Voucher { made++; return signed(i, sum) })
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
}

// Proven pieces stand by themselves while the blob is filled again.
func TestLendProven(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(3*mib+7, 8)
	put(t, c, s)
	if !c.evictOne() { // the chain stays
		t.Fatal("nothing to evict")
	}
	f := startFill(t, c, s)
	write(t, f, s, honest, 3)
	if err := f.WriteVouched(2, s.piece(2), honest.Peer, s.by("honest", 2)); err != nil {
		t.Fatal(err)
	}
	if data, standings, err := lend(t, f, 2, 2); err != nil || !bytes.Equal(data, s.data[2*mib:]) || !standings[0].Proven || !standings[1].Proven {
		t.Errorf("%d bytes by %+v, %v", len(data), standings, err)
	}
	// Against what is proven no voucher and no word helps.
	if err := f.WriteVouched(1, s.wrong(1), liar.Peer, s.by("liar", 1)); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("a vouched lie: %v", err)
	}
	if !f.VouchChain(honest.Peer, *s.chainBy("honest")) || f.VouchChain(liar.Peer, word("liar", [32]byte{1})) {
		t.Error("the proven chain is not the one that the fill goes by")
	}
	if err := f.WriteLinked(1, s.wrong(1), s.chainSum()); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("a linked lie: %v", err)
	}
	if err := f.WriteLinked(1, s.piece(1), s.chainSum()); err != nil {
		t.Error(err)
	}
}

// Pieces that agree with a vouched chain are given under it, whoever sent them
// and whenever the chain came.
func TestLendUnderAChain(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(6*mib, 3)
	f := startFill(t, c, s)
	write(t, f, s, honest, 0, 1)
	until(t, "two pieces are hashed", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.front == 2 && !f.hashing })
	write(t, f, s, origin, 3)
	if _, _, ok := f.Hint(); ok {
		t.Error("a chain out of nowhere")
	}
	if err := f.OfferChain(s.chain, "first", nil); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, honest, 4)
	if got := f.Shareable().String(); got != "{3}" {
		t.Errorf("under a chain that nobody vouched for: %s", got)
	}
	if _, _, ok := f.Hint(); ok {
		t.Error("a chain is passed on that nobody vouched for")
	}
	changed := f.Watch()
	if !f.VouchChain(honest.Peer, *s.chainBy("honest")) {
		t.Fatal("the chain is not known")
	}
	<-changed
	// 0 and 1 were hashed before the chain came, 3 was written before and is
	// the own, 4 was compared with it.
	if got := f.Shareable().String(); got != "{0,1,3,4}" {
		t.Errorf("under a vouched chain: %s", got)
	}
	if chain, voucher, ok := f.Hint(); !ok || voucher != *s.chainBy("honest") || !slices.Equal(chain, s.chain) {
		t.Errorf("the chain to pass on: %d states, %x, %v", len(chain), voucher, ok)
	}
	if err := f.WriteLinked(5, s.piece(5), s.chainSum()); err != nil {
		t.Fatal(err)
	}
	_, standings, err := lend(t, f, 3, 3)
	if err != nil || *standings[1].Chain != *s.chainBy("honest") || standings[2].Chain != standings[1].Chain || *standings[0].Piece != s.by("own 3", 3) {
		t.Errorf("%+v, %v", standings, err)
	}
	if f.Proven().Any() {
		t.Error("something is proven")
	}
}

// A piece that is said to agree with a chain and does not is not stored; one
// that is said to agree with another chain is left alone.
func TestWriteLinked(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(4*mib, 4)
	f := startFill(t, c, s)
	if err := f.WriteLinked(0, s.piece(0), s.chainSum()); !errors.Is(err, ErrConflict) {
		t.Errorf("without any chain: %v", err)
	}
	if f.VouchChain(honest.Peer, *s.chainBy("honest")) {
		t.Error("a chain out of nowhere")
	}
	if err := f.OfferChain(s.chain, honest.Peer, s.chainBy("honest")); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteLinked(0, s.wrong(0), s.chainSum()); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("a lie about the chain: %v", err)
	}
	if err := f.WriteLinked(0, s.piece(0), [32]byte{1}); !errors.Is(err, ErrConflict) {
		t.Errorf("about another chain: %v", err)
	}
	if f.Have().Any() || len(f.Rejections()) > 0 {
		t.Error("stored, or somebody convicted")
	}
	for _, i := range s.all(0) {
		if err := f.WriteLinked(i, s.piece(i), s.chainSum()); err != nil {
			t.Fatal(err)
		}
	}
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if r := f.Rejections(); len(r) > 0 {
		t.Errorf("convicted %v", r)
	}
}

// A chain that agrees with what was hashed only in part is passed on only with
// the pieces that agree.
func TestHalfForgedChainCoversWhatAgrees(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s, fake := newSample(4*mib, 7), newSample(4*mib, 8)
	f := startFill(t, c, s)
	write(t, f, s, honest, 0, 1, 2)
	until(t, "three pieces are hashed", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.front == 3 && !f.hashing })
	half := append(fake.chain[:1:1], s.chain[1:]...)
	if err := f.OfferChain(half, liar.Peer, s.chainBy("liar")); err != nil {
		t.Fatal(err)
	}
	if got := f.Shareable().String(); got != "{2}" {
		t.Errorf("shareable are %s", got)
	}
}

// What is lent stays what it was said to be, or breaks off.
func TestLoanOfADroppedPiece(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(3*mib, 5)
	f := startFill(t, c, s)
	if err := f.WriteVouched(0, s.wrong(0), liar.Peer, s.by("liar", 0)); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, origin, 1)
	l, err := f.Lend(0, 2, signed)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := io.ReadFull(l, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, honest, 2)
	rejections(t, f, 2)
	write(t, f, s, honest, 0, 2) // other bytes in the same place
	if n, err := l.Read(make([]byte, 1000)); n != 0 || !errors.Is(err, ErrClosed) {
		t.Errorf("%d bytes of another version, %v", n, err)
	}
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
}

// A loan goes on when its fill becomes a blob, and breaks off when it fails:
// the file may get another fill.
func TestLoanOutlivesClosure(t *testing.T) {
	for name, fails := range map[string]bool{"whole": false, "failed": true} {
		t.Run(name, func(t *testing.T) {
			c := open(t, t.TempDir(), Options{})
			s := newSample(3*mib, 6)
			f := startFill(t, c, s)
			write(t, f, s, origin, 0, 1)
			l, err := f.Lend(0, 2, signed)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			watched := f.Watch()
			if fails {
				f.Fail(errors.New("enough"))
			} else {
				write(t, f, s, origin, 2)
			}
			<-f.Done()
			<-watched
			<-f.Watch() // there is nothing more to come
			data, err := io.ReadAll(l)
			if !fails && (err != nil || !bytes.Equal(data, s.data[:2*mib])) || fails && !errors.Is(err, ErrClosed) {
				t.Errorf("%d bytes, %v", len(data), err)
			}
		})
	}
}

// Who waits for more to share learns of each piece, and of nothing else.
func TestWatch(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(4*mib, 7)
	f := startFill(t, c, s)
	told := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	watched := f.Watch()
	write(t, f, s, honest, 0)
	if told(watched) {
		t.Error("a piece that is not shareable counts")
	}
	if err := f.WriteVouched(1, s.piece(1), honest.Peer, s.by("honest", 1)); err != nil || !told(watched) {
		t.Errorf("a vouched piece is not told, %v", err)
	}
	watched = f.Watch()
	write(t, f, s, origin, 2)
	if !told(watched) {
		t.Error("an own piece is not told")
	}
}

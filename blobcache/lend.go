package blobcache

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
	"shoal/blobcache/statement"
)

// lending is what a fill may give to members before it is proven. Its fields
// are guarded by Fill.mu.
type lending struct {
	own      *bitset.BitSet             // pieces that this node took from the origin itself
	vouched  *bitset.BitSet             // pieces that came with a voucher
	vouchers map[int]*statement.Voucher // of both; of own ones once somebody wanted them
	lent     uint64                     // grows when a piece is dropped: what was lent may be another by now
	shared   chan struct{}              // closed when Shareable changes; nil if nobody waits
}

func newLending(n int) lending {
	return lending{own: bitset.New(uint(n)), vouched: bitset.New(uint(n)), vouchers: map[int]*statement.Voucher{}}
}

// Shareable returns the pieces that may be given to members, because somebody
// answers for them: what is proven, what this node took from the origin, what
// came with a voucher, and what agrees with a chain that came with one.
func (f *Fill) Shareable() *bitset.BitSet {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.proven.Clone()
	if f.whole || f.err != nil {
		return s
	}
	s.InPlaceUnion(f.own)
	s.InPlaceUnion(f.vouched)
	if f.hintVoucher != nil {
		s.InPlaceUnion(f.linked)
	}
	return s
}

// Watch returns a channel that is closed when Shareable changes next, or the
// fill ends. Call it before Shareable.
func (f *Fill) Watch() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shared == nil {
		f.shared = make(chan struct{})
	}
	watched := f.shared
	if f.whole || f.err != nil {
		f.share()
	}
	return watched
}

// share tells those who watch. The caller holds mu.
func (f *Fill) share() {
	if f.shared != nil {
		close(f.shared)
		f.shared = nil
	}
}

// Standing is what stands for a piece that is given to a member: it is proven,
// or one of the vouchers.
type Standing struct {
	Proven bool
	// Chain is the voucher of a chain that the piece agrees with.
	Chain *statement.Voucher
	// Piece is the voucher of the piece itself.
	Piece *statement.Voucher
}

// Lend returns count pieces from first on, for a member. The pieces must be
// Shareable: blob.ErrNotFound if one is not; ErrClosed after the end of the
// fill, when the blob is to be had from the Cache. vouch makes the voucher of
// a piece that this node took from the origin; it is called once for each,
// when it is first lent, and the fill keeps what it returns.
func (f *Fill) Lend(first, count int, vouch func(piece int, sum [sha256.Size]byte) statement.Voucher) (*Loan, error) {
	l, err := f.lend(first, count)
	if err != nil {
		return nil, fmt.Errorf("pieces %d to %d of %s: %w", first, first+count-1, f.key.digest, err)
	}
	for k, s := range l.standings {
		if s.Proven || s.Chain != nil || s.Piece != nil {
			continue
		}
		if l.standings[k].Piece, err = l.vouch(first+k, vouch); err != nil {
			l.Close()
			return nil, fmt.Errorf("vouch for piece %d of %s: %w", first+k, f.key.digest, err)
		}
	}
	return l, nil
}

func (f *Fill) lend(first, count int) (*Loan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.leaving || f.ended || f.err != nil:
		return nil, ErrClosed
	case first < 0 || count <= 0 || count > f.n-first:
		return nil, blob.ErrNotFound
	}
	l := &Loan{f: f, lent: f.lent}
	for i := first; i < first+count; i++ {
		s, ok := f.standing(i)
		if !ok {
			return nil, blob.ErrNotFound
		}
		l.standings = append(l.standings, s)
	}
	last := blob.Piece(first+count-1, f.key.size)
	l.pos, l.end = blob.Piece(first, f.key.size).Offset, last.Offset+last.Length
	file, err := os.Open(f.path)
	l.file = file
	return l, err
}

// standing returns what stands for piece i, nothing yet for one that is the
// own, and whether it is shareable. The chain comes first of the vouchers: who
// has it needs to hash the piece once only. The caller holds mu.
func (f *Fill) standing(i int) (s Standing, ok bool) {
	switch {
	case f.proven.Test(uint(i)):
		return Standing{Proven: true}, true
	case f.hintVoucher != nil && f.linked.Test(uint(i)):
		return Standing{Chain: f.hintVoucher}, true
	}
	return Standing{Piece: f.vouchers[i]}, f.own.Test(uint(i)) || f.vouched.Test(uint(i))
}

// Loan is a run of pieces on its way to a member. It reads the bytes of the
// pieces, and fails rather than yield others when a piece has been dropped
// since, so that what was said about them stays true. It is not for use by
// several goroutines at once.
type Loan struct {
	f         *Fill
	file      *os.File // our own: it outlives the fill
	standings []Standing
	lent      uint64 // of f, when it was made
	pos, end  int64
}

// Standings returns what stands for each piece. At most one chain is named.
func (l *Loan) Standings() []Standing { return l.standings }

// Len returns how many bytes there are in all to read from now on.
func (l *Loan) Len() int64 { return l.end - l.pos }

// Read reads on. io.EOF comes at the end of the last piece only.
func (l *Loan) Read(p []byte) (int, error) {
	if l.pos == l.end {
		return 0, io.EOF
	}
	n, err := l.readAt(p[:min(int64(len(p)), l.Len())], l.pos)
	l.pos += int64(n)
	return n, err
}

func (l *Loan) readAt(p []byte, off int64) (int, error) {
	n, err := l.file.ReadAt(p, off)
	if n < len(p) {
		return 0, unexpected(err)
	}
	// Before other bytes are written, the piece is dropped. A file without a
	// running fill may get another one.
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if l.f.lent != l.lent || l.f.err != nil && !l.f.whole {
		return 0, ErrClosed
	}
	return n, nil
}

// Close gives the loan back.
func (l *Loan) Close() error { return l.file.Close() }

// vouch makes the voucher of piece i, which is the own, and keeps it.
func (l *Loan) vouch(i int, sign func(int, [sha256.Size]byte) statement.Voucher) (*statement.Voucher, error) {
	buf := l.f.c.pieces.Get().(*[blob.PieceSize]byte)
	defer l.f.c.pieces.Put(buf)
	r := blob.Piece(i, l.f.key.size)
	if _, err := l.readAt(buf[:r.Length], r.Offset); err != nil {
		return nil, err
	}
	voucher := sign(i, sha256.Sum256(buf[:r.Length]))
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if l.f.lent == l.lent {
		l.f.vouchers[i] = &voucher
	}
	return &voucher, nil
}

// keepVoucher keeps what stands for a piece that was just written. The caller
// holds mu.
func (f *Fill) keepVoucher(w *delivery) {
	i := uint(w.i)
	switch {
	case w.from.Identity != "":
		f.own.Set(i)
	case w.voucher != nil:
		f.vouched.Set(i)
		f.vouchers[w.i] = w.voucher
	}
	if _, ok := f.standing(w.i); ok {
		f.share()
	}
}

// recall takes piece i out of what may be lent, and breaks off what is being
// lent. The caller holds mu.
func (f *Fill) recall(i int) {
	f.lent++
	f.own.Clear(uint(i))
	f.vouched.Clear(uint(i))
	f.linked.Clear(uint(i))
	delete(f.vouchers, i)
	f.share()
}

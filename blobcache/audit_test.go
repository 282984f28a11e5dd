package blobcache

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// crowd is a fill whose pieces several members vouched for, and whose driver
// can have pieces brought from the origin.
type crowd struct {
	*Fill
	t *testing.T
	s sample
}

func newCrowd(t *testing.T, size int) crowd {
	t.Helper()
	s := newSample(size, 9)
	f := startFill(t, open(t, t.TempDir(), Options{}), s)
	f.Auditable(true)
	return crowd{f, t, s}
}

func member(k int) string { return fmt.Sprint("member ", k) }

// vouched brings pieces for which by answers; those in wrong are wrong.
func (c crowd) vouched(by string, wrong []int, pieces ...int) {
	c.t.Helper()
	for _, i := range pieces {
		data := c.s.piece(i)
		if slices.Contains(wrong, i) {
			data = c.s.wrong(i)
		}
		if err := c.WriteVouched(i, data, by, c.s.by(by, i)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// serve brings what is rejected, until the fill ends: from the origin what
// should come from there, the rest from a member that tells the truth. It
// returns how many pieces the origin gave, and who was convicted.
func (c crowd) serve() (fromOrigin int, convicted []string) {
	c.t.Helper()
	take := func() {
		for _, r := range c.Rejections() {
			if r.Proven && !slices.Contains(convicted, r.From.Peer) {
				convicted = append(convicted, r.From.Peer)
			}
			switch {
			case r.Missing && r.Origin:
				fromOrigin++
				write(c.t, c.Fill, c.s, origin, r.Piece)
			case r.Missing:
				c.vouched("truth", nil, r.Piece)
			}
		}
	}
	for {
		select {
		case <-c.Rejected():
			take()
		case <-c.Done():
			take()
			slices.Sort(convicted)
			return fromOrigin, convicted
		}
	}
}

// One of five lies about all its pieces: one piece of each comes from the
// origin again, and all of the liar's from anybody.
func TestAuditFindsTheLiar(t *testing.T) {
	c := newCrowd(t, 25*mib)
	for k := range 5 {
		var wrong []int
		mine := c.s.all(0)[5*k : 5*k+5]
		if k == 3 {
			wrong = mine
		}
		c.vouched(member(k), wrong, mine...)
	}
	fromOrigin, convicted := c.serve()
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	if fromOrigin != 5 || !slices.Equal(convicted, []string{member(3)}) {
		t.Errorf("the origin gave %d pieces again, convicted %v", fromOrigin, convicted)
	}
	has(t, c.c, c.s)
	clean(t, c.c)
}

// Who is found wrong is not listened to again, whatever it brings, and whoever
// brings it. Nobody else is refused, and nobody convicted before closure.
func TestTheGuiltyAreRefused(t *testing.T) {
	c := newCrowd(t, 8*mib)
	c.vouched(liar.Peer, []int{0, 1, 2, 3}, 0, 1, 2, 3)
	c.vouched(honest.Peer, nil, 4, 5, 6, 7)
	audits := rejections(t, c.Fill, 2)
	for _, r := range audits {
		if !r.Origin || !r.Missing || r.Proven {
			t.Errorf("audit %+v", r)
		}
		write(t, c.Fill, c.s, origin, r.Piece)
	}
	for _, r := range rejections(t, c.Fill, 3) {
		if r.From != liar || r.Origin || !r.Missing || r.Proven {
			t.Errorf("after the audit %+v", r)
		}
		if err := c.WriteVouched(r.Piece, c.s.piece(r.Piece), liar.Peer, c.s.by("liar", r.Piece)); !errors.Is(err, ErrRefused) {
			t.Errorf("a voucher of the liar: %v", err)
		}
		if err := c.WritePiece(r.Piece, c.s.piece(r.Piece), liar); !errors.Is(err, ErrRefused) {
			t.Errorf("a piece of the liar: %v", err)
		}
		if err := c.OfferChain(c.s.chain, liar.Peer, c.s.chainBy("liar")); !errors.Is(err, ErrRefused) {
			t.Errorf("a chain of the liar: %v", err)
		}
		c.vouched(honest.Peer, nil, r.Piece)
	}
	if err := ends(t, c.Fill); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Rejections() {
		if r.From != liar || !r.Proven {
			t.Errorf("%+v", r)
		}
	}
}

// Who lies about a few of many pieces is found by looking at ever more of them,
// or all goes that is not the own; both end well, and soon.
func TestAuditsDouble(t *testing.T) {
	for name, wrong := range map[string][]int{"one of 30": {17}, "four of 30": {3, 17, 23, 31}} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, 36*mib)
			c.vouched(liar.Peer, wrong, c.s.all(7)...)
			for _, i := range wrong {
				if i < 7 {
					c.vouched(liar.Peer, wrong, i)
				}
			}
			for i := range 7 {
				if !c.Have().Test(uint(i)) {
					c.vouched(honest.Peer, nil, i)
				}
			}
			fromOrigin, convicted := c.serve()
			if err := c.Err(); err != nil {
				t.Fatal(err)
			}
			// 1, 2, 4 and 8 of each of the two, and all 36 if that finds nothing.
			if fromOrigin > 36 || !slices.Equal(convicted, []string{liar.Peer}) {
				t.Errorf("the origin gave %d pieces again, convicted %v", fromOrigin, convicted)
			}
			has(t, c.c, c.s)
		})
	}
}

// Each round audits twice as many, of those that were not looked at yet.
func TestAuditRounds(t *testing.T) {
	c := newCrowd(t, 60*mib)
	c.vouched(honest.Peer, nil, c.s.all(1)...)
	if err := c.WritePiece(0, c.s.wrong(0), origin); err != nil { // the own origin is ill: nobody else will be found
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, n := range []int{1, 2, 4, 8} {
		for _, r := range rejections(t, c.Fill, n) {
			if seen[r.Piece] || !r.Origin {
				t.Errorf("round of %d: %+v", n, r)
			}
			seen[r.Piece] = true
			write(t, c.Fill, c.s, origin, r.Piece)
		}
	}
	if rest := rejections(t, c.Fill, 60-1-15); len(rest) != 60-1-15 {
		t.Errorf("%d pieces are left in the end", len(rest))
	}
}

// Many liars, alone and together, do not keep a fill from its end.
func TestManyLiars(t *testing.T) {
	c := newCrowd(t, 30*mib)
	var want []string
	for k := range 10 {
		mine := c.s.all(0)[3*k : 3*k+3]
		wrong := mine[:k*3/9] // 0 to 3 of 3
		if len(wrong) > 0 {
			want = append(want, member(k))
		}
		c.vouched(member(k), wrong, mine...)
	}
	_, convicted := c.serve()
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(convicted, want) {
		t.Errorf("convicted %v, want %v", convicted, want)
	}
	has(t, c.c, c.s)
	clean(t, c.c)
}

// Without an origin, from the start or in the middle of an audit, all goes that
// did not come from one.
func TestNoAuditWithoutOrigin(t *testing.T) {
	for _, midway := range []bool{false, true} {
		t.Run(fmt.Sprint("midway ", midway), func(t *testing.T) {
			c := newCrowd(t, 8*mib)
			if !midway {
				c.Auditable(false)
			}
			c.vouched(liar.Peer, []int{0, 1, 2, 3}, 0, 1, 2, 3)
			c.vouched(honest.Peer, nil, 4, 5)
			write(t, c.Fill, c.s, origin, 6, 7)
			left := 6
			if midway {
				rejections(t, c.Fill, 2)
				c.Auditable(false)
				c.Auditable(false) // says nothing new
				left -= 2
			}
			for _, r := range rejections(t, c.Fill, left) {
				if !r.Missing || !r.Origin || r.Proven {
					t.Errorf("%+v", r)
				}
			}
			if got := c.Have().String(); got != "{6,7}" {
				t.Errorf("have %s", got)
			}
			c.vouched(honest.Peer, nil, 0, 1, 2, 3, 4, 5)
			if err := ends(t, c.Fill); err != nil {
				t.Fatal(err)
			}
			has(t, c.c, c.s)
		})
	}
}

// Who answers for every piece has not what it said: that needs no audit.
func TestNoAuditOfASoleSource(t *testing.T) {
	c := newCrowd(t, 8*mib)
	c.vouched(liar.Peer, []int{5}, c.s.all(0)...)
	if got := rejections(t, c.Fill, 8); len(got) != 8 || got[0].From != liar || !got[0].Origin {
		t.Errorf("%+v", got)
	}
}

// An audit that a member answers instead of the origin accuses nobody.
func TestAuditAnsweredByAMember(t *testing.T) {
	c := newCrowd(t, 8*mib)
	c.vouched(liar.Peer, []int{0, 1, 2, 3}, 0, 1, 2, 3)
	c.vouched(honest.Peer, nil, 4, 5, 6, 7)
	for _, r := range rejections(t, c.Fill, 2) {
		data := c.s.piece(r.Piece)
		if r.From == honest {
			data = c.s.wrong(r.Piece) // the liar has a friend
		}
		if err := c.WriteVouched(r.Piece, data, "friend", c.s.by("friend", r.Piece)); err != nil {
			t.Fatal(err)
		}
	}
	rejections(t, c.Fill, 1)
	c.mu.Lock()
	n := len(c.guilty)
	c.mu.Unlock()
	if n > 0 {
		t.Error("a member's word makes another guilty")
	}
}

// A forged chain with pieces to fit, and vouched for: nobody passes the last
// piece, the origin gives another one, and all that was under the chain goes
// at once. Its signer is convicted, and not who passed it on.
func TestForgedVouchedChain(t *testing.T) {
	for name, tt := range map[string]struct {
		before *Provenance // who brought the last piece before the chain came
		again  int         // pieces that the origin gives again
	}{
		"the last piece comes after the chain":          {nil, 0},
		"it came before, from the origin":               {&origin, 0},
		"it came before, from a member, and is audited": {&honest, 2},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, 12*mib)
			fake := c.s.spoilt(10) // and all others are right
			if tt.before != nil {
				write(t, c.Fill, c.s, *tt.before, 11)
			}
			if err := c.OfferChain(fake.chain, liar.Peer, fake.chainBy("liar")); err != nil {
				t.Fatal(err)
			}
			for i := range 11 {
				if err := c.WriteLinked(i, fake.piece(i), fake.chainSum()); err != nil {
					t.Fatal(err)
				}
			}
			if tt.before == nil {
				if err := c.WriteVouched(11, c.s.piece(11), honest.Peer, c.s.by("honest", 11)); !errors.Is(err, ErrConflict) {
					t.Fatalf("the right last piece against the forged chain: %v", err)
				}
				write(t, c.Fill, c.s, origin, 11)
			}
			fromOrigin, convicted := c.serve()
			if err := c.Err(); err != nil {
				t.Fatal(err)
			}
			if fromOrigin != tt.again || !slices.Equal(convicted, []string{liar.Peer}) {
				t.Errorf("the origin gave %d pieces again, convicted %v", fromOrigin, convicted)
			}
			has(t, c.c, c.s)
		})
	}
}

// spoilt is another sample, that differs in piece i.
func (s sample) spoilt(i int) sample {
	data := bytes.Clone(s.data)
	data[i*mib] ^= 1
	h := proof.NewHasher()
	h.Write(data)
	chain, _ := h.Chain()
	return sample{Descriptor: s.Descriptor, data: data, chain: chain}
}

// A chain that is right but for the end, and true pieces under it: its signer
// is convicted though each of its pieces is right.
func TestForgedEndOfAChain(t *testing.T) {
	c := newCrowd(t, 12*mib)
	forged := append(c.s.chain[:10:10], newSample(12*mib, 10).chain[10])
	sum := sample{chain: forged}.chainSum()
	if err := c.OfferChain(forged, liar.Peer, sample{chain: forged}.chainBy("liar")); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := c.WriteLinked(i, c.s.piece(i), sum); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WriteVouched(10, c.s.piece(10), honest.Peer, c.s.by("honest", 10)); !errors.Is(err, ErrConflict) {
		t.Fatalf("the right piece against the forged state: %v", err)
	}
	write(t, c.Fill, c.s, origin, 10, 11)
	fromOrigin, convicted := c.serve()
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	if fromOrigin != 0 || !slices.Equal(convicted, []string{liar.Peer}) {
		t.Errorf("the origin gave %d pieces again, convicted %v", fromOrigin, convicted)
	}
}

// A false "proven" convicts who sent it, as any piece without a voucher does.
func TestFalseProven(t *testing.T) {
	c := newCrowd(t, 8*mib)
	c.vouched(honest.Peer, nil, 0, 1, 2, 3, 4, 5)
	if err := c.WritePiece(6, c.s.wrong(6), liar); err != nil {
		t.Fatal(err)
	}
	write(t, c.Fill, c.s, liar, 7)
	if _, convicted := c.serve(); !slices.Equal(convicted, []string{liar.Peer}) {
		t.Errorf("convicted %v", convicted)
	}
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
}

// Pieces that were found on the disk are nobody's: they are audited like
// anybody's, and nobody is refused or convicted for them.
func TestAuditOfTheDisk(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(8*mib, 9)
	f := startFill(t, c, s)
	for _, i := range []int{0, 1, 2, 3} {
		if err := f.WritePiece(i, s.wrong(i), honest); err != nil {
			t.Fatal(err)
		}
	}
	f.Fail(errors.New("restart"))
	<-f.Done()
	f = startFill(t, c, s)
	f.Auditable(true)
	cr := crowd{f, t, s}
	if f.Shareable().Any() {
		t.Error("pieces of unknown origin are shared")
	}
	cr.vouched(honest.Peer, nil, 4, 5, 6, 7)
	fromOrigin, convicted := cr.serve()
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	if fromOrigin != 2 || !slices.Equal(convicted, []string{""}) {
		t.Errorf("the origin gave %d pieces again, convicted %q", fromOrigin, convicted)
	}
	has(t, c, s)
}

// What is proven does not depend on what was said about it: a voucher for a
// piece that is here already changes nothing.
func TestVoucherForAPieceThatIsHere(t *testing.T) {
	c := newCrowd(t, 3*mib)
	write(t, c.Fill, c.s, honest, 0)
	if err := c.WriteVouched(0, c.s.wrong(0), liar.Peer, c.s.by("liar", 0)); err != nil {
		t.Error(err)
	}
	if c.Shareable().Any() {
		t.Error("the voucher was taken for another's bytes")
	}
	if _, err := c.Lend(0, 1, signed); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("lent: %v", err)
	}
}

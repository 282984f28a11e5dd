package wire

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/statement"
)

func voucher(tb testing.TB) statement.Voucher {
	tb.Helper()
	s, err := statement.NewSigner(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		tb.Fatal(err)
	}
	return s.Piece(blob.Descriptor{Digest: digest.FromString("x"), Size: 3 * blob.PieceSize}, 1, [32]byte{1})
}

func TestPledges(t *testing.T) {
	v := voucher(t)
	want := []Pledge{{}, {Linked: true}, {Voucher: &v}}
	s := PrintPledges(want)
	if !strings.HasPrefix(s, "p,c,A") || len(s) != len("p,c,")+172 {
		t.Errorf("printed as %q", s)
	}
	got, err := ParsePledges(s, 3)
	if err != nil || got[0] != want[0] || got[1] != want[1] || *got[2].Voucher != v {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ParsePledges("", 2)
	if err != nil || len(got) != 2 || got[0] != (Pledge{}) || got[1] != (Pledge{}) {
		t.Errorf("no header: %+v, %v", got, err)
	}
}

func TestMalformedPledges(t *testing.T) {
	good := PrintVoucher(voucher(t))
	newer := "Ag" + good[2:]
	for _, s := range []string{
		"p", "p,p,p", ",", "p,", "p,P", "p, p", "p,c ", "p," + good[1:], "p," + good + "A", "p," + good[:171] + "=",
		"p," + good[:171] + "\n", "p," + newer, "p," + strings.Repeat("p", 1<<20), strings.Repeat("p,", 1<<20),
	} {
		if ps, err := ParsePledges(s, 2); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %+v, %v", s, ps, err)
		}
	}
}

func FuzzParsePledges(f *testing.F) {
	f.Add("", 4)
	f.Add("p,c,p,c", 4)
	f.Add("c,"+PrintVoucher(voucher(f)), 2)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if n < 1 || n > MaxRun {
			return
		}
		ps, err := ParsePledges(s, n)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if len(ps) != n || s != "" && PrintPledges(ps) != s {
			t.Errorf("%q of %d prints as %q", s, n, PrintPledges(ps))
		}
	})
}

func endorsement(tb testing.TB) statement.Endorsement {
	tb.Helper()
	s, err := statement.NewSigner(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		tb.Fatal(err)
	}
	return s.Endorse(blob.Descriptor{Digest: digest.FromString("x"), Size: 3 * blob.PieceSize}, [32]byte{1}, time.UnixMilli(1767323045678))
}

func TestEndorsements(t *testing.T) {
	e := endorsement(t)
	s := PrintEndorsement(e)
	if got, err := ParseEndorsement(s); err != nil || got != e || len(s) != 188 {
		t.Errorf("%d characters, %+v, %v", len(s), got, err)
	}
	for _, s := range []string{"", s[1:], s + "A", s[:187] + "=", s[:187] + "\n", s[:187] + "!", "Ag" + s[2:], PrintVoucher(voucher(t)), strings.Repeat("A", 1<<20)} {
		if e, err := ParseEndorsement(s); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %+v, %v", s, e, err)
		}
	}
}

func FuzzParseEndorsement(f *testing.F) {
	f.Add("")
	f.Add(PrintEndorsement(endorsement(f)))
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEndorsement(s)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if PrintEndorsement(e) != s {
			t.Errorf("%q prints as %q", s, PrintEndorsement(e))
		}
	})
}

package exchange

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"testing"

	"shoal/blobcache/statement"
)

// A voucher that was checked is not checked again; one that differs in
// anything is.
func TestChainVouchersAreCheckedOnce(t *testing.T) {
	signer := func(seed byte) *statement.Signer {
		s, err := statement.NewSigner(ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), seed)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	d, sum := describe([]byte("blob")), sha256.Sum256([]byte("chain"))
	right := signer(1).Chain(d, sum)
	var c chains
	for range 2 {
		if err := c.check(d, right); err != nil {
			t.Fatal(err)
		}
	}
	stolen, other := right, signer(2).Chain(d, sum)
	stolen.Signer = other.Signer
	resigned := right
	resigned.Sum[0]++
	unsigned := statement.Voucher{Signer: right.Signer, Sum: right.Sum}
	for name, v := range map[string]statement.Voucher{"another's": stolen, "of another chain": resigned, "without a signature": unsigned} {
		if err := c.check(d, v); !errors.Is(err, statement.ErrSignature) {
			t.Errorf("voucher %s: %v", name, err)
		}
	}
	if err := c.check(d, other); err != nil {
		t.Errorf("of a second signer: %v", err)
	}
	if signed := c.signed.Load(); signed == nil || *signed != other {
		t.Error("the one that was checked last is not kept")
	}
}

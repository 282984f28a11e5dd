package blobcache

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// A fill that closed by an offered chain keeps that chain and convicts nobody.
func TestClosedByAnOfferedChain(t *testing.T) {
	c, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	content := bytes.Repeat([]byte("honest "), 3*blob.PieceSize/7+5)
	d := blob.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	h := proof.NewHasher()
	h.Write(content)
	chain, ok := h.Chain()
	if !ok {
		t.Fatal("no chains here")
	}
	f, _, err := c.Fill(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.OfferChain(chain, "honest"); err != nil {
		t.Fatal(err)
	}
	for i := blob.PieceCount(d.Size) - 1; i >= 0; i-- {
		r := blob.Piece(i, d.Size)
		if err := f.WritePiece(i, content[r.Offset:r.End(d.Size)], Provenance{Peer: "honest"}); err != nil {
			t.Fatal(err)
		}
	}
	<-f.Done()
	if got := f.Rejections(); f.Err() != nil || len(got) != 0 {
		t.Errorf("error %v, rejections %v", f.Err(), got)
	}
	if kept, ok := c.Chain(d); !ok || !equalChains(kept, chain) {
		t.Errorf("kept a chain of %d states, want %d", len(kept), len(chain))
	}
}

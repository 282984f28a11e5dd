package forge

import (
	"bytes"
	"crypto/sha256"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/p2p/wire"
)

// Each lie is what it says, and nothing else is wrong with the answer.
func TestLies(t *testing.T) {
	data := bytes.Repeat([]byte("truth"), 500_000)
	d := blob.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	r := wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, First: 1, Count: 2}
	from := blob.Piece(1, d.Size).Offset
	chain := sha256.Sum256([]byte("a chain"))
	self := stranger()
	own := self.Chain(d, chain).Signer
	for _, lie := range append(AtOnce(), Later()...) {
		t.Run(string(lie), func(t *testing.T) {
			body, h := bytes.Clone(data[from:]), http.Header{}
			Forger{Lie: lie, Signer: self, Chain: chain}.Answer(r, h, body)
			ps, err := wire.ParsePledges(h.Get(wire.VouchersHeader), 2)
			if err != nil {
				t.Fatal(err)
			}
			wrong := !bytes.Equal(body, data[from:])
			if want := lie == Sum || lie == Chain || lie == Garbage || lie == Stranger || lie == Proven; wrong != want {
				t.Errorf("the bytes are wrong: %v", wrong)
			}
			switch p := ps[0]; lie {
			case Chain, ChainSignature:
				v, err := wire.ParseVoucher(h.Get(wire.ChainHeader))
				if err != nil || !p.Linked || (v.CheckChain(d) == nil) != (lie == Chain) {
					t.Errorf("%+v, %v", p, err)
				}
			case Proven:
				if p != (wire.Pledge{}) {
					t.Errorf("%+v", p)
				}
			default:
				v := *p.Voucher
				signed := v.CheckPiece(d, 1) == nil
				matches := v.Sum == sha256.Sum256(body[:blob.PieceSize])
				mine := v.Signer == own
				got := [3]bool{signed, matches, mine}
				want := map[Lie][3]bool{
					Signature: {false, false, true}, Signer: {false, true, false}, Index: {false, true, true},
					Blob: {false, true, true}, Size: {false, true, true}, Sum: {true, false, true},
					Garbage: {true, true, true}, Stranger: {true, true, false},
				}[lie]
				if got != want {
					t.Errorf("signed, matches, of this member: %v, want %v", got, want)
				}
			}
		})
	}
}

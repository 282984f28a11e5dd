package exchange

import (
	"errors"
	"io"
	"net/http"

	"github.com/bits-and-blooms/bitset"
	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/wire"
)

// asksForVouchers reports whether a member takes what is not proven.
func asksForVouchers(req *http.Request) bool {
	return req.Header.Get(wire.VouchersHeader) == wire.VouchersVersion
}

// serveChain sends the chain that has closed here, with this member's voucher,
// or one that somebody else has vouched for or endorsed.
func (x *Exchange) serveChain(w http.ResponseWriter, req *http.Request, r wire.Request) {
	d := blob.Descriptor{Digest: r.Digest, Size: r.Size}
	if chain, ok := x.cache.Chain(d); ok {
		w.Header().Set(wire.ChainHeader, wire.PrintVoucher(x.vouchChain(d, chain)))
		if e, ok := x.cache.Endorsement(d, chain); ok {
			w.Header().Set(wire.EndorsementHeader, wire.PrintEndorsement(e))
		}
		x.answer(w, chain.Bytes())
		return
	}
	f, ok := x.running(r)
	if !ok {
		notFound(w)
		return
	}
	endorsed, e, isEndorsed := f.Endorsed()
	isEndorsed = isEndorsed && req.Header.Get(wire.EndorsementHeader) == wire.EndorsementVersion
	chain, voucher, vouched := f.Hint()
	vouched = vouched && asksForVouchers(req) && (!isEndorsed || voucher.Sum == e.Sum)
	if vouched {
		w.Header().Set(wire.ChainHeader, wire.PrintVoucher(voucher))
	}
	if isEndorsed {
		chain = endorsed
		w.Header().Set(wire.EndorsementHeader, wire.PrintEndorsement(e))
	}
	if !vouched && !isEndorsed {
		notFound(w)
		return
	}
	x.answer(w, chain.Bytes())
}

// running returns the fill that a request is about.
func (x *Exchange) running(r wire.Request) (*blobcache.Fill, bool) {
	f, ok := x.cache.Running(r.Digest)
	return f, ok && f.Descriptor().Size == r.Size
}

// servePieces sends pieces of a whole blob, or those of a running fill for
// which somebody answers.
func (x *Exchange) servePieces(w http.ResponseWriter, req *http.Request, r wire.Request, id peer.ID) {
	if x.serveWhole(w, req, r) {
		return
	}
	f, ok := x.running(r)
	if !ok {
		notFound(w)
		return
	}
	loan, err := f.Lend(r.First, r.Count, x.vouchPiece(blob.Descriptor{Digest: r.Digest, Size: r.Size}))
	switch {
	case errors.Is(err, blobcache.ErrClosed) && x.serveWhole(w, req, r): // it has just become one
		return
	case err != nil:
		x.log.Debug("pieces are not served", "peer", id, "error", err)
		notFound(w)
		return
	}
	defer loan.Close()
	if !pledge(w.Header(), loan.Standings()) && !asksForVouchers(req) {
		notFound(w)
		return
	}
	x.send(req.Context(), w, loan, loan.Len(), r.Digest)
}

// serveWhole sends pieces of a whole blob; false if there is none.
func (x *Exchange) serveWhole(w http.ResponseWriter, req *http.Request, r wire.Request) bool {
	b, err := x.cache.Get(req.Context(), r.Digest)
	if err != nil {
		return false
	}
	defer b.Close()
	if b.Descriptor().Size != r.Size {
		notFound(w)
		return true
	}
	rng := r.Range()
	x.send(req.Context(), w, io.NewSectionReader(b.File(), rng.Offset, rng.Length), rng.Length, r.Digest)
	return true
}

// pledge sets the headers that say what stands for each piece, and reports
// whether all of them are proven.
func pledge(h http.Header, standings []blobcache.Standing) (proven bool) {
	pledges := make([]wire.Pledge, len(standings))
	proven = true
	for i, s := range standings {
		proven = proven && s.Proven
		switch {
		case s.Proven:
		case s.Chain != nil:
			pledges[i].Linked = true
			h.Set(wire.ChainHeader, wire.PrintVoucher(*s.Chain))
		default:
			pledges[i].Voucher = s.Piece
		}
	}
	h.Set(wire.VouchersHeader, wire.PrintPledges(pledges))
	return proven
}

// inventory returns the pieces that are here, those that are proven, and the
// others that may be given to members. What is told of one moment must fit
// together, and pieces come and go: proven ones only come.
func inventory(f *blobcache.Fill) (have, proven, vouched *bitset.BitSet) {
	proven, vouched = f.Proven(), f.Shareable()
	have = f.Have()
	vouched.InPlaceIntersection(have)
	vouched.InPlaceDifference(proven)
	return have, proven, vouched
}

package exchange

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p/plan"
)

// auditPatience is how long an origin that fails is still expected to bring
// single pieces: as long as another way to be rid of wrong ones is waste.
const auditPatience = 5 * time.Second

// auditable tells the fill whether the origin can be asked which of several
// members is wrong.
func (d *driver) auditable() {
	switch {
	case d.originErr == nil:
		d.ill = time.Time{}
	case d.ill.IsZero():
		d.ill = time.Now()
	}
	there := d.origins.current() != nil
	d.fill.Auditable(there && (d.ill.IsZero() || time.Since(d.ill) < auditPatience))
}

// rejected takes in what the fill has dropped, and who is convicted.
func (d *driver) rejected() {
	rs := d.fill.Rejections()
	senders := make(map[string]int) // pieces dropped without a verdict
	lost := 0
	for _, r := range rs {
		if r.Proven {
			d.verdict(r)
		}
		if r.Missing {
			lost++
			senders[r.From.Peer]++
		}
	}
	if lost == 0 {
		return
	}
	d.rounds++
	d.log.Warn("pieces are fetched again", "pieces", lost, "senders", len(senders), "round", d.rounds)
	d.x.metrics.pieceErrors.Add(float64(lost))
	sole := d.soleSender(senders)
	for _, r := range rs {
		if r.Missing {
			from := plan.Origin
			if src := d.sender(r.From); src != nil {
				from = src.id
			}
			d.plan.Lost(r.Piece, from, sole == "" && r.Origin && d.originUsable())
		}
	}
	if sole != "" {
		d.ban(sole, "blob", blobcache.ChainPiece)
		return
	}
	if !d.originUsable() && lost > 1 {
		if d.solo != nil {
			d.solo.tried = true
		}
		d.chooseSolo()
	}
}

// soleSender returns the member that sent every piece of a blob that is wrong,
// if there is one: it said that it has the blob, and no chain is needed to see
// that it has not.
func (d *driver) soleSender(pieces map[string]int) peer.ID {
	for name, n := range pieces {
		if id, err := peer.Decode(name); err == nil && n == blob.PieceCount(d.want.Size) {
			return id
		}
	}
	return ""
}

// sender returns the member that a piece came from, nil if it is not known any
// more or was none.
func (d *driver) sender(from blobcache.Provenance) *source {
	id, err := peer.Decode(from.Peer)
	if err != nil {
		return nil
	}
	return d.sources[id]
}

// chooseSolo has one member alone give what is missing: when pieces of several
// did not lead to the digest and there is no origin to ask, nobody knows whose
// were wrong, and mixing them again would not tell.
func (d *driver) chooseSolo() {
	d.solo = nil
	for _, s := range d.sources {
		if s.whole && !s.tried {
			d.solo = s
			break
		}
	}
	for _, s := range d.sources {
		d.bench(s) // also the chosen one: what it was refused for is open again
	}
	d.fillUp()
}

// verdict convicts the sender of what is proven to be wrong.
func (d *driver) verdict(r blobcache.Rejection) {
	id, err := peer.Decode(r.From.Peer)
	if err != nil || id == d.x.self {
		return // the origin, or the own disk
	}
	reason := "piece"
	if r.Piece == blobcache.ChainPiece {
		reason = "chain"
	}
	d.ban(id, reason, r.Piece)
}

// verdicts convicts at the end of the fill: whoever sent wrong pieces or
// chains, and if the size is a fact now, whoever said that it has the whole at
// another.
func (d *driver) verdicts() {
	for _, r := range d.fill.Rejections() {
		if r.Proven {
			d.verdict(r)
		}
	}
	if d.fill.Err() != nil {
		return
	}
	for id := range d.sizes {
		d.ban(id, "size", blobcache.ChainPiece)
	}
}

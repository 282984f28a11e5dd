package exchange

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
	"shoal/p2p/wire"
)

// Whoever sends a piece says what stands for it, and answers for that: a
// voucher that its signer did not make, a piece that does not match its
// voucher or its chain, or one that is said to be proven and is wrong, is a lie
// of the sender. For what matches and is wrong the signer answers, if it is a
// member that this one has met; otherwise the sender does, too, and the piece
// is not passed on.

var (
	// errUnwanted: nothing of an answer is of use here, and its sender is not
	// to blame.
	errUnwanted = errors.New("vouched for by whom this member does not believe")
	// errVoucher: a piece is not that of its voucher.
	errVoucher = errors.New("piece does not match its voucher")
)

// wrongPiece is a lie of the sender.
type wrongPiece struct {
	piece int
	about string // of the ban
	err   error
}

func (w *wrongPiece) Error() string { return w.err.Error() }
func (w *wrongPiece) Unwrap() error { return w.err }

// backing is a pledge that was looked at.
type backing struct {
	wire.Pledge
	signer   peer.ID // of the voucher of the piece, or of the chain
	stranger bool    // who signed has not been met: the sender answers
	unwanted error   // why the piece is not taken; nil if it is
}

// examine looks at what stands for the pieces of an answer. A *wrongPiece means
// that the sender lied about it.
func (d *driver) examine(ctx context.Context, sender peer.ID, first int, p pledged) ([]backing, error) {
	var chain backing
	backings := make([]backing, len(p.pledges))
	for k, pledge := range p.pledges {
		b := backing{Pledge: pledge}
		switch {
		case pledge.Voucher != nil:
			if err := pledge.Voucher.CheckPiece(d.want, first+k); err != nil {
				return nil, &wrongPiece{first + k, "voucher", err}
			}
			if err := d.backed(&b, pledge.Voucher.Signer); err != nil {
				return nil, &wrongPiece{first + k, "voucher", err}
			}
		case pledge.Linked && chain.signer == "":
			if err := d.chains.check(d.want, *p.chain); err != nil {
				return nil, &wrongPiece{blobcache.ChainPiece, "voucher", err}
			}
			chain = b
			if err := d.backed(&chain, p.chain.Signer); err != nil {
				return nil, &wrongPiece{blobcache.ChainPiece, "voucher", err}
			}
			if !chain.stranger && chain.unwanted == nil {
				chain.unwanted = d.underChain(ctx, sender, chain.signer, *p.chain)
			}
			b = chain
		case pledge.Linked:
			b = chain
		}
		backings[k] = b
	}
	return backings, nil
}

// backed notes in b who signed, and whether that is somebody to believe.
func (d *driver) backed(b *backing, key statement.Key) (err error) {
	if b.signer, err = signerOf(key); err != nil {
		return err
	}
	if d.x.bans.Holds(b.signer, time.Now()) {
		b.unwanted = fmt.Errorf("%w: %s is banned", errUnwanted, b.signer)
	}
	b.stranger = !d.x.met.know(b.signer)
	return nil
}

// store stores piece i of a run, as what was said about it. A *wrongPiece means
// that the sender lied; errUnwanted, blobcache.ErrConflict and ErrRefused that
// nobody did, and another source is to be asked.
func (d *driver) store(r run, i int, data []byte) error {
	var b backing // of the origin and of what is said to be proven
	if r.backings != nil {
		b = r.backings[i-r.First]
	}
	var err error
	switch {
	case b.unwanted != nil:
		return b.unwanted
	case b.Voucher != nil && sha256.Sum256(data) != b.Voucher.Sum:
		return &wrongPiece{i, "voucher", errVoucher}
	case b.stranger:
		err = d.fill.WritePiece(i, data, r.from)
	case b.Voucher != nil:
		err = d.fill.WriteVouched(i, data, b.signer.String(), *b.Voucher)
		if errors.Is(err, blob.ErrCorrupt) { // the right bytes are known
			d.post(func() { d.ban(b.signer, "piece", i) })
			return fmt.Errorf("%w: %w", errUnwanted, err)
		}
	case b.Linked:
		err = d.fill.WriteLinked(i, data, r.chain)
	default:
		err = d.fill.WritePiece(i, data, r.from)
	}
	if errors.Is(err, blob.ErrCorrupt) {
		return &wrongPiece{i, "piece", err}
	}
	return err
}

// chains are those that a fill has fetched because pieces were said to agree
// with them.
type chains struct {
	signed  atomic.Pointer[statement.Voucher] // was checked last, and is its signer's
	mu      sync.Mutex                        // held while one is fetched, so that each is fetched once
	unfit   map[[sha256.Size]byte]error
	fetched map[peer.ID]int // by signer
}

// maxChains bounds the chains that are fetched because one member vouches for
// them. There is one of a blob.
const maxChains = 2

// check is CheckChain of a voucher that comes with every answer.
func (c *chains) check(d blob.Descriptor, v statement.Voucher) error {
	if signed := c.signed.Load(); signed != nil && *signed == v {
		return nil
	}
	err := v.CheckChain(d)
	if err == nil {
		c.signed.Store(&v)
	}
	return err
}

// underChain has the fill go by the chain that pieces of the sender are said to
// agree with. It returns why it does not.
func (d *driver) underChain(ctx context.Context, sender, signer peer.ID, v statement.Voucher) error {
	if d.fill.VouchChain(signer.String(), v) {
		return nil
	}
	d.chains.mu.Lock()
	defer d.chains.mu.Unlock()
	if d.fill.VouchChain(signer.String(), v) {
		return nil // fetched meanwhile
	}
	if err := d.chains.unfit[v.Sum]; err != nil {
		return err
	}
	if d.chains.fetched[signer] >= maxChains {
		return fmt.Errorf("%w: %s has vouched for %d chains", errUnwanted, signer, maxChains)
	}
	chain, err := d.x.client.chain(ctx, sender, d.want)
	if err == nil && sha256.Sum256(chain.Bytes()) != v.Sum {
		err = errors.New("the member goes by another chain now")
	}
	if err != nil {
		return fmt.Errorf("%w: chain: %w", errUnwanted, err)
	}
	d.chains.fetched[signer]++
	err = d.offerChain(chain.Chain, signer, &v)
	d.offerEndorsed(chain, sender)
	if err != nil {
		err = fmt.Errorf("%w: %w", errUnwanted, err)
		d.chains.unfit[v.Sum] = err
		return err
	}
	return nil
}

// fetchChain offers the chain of a member to the fill: a hint, which lets
// pieces be checked on all cores and out of order, or more than that if a trusted
// key has signed it.
func (d *driver) fetchChain(ctx context.Context, id peer.ID) {
	chain, err := d.x.client.chain(ctx, id, d.want)
	if err != nil {
		d.log.Debug("no chain", "peer", id, "error", err)
		return
	}
	by, v := id, chain.voucher
	if v != nil {
		if by, err = d.signedChain(chain.Chain, *v); err != nil {
			d.post(func() { d.ban(id, "voucher", blobcache.ChainPiece) })
			return
		}
		if !d.x.met.know(by) {
			by, v = id, nil
		}
	}
	// Of a chain that comes with nothing but an endorsement nobody but the key
	// has said that it is right.
	if chain.voucher != nil || chain.endorsement == nil {
		if err := d.offerChain(chain.Chain, by, v); err != nil {
			d.log.Debug("chain not used", "peer", id, "signer", by, "error", err)
		}
	}
	d.offerEndorsed(chain, id)
}

// offerEndorsed offers to the fill what was signed about a chain that a member
// sent. If it was not signed by that key, the member lied: it has checked it, or
// should have.
func (d *driver) offerEndorsed(chain offered, sender peer.ID) {
	if chain.endorsement == nil {
		return
	}
	err := d.fill.OfferEndorsed(chain.Chain, *chain.endorsement)
	switch {
	case errors.Is(err, statement.ErrSignature), errors.Is(err, blob.ErrCorrupt):
		d.post(func() { d.ban(sender, "endorsement", blobcache.ChainPiece) })
	case err != nil:
		d.log.Info("signed chain not used", "peer", sender, "error", err)
	default:
		d.post(d.endorsed)
	}
}

// endorsed has others told that there is a chain to be had here, before it has
// closed, because of what was signed about it.
func (d *driver) endorsed() {
	if _, _, ok := d.fill.Endorsed(); ok && !d.board.chain {
		d.board.chain, d.board.untold = true, true
	}
}

// signedChain returns who signed the voucher that came with a chain. An error
// means that who sent both lied.
func (d *driver) signedChain(chain proof.Chain, v statement.Voucher) (peer.ID, error) {
	if sha256.Sum256(chain.Bytes()) != v.Sum {
		return "", errVoucher
	}
	if err := v.CheckChain(d.want); err != nil {
		return "", err
	}
	return signerOf(v.Signer)
}

// offerChain offers a chain to the fill, for which a member answers, with its
// voucher or nil. If it is proven to be false, that member is banned.
func (d *driver) offerChain(chain proof.Chain, by peer.ID, v *statement.Voucher) error {
	if d.x.bans.Holds(by, time.Now()) {
		return fmt.Errorf("%s is banned", by)
	}
	err := d.fill.OfferChain(chain, by.String(), v)
	if errors.Is(err, blob.ErrCorrupt) {
		d.post(func() { d.ban(by, "chain", blobcache.ChainPiece) })
	}
	if err == nil {
		d.log.Debug("chain offered", "peer", by, "signed", v != nil)
	}
	return err
}

package exchange

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
)

// maxMet is how many members are remembered that this one has met: those that
// met it longest ago are forgotten, and answer for nothing until they are met
// again.
const maxMet = 4096

// newSigner returns the signer of a member's vouchers. Its identity must be an
// Ed25519 key: of those alone the peer ID tells the whole key, so that others
// can check a voucher without asking for anything.
func newSigner(identity crypto.PrivKey) (*statement.Signer, error) {
	key, ok := identity.(*crypto.Ed25519PrivateKey)
	if !ok {
		return nil, errors.New("exchange: the identity is no Ed25519 key")
	}
	raw, err := key.Raw()
	if err != nil {
		return nil, fmt.Errorf("exchange: identity: %w", err)
	}
	return statement.NewSigner(ed25519.PrivateKey(raw))
}

// signerOf returns the member whose key k is.
func signerOf(k statement.Key) (peer.ID, error) {
	pub, err := crypto.UnmarshalEd25519PublicKey(k[:])
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(pub)
}

// acquaintances are the members that have proved to this one that they are
// members: the piece channel lets nobody else in. Only they answer for what
// others pass on. Each has an account of what was traded with it.
type acquaintances struct {
	self peer.ID
	met  *lru.Cache[peer.ID, *account]
}

func newAcquaintances(self peer.ID) (*acquaintances, error) {
	met, err := lru.New[peer.ID, *account](maxMet)
	return &acquaintances{self: self, met: met}, err
}

// meet notes that id is a member and returns its account.
func (a *acquaintances) meet(id peer.ID) *account {
	if known, ok := a.met.Get(id); ok {
		return known
	}
	fresh := new(account)
	if known, ok, _ := a.met.PeekOrAdd(id, fresh); ok {
		return known
	}
	return fresh
}

// trip returns the shortest round trip to a member; zero if it is not known.
func (a *acquaintances) trip(id peer.ID) time.Duration {
	known, ok := a.met.Peek(id)
	if !ok {
		return 0
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	return known.trip
}

func (a *acquaintances) know(id peer.ID) bool { return id == a.self || a.met.Contains(id) }

// vouchPiece returns the function that vouches for pieces of d, which this
// member took from the origin.
func (x *Exchange) vouchPiece(d blob.Descriptor) func(i int, sum [sha256.Size]byte) statement.Voucher {
	return func(i int, sum [sha256.Size]byte) statement.Voucher { return x.signer.Piece(d, i, sum) }
}

// vouchChain vouches for the chain of d, which has closed here.
func (x *Exchange) vouchChain(d blob.Descriptor, c proof.Chain) statement.Voucher {
	return x.signer.Chain(d, sha256.Sum256(c.Bytes()))
}

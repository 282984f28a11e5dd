package blobcache

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
)

// trust is whose word counts here, and who gives it here.
type trust struct {
	keys   []statement.Key
	signer *statement.Signer // nil: nobody

	mu        *sync.Mutex // after any other
	convicted map[statement.Key]struct{}
}

func newTrust(keys []statement.Key, signer *statement.Signer) trust {
	return trust{keys: keys, signer: signer, mu: new(sync.Mutex), convicted: map[statement.Key]struct{}{}}
}

// believes tells whether the key is one of those that are trusted, and has signed
// nothing false so far.
func (t trust) believes(k statement.Key) bool { return slices.Contains(t.keys, k) && !t.has(k) }

func (t trust) has(k statement.Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.convicted[k]
	return ok
}

// Convicted tells whether the key has signed a chain that was shown to be false,
// since the cache was opened. Nothing that it says is to be believed.
func (c *Cache) Convicted(k statement.Key) bool { return c.trust.has(k) }

// convict has a trusted key believed no more: it has signed a chain for d that is
// not the one that closed.
func (c *Cache) convict(k statement.Key, d digest.Digest) {
	c.trust.mu.Lock()
	_, known := c.trust.convicted[k]
	c.trust.convicted[k] = struct{}{}
	c.trust.mu.Unlock()
	if known {
		return
	}
	c.metrics.endorsements.WithLabelValues(resultFalse).Inc()
	c.log.Error("a trusted key has signed a false chain, and nothing that it signs counts until the node is restarted: take it out of trusted-keys, and find out who has it",
		"key", k.String(), "digest", d)
}

// Endorsement returns what is to be passed on with the chain of d, which has
// closed here: the word of this node's own Signer, or what a fill has kept.
func (c *Cache) Endorsement(d blob.Descriptor, chain proof.Chain) (statement.Endorsement, bool) {
	if len(chain) == 0 { // the digest alone decides over one piece
		return statement.Endorsement{}, false
	}
	e, ok, err := c.meta.Endorsement(d)
	if err != nil {
		c.log.Warn("endorsement is unreadable", "digest", d.Digest, "error", err)
	}
	sum := sha256.Sum256(chain.Bytes())
	ok = ok && e.Sum == sum
	signer := c.trust.signer
	if signer == nil || ok && e.Signer == signer.Key() {
		return e, ok
	}
	e = signer.Endorse(d, sum, time.Now())
	c.meta.PutEndorsement(d, e)
	return e, true
}

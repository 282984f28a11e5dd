package meta

import (
	"fmt"

	"go.etcd.io/bbolt"

	"shoal/blobcache/blob"
	"shoal/blobcache/statement"
)

// maxEndorsements bounds kept endorsements, in bytes: some 60,000, more than
// there is room for chains of a GiB.
const maxEndorsements = 8 << 20

func ringEndorsements() ring { return ring{name: "endorsements", max: maxEndorsements} }

// PutEndorsement keeps what was signed about the chain of d.
func (s *Store) PutEndorsement(d blob.Descriptor, e statement.Endorsement) {
	s.change(func(c *changes) { c.endorsements[chainKey(d)] = e.Marshal() })
}

// Endorsement returns what is kept about the chain of d. It is checked by nobody
// on its way here.
func (s *Store) Endorsement(d blob.Descriptor) (statement.Endorsement, bool, error) {
	b, err := s.get(ringEndorsements(), func(c *changes) map[string][]byte { return c.endorsements }, chainKey(d))
	if b == nil || err != nil {
		return statement.Endorsement{}, false, err
	}
	e, err := statement.ParseEndorsement(b)
	if err != nil {
		return e, false, fmt.Errorf("endorsement of %s: %w", chainKey(d), err)
	}
	return e, true, nil
}

func (c changes) applyEndorsements(tx *bbolt.Tx) error {
	for k, v := range c.endorsements {
		if err := ringEndorsements().put(tx, k, v); err != nil {
			return err
		}
	}
	return nil
}

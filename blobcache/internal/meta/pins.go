package meta

import (
	"maps"
	"slices"

	"go.etcd.io/bbolt"
)

// bucketPins holds the names of what the operator wants to keep.
const bucketPins = "pins"

// Pins returns the names that are pinned, in their order.
func (s *Store) Pins() ([]string, error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	all := map[string]bool{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketPins)).ForEach(func(k, _ []byte) error {
			all[string(k)] = true
			return nil
		})
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(all, s.pending.pins)
	maps.DeleteFunc(all, func(_ string, pinned bool) bool { return !pinned })
	return slices.Sorted(maps.Keys(all)), err
}

// Pin pins a name, or unpins it.
func (s *Store) Pin(name string, pinned bool) {
	s.change(func(c *changes) { c.pins[name] = pinned })
}

func (c changes) applyPins(tx *bbolt.Tx) error {
	b := tx.Bucket([]byte(bucketPins))
	for name, pinned := range c.pins {
		write := func() error { return b.Put([]byte(name), nil) }
		if !pinned {
			write = func() error { return b.Delete([]byte(name)) }
		}
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// Package meta is the cache's memory of what it holds: a bbolt file with a
// record for each whole blob, the chains that closed here, what manifests told
// of blobs that are not here yet, which blobs are not for everybody, what
// upstreams said of tags, and what the operator wants to keep. It never sees a
// blob's bytes, and nothing in it counts as proof of them.
//
// Everything written is visible at once and reaches the disk with the next
// Flush, so that a pull never waits for it; what a crash takes back is found
// again by looking at the blobs. The package starts no goroutines.
package meta

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// format is the version of the file. A store of another format is refused.
const format = "1"

const (
	// maxChains bounds kept chains, in bytes: enough for 2 TiB of blobs.
	maxChains = 64 << 20
	// maxTold bounds what manifests said, in bytes: more than 100,000 blobs.
	maxTold = 16 << 20
	// maxPending bounds changes that wait for a Flush, in entries.
	maxPending = 4096
)

// The buckets beside the rings.
const (
	bucketFormat = "format" // holds its own name
	bucketBlobs  = "blobs"
	bucketMarks  = "marks"
)

func ringChains() ring { return ring{name: "chains", max: maxChains} }
func ringTold() ring   { return ring{name: "told", max: maxTold} }

// Record is what is kept of one whole blob.
type Record struct {
	Size      int64     `json:"size"`
	MediaType string    `json:"mediaType,omitempty"`
	Stamp     Stamp     `json:"stamp"`
	Proven    time.Time `json:"proven"` // when its bytes were last hashed
	Used      time.Time `json:"used"`   // when it was last asked for
	// Refs are what a manifest names.
	Refs []digest.Digest `json:"refs,omitempty"`
}

// Stamp identifies a version of a file by what every write to it changes.
type Stamp struct {
	Size  int64  `json:"size"`
	Inode uint64 `json:"inode"`
	Mtime int64  `json:"mtime"` // in ns since 1970
	Ctime int64  `json:"ctime"` // in ns since 1970
}

// told is the JSON of what a manifest said of a blob.
type told struct {
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType,omitempty"`
}

// Store is the open file. Its methods may be called from any goroutine.
type Store struct {
	db    *bbolt.DB
	fresh bool

	flushing sync.Mutex // held while a transaction runs

	mu      sync.Mutex
	pending changes
	writing changes // being flushed; still the newest for readers
}

// changes are writes that are not in the file yet.
type changes struct {
	blobs  map[digest.Digest]*Record // nil: deleted
	marks  map[digest.Digest]byte    // 0: deleted
	chains map[string][]byte
	told   map[string][]byte
	tags   map[string][]byte // nil: deleted

	endorsements map[string][]byte
	pins         map[string]bool // false: deleted
}

func newChanges() changes {
	return changes{
		blobs:  map[digest.Digest]*Record{},
		marks:  map[digest.Digest]byte{},
		chains: map[string][]byte{},
		told:   map[string][]byte{},
		tags:   map[string][]byte{},

		endorsements: map[string][]byte{},
		pins:         map[string]bool{},
	}
}

func (c changes) len() int {
	return len(c.blobs) + len(c.marks) + len(c.chains) + len(c.told) + len(c.tags) + len(c.endorsements) + len(c.pins)
}

// ErrFormat tells that the file was written by a version of Shoal that this
// one does not know.
var ErrFormat = errors.New("unknown format")

// Open opens or creates the file at path. A file that is no database is an
// error that is not ErrFormat; the caller may put it away and try again, since
// all it holds can be found out anew.
func Open(path string) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s := &Store{db: db, pending: newChanges(), writing: newChanges()}
	if err := db.Update(s.prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	return s, nil
}

// Fresh tells whether the file was made by this Open: marks that were set
// before, if any, are lost.
func (s *Store) Fresh() bool { return s.fresh }

func (s *Store) prepare(tx *bbolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists([]byte(bucketFormat))
	if err != nil {
		return err
	}
	switch have := b.Get([]byte(bucketFormat)); {
	case have == nil:
		s.fresh = true
		if err := b.Put([]byte(bucketFormat), []byte(format)); err != nil {
			return err
		}
	case string(have) != format:
		return fmt.Errorf("%w %q, this version reads %q", ErrFormat, have, format)
	}
	for _, name := range []string{bucketBlobs, bucketMarks, bucketPins} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	return errors.Join(ringChains().create(tx), ringTold().create(tx), ringTags().create(tx), ringEndorsements().create(tx))
}

// Blobs returns all records. One that cannot be read is none: its blob will be
// proven again.
func (s *Store) Blobs() (map[digest.Digest]Record, error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	all := map[digest.Digest]Record{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketBlobs)).ForEach(func(k, v []byte) error {
			var r Record
			if json.Unmarshal(v, &r) == nil {
				all[digest.Digest(k)] = r
			}
			return nil
		})
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, r := range s.pending.blobs {
		if r == nil {
			delete(all, d)
		} else {
			all[d] = *r
		}
	}
	return all, err
}

// PutBlob keeps r as the record of d.
func (s *Store) PutBlob(d digest.Digest, r Record) {
	s.change(func(c *changes) { c.blobs[d] = &r })
}

// DeleteBlob forgets the record of d.
func (s *Store) DeleteBlob(d digest.Digest) {
	s.change(func(c *changes) { c.blobs[d] = nil })
}

// Marks returns the marks of all blobs that have one.
func (s *Store) Marks() (map[digest.Digest]byte, error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	all := map[digest.Digest]byte{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketMarks)).ForEach(func(k, v []byte) error {
			if len(v) > 0 {
				all[digest.Digest(k)] = v[0]
			}
			return nil
		})
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(all, s.pending.marks)
	maps.DeleteFunc(all, func(_ digest.Digest, mark byte) bool { return mark == 0 })
	return all, err
}

// Mark keeps a mark for the blob d, whether it is here or not; 0 is none.
func (s *Store) Mark(d digest.Digest, mark byte) {
	s.change(func(c *changes) { c.marks[d] = mark })
}

// PutChain keeps a chain that closed over the blob d. The oldest ones are
// forgotten when there are too many. Chains of blobs of one piece are empty
// and are not kept. Each stands behind its SHA-256: a chain that rots on disk
// would have honest peers convicted.
func (s *Store) PutChain(d blob.Descriptor, c proof.Chain) {
	if len(c) > 0 {
		b := c.Bytes()
		sum := sha256.Sum256(b)
		s.change(func(ch *changes) { ch.chains[chainKey(d)] = append(sum[:], b...) })
	}
}

// Chain returns the chain that closed over the blob d.
func (s *Store) Chain(d blob.Descriptor) (proof.Chain, bool, error) {
	key := chainKey(d)
	b, err := s.get(ringChains(), func(c *changes) map[string][]byte { return c.chains }, key)
	if b == nil || err != nil {
		return nil, false, err
	}
	var sum [sha256.Size]byte
	b = b[copy(sum[:], b):]
	if sha256.Sum256(b) != sum {
		return nil, false, fmt.Errorf("chain of %s: checksum", key)
	}
	c, err := proof.ParseChain(b, d.Size)
	if err != nil {
		return nil, false, fmt.Errorf("chain of %s: %w", key, err)
	}
	return c, true, nil
}

func chainKey(d blob.Descriptor) string { return fmt.Sprintf("%s-%d", d.Digest, d.Size) }

// Remember keeps what a manifest told of the blob d.
func (s *Store) Remember(d blob.Descriptor) error {
	v, err := json.Marshal(told{Size: d.Size, MediaType: d.MediaType})
	if err != nil {
		return err
	}
	s.change(func(c *changes) { c.told[d.Digest.String()] = v })
	return nil
}

// Told returns what was remembered of d.
func (s *Store) Told(d digest.Digest) (blob.Descriptor, bool, error) {
	b, err := s.get(ringTold(), func(c *changes) map[string][]byte { return c.told }, d.String())
	if b == nil || err != nil {
		return blob.Descriptor{}, false, err
	}
	var t told
	if err := json.Unmarshal(b, &t); err != nil {
		return blob.Descriptor{}, false, fmt.Errorf("what was told of %s: %w", d, err)
	}
	return blob.Descriptor{Digest: d, Size: t.Size, MediaType: t.MediaType}, true, nil
}

// get returns the newest value of key, nil if there is none.
func (s *Store) get(r ring, part func(*changes) map[string][]byte, key string) (value []byte, err error) {
	s.mu.Lock()
	for _, c := range []*changes{&s.pending, &s.writing} {
		if v, ok := part(c)[key]; ok {
			s.mu.Unlock()
			return v, nil
		}
	}
	s.mu.Unlock()
	err = s.db.View(func(tx *bbolt.Tx) error {
		value = r.get(tx, key)
		return nil
	})
	return value, err
}

func (s *Store) change(f func(*changes)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending.len() >= maxPending { // nobody flushes, or the disk is full
		s.pending.told = map[string][]byte{}
		s.pending.chains = map[string][]byte{}
		s.pending.endorsements = map[string][]byte{}
		maps.DeleteFunc(s.pending.tags, func(_ string, v []byte) bool { return v != nil })
	}
	f(&s.pending)
}

// Flush writes all changes to the disk. After an error they wait for the next
// Flush.
func (s *Store) Flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	if s.pending.len() == 0 {
		s.mu.Unlock()
		return nil
	}
	s.writing, s.pending = s.pending, newChanges()
	s.mu.Unlock()

	err := s.db.Update(s.writing.apply)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.pending = s.writing.under(s.pending)
		err = fmt.Errorf("%s: %w", s.db.Path(), err)
	}
	s.writing = newChanges()
	return err
}

func (c changes) apply(tx *bbolt.Tx) error {
	blobs := tx.Bucket([]byte(bucketBlobs))
	for d, r := range c.blobs {
		if r == nil {
			if err := blobs.Delete([]byte(d)); err != nil {
				return err
			}
			continue
		}
		v, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := blobs.Put([]byte(d), v); err != nil {
			return err
		}
	}
	marks := tx.Bucket([]byte(bucketMarks))
	for d, mark := range c.marks {
		write := func() error { return marks.Put([]byte(d), []byte{mark}) }
		if mark == 0 {
			write = func() error { return marks.Delete([]byte(d)) }
		}
		if err := write(); err != nil {
			return err
		}
	}
	for k, v := range c.chains {
		if err := ringChains().put(tx, k, v); err != nil {
			return err
		}
	}
	for k, v := range c.told {
		if err := ringTold().put(tx, k, v); err != nil {
			return err
		}
	}
	return errors.Join(c.applyTags(tx), c.applyEndorsements(tx), c.applyPins(tx))
}

// under returns c overlaid with newer changes.
func (c changes) under(newer changes) changes {
	maps.Copy(c.blobs, newer.blobs)
	maps.Copy(c.marks, newer.marks)
	maps.Copy(c.chains, newer.chains)
	maps.Copy(c.told, newer.told)
	maps.Copy(c.tags, newer.tags)
	maps.Copy(c.endorsements, newer.endorsements)
	maps.Copy(c.pins, newer.pins)
	return c
}

// Close flushes and closes the file.
func (s *Store) Close() error { return errors.Join(s.Flush(), s.db.Close()) }

// PutAway renames a broken file so that Open can start over beside it.
func PutAway(path string) (string, error) {
	aside := path + ".broken"
	return aside, os.Rename(path, aside)
}

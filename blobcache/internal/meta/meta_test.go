package meta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func desc(name string, size int64) blob.Descriptor {
	return blob.Descriptor{Digest: digest.FromString(name), Size: size, MediaType: "type/" + name}
}

func chain(n int, seed byte) proof.Chain {
	c := make(proof.Chain, n)
	for i := range c {
		c[i][0], c[i][1] = seed, byte(i)
	}
	return c
}

// What was written is there at once, after a flush, and after another start.
func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	s := open(t, path)
	a, b := desc("a", 3*blob.PieceSize), desc("b", 10)
	record := Record{
		Size: a.Size, MediaType: a.MediaType, Proven: time.Unix(5, 6).UTC(), Used: time.Unix(7, 8).UTC(),
		Stamp: Stamp{Size: a.Size, Inode: 1 << 63, Mtime: -1, Ctime: 9},
	}
	s.PutBlob(a.Digest, record)
	s.PutBlob(b.Digest, Record{})
	s.DeleteBlob(b.Digest)
	s.PutChain(a, chain(2, 1))
	s.Mark(a.Digest, 2)
	s.Mark(b.Digest, 1)
	s.Mark(b.Digest, 0)
	s.PutChain(b, proof.Chain{})
	if err := s.Remember(b); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		blobs, err := s.Blobs()
		if want := map[digest.Digest]Record{a.Digest: record}; err != nil || !reflect.DeepEqual(blobs, want) {
			t.Errorf("%s: blobs %v (%v), want %v", when, blobs, err, want)
		}
		marks, err := s.Marks()
		if want := map[digest.Digest]byte{a.Digest: 2}; err != nil || !reflect.DeepEqual(marks, want) {
			t.Errorf("%s: marks %v (%v), want %v", when, marks, err, want)
		}
		if c, ok, err := s.Chain(a); err != nil || !ok || !slices.Equal(c, chain(2, 1)) {
			t.Errorf("%s: chain %v %v %v", when, c, ok, err)
		}
		other := a
		other.Size++
		if _, ok, err := s.Chain(other); ok || err != nil {
			t.Errorf("%s: a chain for another size: %v", when, err)
		}
		if _, ok, err := s.Chain(b); ok || err != nil {
			t.Errorf("%s: a chain of one piece is kept: %v", when, err)
		}
		if d, ok, err := s.Told(b.Digest); err != nil || !ok || d != b {
			t.Errorf("%s: told %v %v %v", when, d, ok, err)
		}
		if _, ok, err := s.Told(a.Digest); ok || err != nil {
			t.Errorf("%s: told of a: %v", when, err)
		}
	}
	if !s.Fresh() {
		t.Error("a new file is not fresh")
	}
	check("before a flush")
	for range 2 {
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		check("after a flush")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	if s.Fresh() {
		t.Error("an old file is fresh")
	}
	check("after a start")
	s.DeleteBlob(a.Digest)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if blobs, err := s.Blobs(); err != nil || len(blobs) > 0 {
		t.Errorf("deleted: %v %v", blobs, err)
	}
}

// The newest values stay, the oldest go, and a value that is written again is
// new.
func TestRingIsBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "meta.db"))
	r := ring{name: "test", max: 100}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		if err := r.create(tx); err != nil {
			return err
		}
		put := func(key string, n int) {
			if err := r.put(tx, key, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 50 {
			put(fmt.Sprint("x", i), 33)
		}
		put("a", 40)
		put("b", 40)
		put("a", 50) // again, and larger
		put("c", 40) // b goes
		for key, want := range map[string]int{"x49": -1, "a": 50, "b": -1, "c": 40} {
			got := -1
			if v := r.get(tx, key); v != nil {
				got = len(v)
			}
			if got != want {
				t.Errorf("%s has %d bytes, want %d", key, got, want)
			}
		}
		if data, order := count(tx, r.data()), count(tx, r.order()); data != 2 || order != 2 {
			t.Errorf("%d values, %d places", data, order)
		}
		if err := r.delete(tx, "a"); err != nil {
			t.Fatal(err)
		}
		if err := r.delete(tx, "never"); err != nil {
			t.Fatal(err)
		}
		put("d", 60) // fits beside c, as a is gone
		if r.get(tx, "a") != nil || r.get(tx, "c") == nil || r.total(tx) != 100 || count(tx, r.order()) != 2 {
			t.Errorf("after a delete: %d bytes, %d places", r.total(tx), count(tx, r.order()))
		}
		put("huge", 101)
		if r.get(tx, "huge") != nil || count(tx, r.data()) != 0 {
			t.Error("a value over the bound stays")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func count(tx *bbolt.Tx, bucket []byte) (n int) {
	c := tx.Bucket(bucket).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		n++
	}
	return n
}

// Changes that cannot be written wait, newer ones on top, and not without
// bound.
func TestFailedFlush(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	s := open(t, path)
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	a := desc("a", 3*blob.PieceSize)
	s.PutChain(a, chain(2, 1))
	s.PutBlob(a.Digest, Record{Size: 1})
	if err := s.Flush(); err == nil {
		t.Fatal("no error")
	}
	s.PutBlob(a.Digest, Record{Size: 2})
	if err := s.Flush(); err == nil {
		t.Fatal("no error")
	}
	if got := s.pending.blobs[a.Digest]; got == nil || got.Size != 2 {
		t.Errorf("pending record %v", got)
	}
	if c, ok, _ := s.Chain(a); !ok || len(c) != 2 {
		t.Error("the chain that waits is not found")
	}
	for i := range 2 * maxPending {
		if err := s.Remember(desc(fmt.Sprint(i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.pending.len(); n > maxPending || s.pending.blobs[a.Digest] == nil {
		t.Errorf("%d changes wait, at most %d should; records stay", n, maxPending)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.db = db
	if err := s.Flush(); err != nil || s.pending.len() > 0 {
		t.Errorf("%v, %d wait", err, s.pending.len())
	}
	if blobs, err := s.Blobs(); err != nil || blobs[a.Digest].Size != 2 {
		t.Errorf("blobs %v %v", blobs, err)
	}
}

// A chain that rotted on disk is no chain: it would convict honest peers.
func TestRottenValues(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "meta.db"))
	a, b := desc("a", 3*blob.PieceSize), desc("b", 3*blob.PieceSize)
	s.PutChain(a, chain(2, 1))
	s.PutChain(b, chain(2, 2))
	if err := s.Remember(a); err != nil {
		t.Fatal(err)
	}
	s.PutBlob(a.Digest, Record{})
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		rotten := append([]byte{}, ringChains().get(tx, chainKey(a))...)
		rotten[40] ^= 1
		return errors.Join(
			ringChains().put(tx, chainKey(a), rotten),
			ringChains().put(tx, chainKey(b), ringChains().get(tx, chainKey(b))[:64]),
			ringTold().put(tx, a.Digest.String(), []byte("{")),
			tx.Bucket([]byte(bucketBlobs)).Put([]byte(a.Digest), []byte("[]")),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []blob.Descriptor{a, b} {
		if c, ok, err := s.Chain(d); ok || err == nil {
			t.Errorf("chain %v", c)
		}
	}
	if d, ok, err := s.Told(a.Digest); ok || err == nil {
		t.Errorf("told %v", d)
	}
	if blobs, err := s.Blobs(); err != nil || len(blobs) > 0 {
		t.Errorf("a record that is none: %v %v", blobs, err)
	}
}

func TestOpenErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	s := open(t, path)
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketFormat)).Put([]byte(bucketFormat), []byte("99"))
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrFormat) {
		t.Errorf("a newer format: %v", err)
	}
	if err := os.WriteFile(path, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || errors.Is(err, ErrFormat) {
		t.Errorf("no database: %v", err)
	}
	aside, err := PutAway(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(aside); err != nil || string(b) != "no database" {
		t.Errorf("put away: %q %v", b, err)
	}
	open(t, path)
}

package meta

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"shoal/blobcache/blob"
)

// maxTags bounds what upstreams said of tags, in bytes: some 20,000 answers.
const maxTags = 4 << 20

func ringTags() ring { return ring{name: "tags", max: maxTags} }

// Tag is what an upstream said that a tag is.
type Tag struct {
	Manifest blob.Descriptor
	At       time.Time // when it said so
}

// tag is the JSON of a Tag.
type tag struct {
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	MediaType string        `json:"mediaType,omitempty"`
	At        time.Time     `json:"at"`
}

// PutTag keeps t under key.
func (s *Store) PutTag(key string, t Tag) error {
	v, err := json.Marshal(tag{t.Manifest.Digest, t.Manifest.Size, t.Manifest.MediaType, t.At})
	if err != nil {
		return err
	}
	s.change(func(c *changes) { c.tags[key] = v })
	return nil
}

// Tag returns what is kept under key.
func (s *Store) Tag(key string) (Tag, bool, error) {
	b, err := s.get(ringTags(), func(c *changes) map[string][]byte { return c.tags }, key)
	if b == nil || err != nil {
		return Tag{}, false, err
	}
	t, err := parseTag(b)
	if err != nil {
		return Tag{}, false, fmt.Errorf("tag %q: %w", key, err)
	}
	return t, true, nil
}

func parseTag(b []byte) (Tag, error) {
	var t tag
	if err := json.Unmarshal(b, &t); err != nil {
		return Tag{}, err
	}
	d, err := blob.ParseDigest(t.Digest.String())
	return Tag{Manifest: blob.Descriptor{Digest: d, Size: t.Size, MediaType: t.MediaType}, At: t.At}, err
}

// Tags returns all that is kept under keys that begin with prefix. What cannot
// be read is left out.
func (s *Store) Tags(prefix string) (map[string]Tag, error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	return s.tags(prefix)
}

// tags is Tags; the caller holds flushing.
func (s *Store) tags(prefix string) (map[string]Tag, error) {
	all := map[string]Tag{}
	take := func(key string, value []byte) {
		delete(all, key)
		if t, err := parseTag(value); err == nil {
			all[key] = t
		}
	}
	err := s.db.View(func(tx *bbolt.Tx) error {
		ringTags().each(tx, prefix, take)
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, value := range s.pending.tags {
		if strings.HasPrefix(key, prefix) {
			take(key, value)
		}
	}
	return all, err
}

// DeleteTags forgets what is kept under keys that begin with prefix, of those
// for which which is true, and returns how many it were.
func (s *Store) DeleteTags(prefix string, which func(Tag) bool) (int, error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	all, err := s.tags(prefix)
	n := 0
	for key, t := range all {
		if which(t) {
			s.change(func(c *changes) { c.tags[key] = nil })
			n++
		}
	}
	return n, err
}

func (c changes) applyTags(tx *bbolt.Tx) error {
	for k, v := range c.tags {
		var err error
		if v == nil {
			err = ringTags().delete(tx, k)
		} else {
			err = ringTags().put(tx, k, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

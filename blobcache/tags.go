package blobcache

import (
	"shoal/blobcache/internal/meta"
)

// Tag is what an upstream said that a tag is, and when.
type Tag = meta.Tag

// KeepTag keeps t under key. It is for the word of upstreams, never of peers.
func (c *Cache) KeepTag(key string, t Tag) {
	if err := c.meta.PutTag(key, t); err != nil {
		c.log.Warn("tag is not kept", "tag", key, "error", err)
	}
}

// Tag returns what is kept under key.
func (c *Cache) Tag(key string) (Tag, bool) {
	t, ok, err := c.meta.Tag(key)
	if err != nil {
		c.log.Warn("tag is unreadable", "tag", key, "error", err)
	}
	return t, ok
}

// Tags returns all that is kept under keys that begin with prefix.
func (c *Cache) Tags(prefix string) map[string]Tag {
	all, err := c.meta.Tags(prefix)
	if err != nil {
		c.log.Warn("tags are unreadable", "tags", prefix, "error", err)
	}
	return all
}

// ForgetTags forgets what is kept under keys that begin with prefix, of those
// for which which is true, and returns how many it were. It is on disk when it
// returns.
func (c *Cache) ForgetTags(prefix string, which func(Tag) bool) (int, error) {
	n, err := c.meta.DeleteTags(prefix, which)
	if err != nil {
		return n, err
	}
	return n, c.meta.Flush()
}

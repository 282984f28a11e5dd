// Package lru is caches of the entries that were used last, of a fixed number: what
// is remembered of others must not grow with what they do. It is golang-lru with a
// constructor that cannot fail. A Cache may be used from any goroutine, and has none.
package lru

import "github.com/hashicorp/golang-lru/v2"

// Cache has at most so many entries. One more takes the place of the one that was
// not used for longest.
type Cache[K comparable, V any] = lru.Cache[K, V]

// New returns an empty Cache of n entries, 1 or more.
func New[K comparable, V any](n int) *Cache[K, V] {
	c, err := lru.New[K, V](n)
	if err != nil { // of no other n
		panic(err)
	}
	return c
}

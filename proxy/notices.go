package proxy

import (
	"time"

	"shoal/blobcache/lru"
)

const (
	maxNotices = 1024
	// noticeOnce is for what is worth a line for a blob, however long its
	// pulls take.
	noticeOnce = time.Hour
)

// notices keeps a log readable: clients repeat themselves by the thousand, and
// what is wrong with one blob is worth one line.
type notices struct {
	seen *lru.Cache[string, time.Time]
}

func newNotices() *notices {
	return &notices{lru.New[string, time.Time](maxNotices)}
}

// first says whether key was not noticed within the time before. Two callers at
// the same instant may both be told so.
func (n *notices) first(key string, within time.Duration) bool {
	if at, ok := n.seen.Get(key); ok && time.Since(at) < within {
		return false
	}
	n.seen.Add(key, time.Now())
	return true
}

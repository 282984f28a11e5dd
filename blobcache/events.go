package blobcache

import (
	"sync"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// Event tells that a blob became whole, or went.
type Event struct {
	Blob blob.Descriptor
	Gone bool // evicted, or found corrupt
	// Rotten: it was found corrupt, and somebody may want to bring it again.
	Rotten bool
}

// Subscribe returns a channel of events from now on, and a function that ends
// it. For each blob only the latest news counts: a slow receiver misses steps
// in between, never the outcome. The channel is closed by cancel and by Close.
func (c *Cache) Subscribe() (events <-chan Event, cancel func()) {
	s := &subscription{
		out:   make(chan Event),
		quit:  make(chan struct{}),
		wake:  make(chan struct{}, 1),
		fresh: map[digest.Digest]Event{},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		close(s.out)
		return s.out, func() {}
	}
	c.subs[s] = struct{}{}
	c.work.Go(s.pump)
	return s.out, func() {
		c.mu.Lock()
		delete(c.subs, s)
		c.mu.Unlock()
		s.close()
	}
}

// emit tells all subscribers; it never blocks. The caller holds mu.
func (c *Cache) emit(e Event) {
	for s := range c.subs {
		s.push(e)
	}
}

// subscription holds at most one event a blob for a receiver that lags.
type subscription struct {
	out  chan Event
	quit chan struct{}
	wake chan struct{}
	once sync.Once

	mu    sync.Mutex
	order []digest.Digest
	fresh map[digest.Digest]Event
}

func (s *subscription) close() { s.once.Do(func() { close(s.quit) }) }

func (s *subscription) push(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, waiting := s.fresh[e.Blob.Digest]; !waiting {
		s.order = append(s.order, e.Blob.Digest)
	}
	s.fresh[e.Blob.Digest] = e
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) pop() (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) == 0 {
		return Event{}, false
	}
	d := s.order[0]
	s.order = s.order[1:]
	e := s.fresh[d]
	delete(s.fresh, d)
	return e, true
}

func (s *subscription) pump() {
	defer close(s.out)
	for {
		e, ok := s.pop()
		if !ok {
			select {
			case <-s.wake:
				continue
			case <-s.quit:
				return
			}
		}
		select {
		case s.out <- e:
		case <-s.quit:
			return
		}
	}
}

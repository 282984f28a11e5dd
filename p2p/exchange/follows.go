package exchange

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/blob"
	"shoal/p2p/wire"
)

const (
	// sessionIdle is how long a connection is kept with nothing to follow: the
	// layers of an image, and images of a rollout, come one after the other.
	sessionIdle = 2 * time.Minute
	// oldFor is how long a member that cannot be followed is not asked to be:
	// it may be updated.
	oldFor = 10 * time.Minute
	// maxOld bounds how many of those are remembered.
	maxOld = 1024
)

var (
	// errNoFollow: the member is older than the protocol of followers.
	errNoFollow = errors.New("member cannot be followed")
	// errFrozen: the member is connected and does not say anything.
	errFrozen = errors.New("member has fallen silent")
	// errFull: too many follow the blob there.
	errFull = errors.New("member has enough followers")
)

// said is what a member said about a blob, or why it says nothing.
type said struct {
	info    wire.Info
	filling bool // it fills it and knows no size yet; there is no info
	// err is errGone if it has nothing yet: more may follow. After any other
	// nothing does.
	err error
}

// audience hears what members say. Its methods do not block.
type audience interface {
	hear(id peer.ID, s said)
	meet(others ...Holder)
}

// follows are the connections over which this node follows what others have:
// one to each member, for all fills. The member tells what it has and every
// change of it, so that nobody needs to ask twice; a member that dies is
// noticed by its connection.
type follows struct {
	x *Exchange

	mu       sync.Mutex
	sessions map[peer.ID]*session
	old      map[peer.ID]time.Time // members that cannot be followed, until then
}

func newFollows(x *Exchange) *follows {
	return &follows{x: x, sessions: make(map[peer.ID]*session), old: make(map[peer.ID]time.Time)}
}

// begin follows what h has of d, until the returned function is called.
func (fs *follows) begin(h Holder, d blob.Descriptor, to audience) (leave func()) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := &follow{want: d, to: to}
	if time.Now().Before(fs.old[h.Peer]) {
		to.hear(h.Peer, said{err: errNoFollow})
		return func() {}
	}
	s := fs.sessions[h.Peer]
	if s == nil || !s.add(f) {
		if s = fs.open(h); s == nil {
			to.hear(h.Peer, said{err: ErrClosed})
			return func() {}
		}
		s.add(f)
	}
	return func() { s.leave(f) }
}

// open begins a connection; nil if the exchange closes. mu is held.
func (fs *follows) open(h Holder) *session {
	if !fs.x.begin() {
		return nil
	}
	s := newSession(fs.x, h)
	fs.sessions[h.Peer] = s
	go func() {
		defer fs.x.wg.Done()
		err := s.run(fs.x.life)
		fs.ended(s, err)
	}()
	return s
}

// unanswered reports whether an error means that the member did not answer, or
// answered nonsense: others need not wait for it.
func unanswered(err error) bool {
	for _, other := range []error{nil, errGone, errBusy, errFull, errNoFollow, errIdle, ErrClosed, context.Canceled} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// ended forgets a connection, and tells those who used it.
func (fs *follows) ended(s *session, err error) {
	fs.mu.Lock()
	if fs.sessions[s.holder.Peer] == s {
		delete(fs.sessions, s.holder.Peer)
	}
	if errors.Is(err, errNoFollow) {
		if len(fs.old) >= maxOld {
			clear(fs.old)
		}
		fs.old[s.holder.Peer] = time.Now().Add(oldFor)
	}
	fs.mu.Unlock()
	if unanswered(err) {
		fs.x.silent.Add(s.holder.Peer, time.Now())
	}
	s.end(err)
	fs.x.log.Debug("member is followed no more", "peer", s.holder.Peer, "error", err)
}

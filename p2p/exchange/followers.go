package exchange

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"
	"golang.org/x/time/rate"

	"shoal/p2p/wire"
)

const (
	// maxFollowers bounds the connections of members that follow blobs here,
	// and maxFollowersOf those of one member: it may have come back before its
	// old ones are known to be dead.
	maxFollowers   = 256
	maxFollowersOf = 4
	// maxWatches bounds the blobs that one connection follows, and maxWatchers
	// those who follow one blob, whatever plan.Degrees say of a fill. Others are
	// named some of these instead.
	maxWatches  = 512
	maxWatchers = 64
	// beatEvery is the longest silence on a connection with something to
	// follow, beatIdle on one without. A member that breaks it is dead.
	beatEvery = time.Second
	beatIdle  = 10 * time.Second
	// deafAfter without a frame, an asker is gone; it beats every beatIdle.
	deafAfter = 3 * beatIdle
	// wordEvery is the least time between two writes to one follower: what is to
	// be said about several blobs goes out together.
	wordEvery = 5 * time.Millisecond
	// wordRate bounds what one watch costs on the line, in bytes a second: the
	// state of a large blob is told less often.
	wordRate = 100 << 10
)

// followers are the members that follow blobs of this node: they fill them, or
// they would not ask.
type followers struct {
	x *Exchange

	mu    sync.Mutex
	total int // connections
	by    map[peer.ID]int
	blobs map[digest.Digest]map[*watch]struct{}
}

// follower is one connection of a member that follows. Its reader adds and
// removes watches, its writer tells.
type follower struct {
	all    *followers
	teller netip.Addr    // where it connects from
	woken  chan struct{} // holds a value while there may be something to tell

	// Guarded by all.mu.
	holder  Holder
	watches map[uint32]*watch
	refused []*watch // found no room
}

// watch is a blob that a follower follows.
type watch struct {
	by   *follower
	id   uint32
	blob digest.Digest
	size int64

	due bool // there may be something new; guarded by all.mu

	// Of the writer.
	last   *word     // nil while the first is owed
	notYet time.Time // the next one waits until then
}

func newFollowers(x *Exchange) *followers {
	return &followers{x: x, by: make(map[peer.ID]int), blobs: make(map[digest.Digest]map[*watch]struct{})}
}

// serveFollow talks to a member that follows, until it leaves or the exchange
// closes.
func (x *Exchange) serveFollow(w http.ResponseWriter, req *http.Request, id peer.ID) {
	if !strings.EqualFold(req.Header.Get("Upgrade"), wire.FollowProtocol) || req.Method != http.MethodGet {
		x.refuse(w, id, fmt.Errorf("%w: no upgrade to %s", wire.ErrMalformed, wire.FollowProtocol))
		return
	}
	if !x.followers.enter(id) {
		x.metrics.refused.WithLabelValues("busy").Inc()
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	defer x.followers.exit(id)
	if !x.begin() {
		http.Error(w, "closing", http.StatusServiceUnavailable)
		return
	}
	defer x.wg.Done()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be upgraded", http.StatusNotImplemented)
		return
	}
	defer conn.Close()
	f := &follower{
		all: x.followers, holder: Holder{Peer: id}, woken: make(chan struct{}, 1), watches: make(map[uint32]*watch),
	}
	if a, err := netip.ParseAddrPort(req.RemoteAddr); err == nil {
		f.teller = a.Addr()
	}
	err = f.run(x.life, conn, rw.Reader)
	x.log.Debug("member follows no more", "peer", id, "error", err)
}

func (fs *followers) enter(id peer.ID) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.total >= maxFollowers || fs.by[id] >= maxFollowersOf {
		return false
	}
	fs.total++
	fs.by[id]++
	fs.x.metrics.followers.Inc()
	return true
}

func (fs *followers) exit(id peer.ID) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.total--
	if fs.by[id]--; fs.by[id] == 0 {
		delete(fs.by, id)
	}
	fs.x.metrics.followers.Dec()
}

// changed wakes those who follow the blob.
func (fs *followers) changed(d digest.Digest) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for w := range fs.blobs[d] {
		w.due = true
		w.by.wake()
	}
}

// of returns the members that follow the blob.
func (fs *followers) of(d digest.Digest) []Holder {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var all []Holder
	for w := range fs.blobs[d] {
		all = append(all, w.by.holder)
	}
	return all
}

// Followed returns how many blobs members follow here: they fill them.
func (x *Exchange) Followed() int {
	x.followers.mu.Lock()
	defer x.followers.mu.Unlock()
	return len(x.followers.blobs)
}

func (f *follower) wake() {
	select {
	case f.woken <- struct{}{}:
	default:
	}
}

// run talks on conn until either side has enough, and returns why.
func (f *follower) run(ctx context.Context, conn net.Conn, r *bufio.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.SetDeadline(time.Time{}); err != nil { // the server's
		cancel(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { cancel(f.tell(ctx, conn)) })
	cancel(f.listen(ctx, conn, r))
	wg.Wait()
	f.unwatch()
	return context.Cause(ctx)
}

// listen takes in what the member asks.
func (f *follower) listen(ctx context.Context, conn net.Conn, r *bufio.Reader) error {
	pace := rate.NewLimiter(askRate, askBurst) // who says more is not read, and waits
	for {
		if err := conn.SetReadDeadline(time.Now().Add(deafAfter)); err != nil {
			return err
		}
		head, body, err := readFrame(r, wire.MaxOther)
		if err != nil {
			return err
		}
		if err := pace.Wait(ctx); err != nil {
			return err
		}
		switch head.Type {
		case wire.FrameSelf:
			err = f.introduced(body)
		case wire.FrameFollow:
			err = f.watch(head.ID, body)
		case wire.FrameLeave:
			f.leave(head.ID)
		}
		if err != nil {
			f.all.x.metrics.refused.WithLabelValues("malformed").Inc()
			return err
		}
	}
}

// introduced learns where the member is reached.
func (f *follower) introduced(body []byte) error {
	ms, err := wire.ParseMembers(body)
	if err != nil {
		return err
	}
	if len(ms) != 1 {
		return fmt.Errorf("%w: it says that it is %d members", wire.ErrMalformed, len(ms))
	}
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	f.holder.Pieces, f.holder.Zone = wire.Dialable(ms[0].Pieces, f.teller), ms[0].Zone
	return nil
}

// watch notes that the member fills a blob, and follows it back.
func (f *follower) watch(id uint32, body []byte) error {
	d, size, err := wire.ParseFollow(body)
	if err != nil {
		return err
	}
	if !f.add(&watch{by: f, id: id, blob: d, size: size, due: true}) {
		return nil
	}
	for _, dr := range f.all.x.driving(d) {
		dr.search.meet(f.holder)
	}
	return nil
}

// add reports whether w was added; it is refused if there are too many.
func (f *follower) add(w *watch) bool {
	fs := f.all
	_, whole := fs.x.cache.Stat(w.blob)
	crowds := fs.x.crowding(w.blob)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	defer f.wake()
	f.forget(f.watches[w.id])
	// A whole blob costs one word, however many ask.
	if len(f.watches) >= maxWatches || !whole && fs.full(w, crowds) {
		f.refuse(w)
		return false
	}
	f.watches[w.id] = w
	if fs.blobs[w.blob] == nil {
		fs.blobs[w.blob] = make(map[*watch]struct{})
	}
	fs.blobs[w.blob][w] = struct{}{}
	return true
}

// refuse has the member told that w is not followed. all.mu is held.
func (f *follower) refuse(w *watch) {
	if len(f.refused) < maxWatches {
		f.refused = append(f.refused, w)
	}
	f.wake()
}

func (f *follower) leave(id uint32) {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	f.forget(f.watches[id])
}

// forget drops a watch, or nil. all.mu is held.
func (f *follower) forget(w *watch) {
	if w == nil {
		return
	}
	delete(f.watches, w.id)
	of := f.all.blobs[w.blob]
	if delete(of, w); len(of) == 0 {
		delete(f.all.blobs, w.blob)
	}
}

// unwatch drops all watches.
func (f *follower) unwatch() {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	for _, w := range f.watches {
		f.forget(w)
	}
}

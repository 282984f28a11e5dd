package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"shoal/blobcache/blob"
	"shoal/p2p/wire"
)

// session is the connection to a member whose blobs are followed.
type session struct {
	x      *Exchange
	holder Holder
	woken  chan struct{} // holds a value while out may have something
	heard  atomic.Bool   // a frame came since the last look
	kept   atomic.Bool   // stays open with nothing to follow
	teller netip.Addr    // of the other end; written before the first frame is read
	trip   atomic.Int64  // how long the connection took to open, a time.Duration

	mu     sync.Mutex
	over   bool // nothing can be added
	lastID uint32
	byID   map[uint32]*follow
	out    []byte // frames to be sent
}

// follow is a blob that is followed at one member.
type follow struct {
	want blob.Descriptor
	to   audience
	id   uint32 // guarded by session.mu
}

func newSession(x *Exchange, h Holder) *session {
	return &session{x: x, holder: h, woken: make(chan struct{}, 1), byID: make(map[uint32]*follow)}
}

// add reports whether f could be added: not to a connection that has ended.
func (s *session) add(f *follow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.lastID++
	f.id = s.lastID
	s.byID[f.id] = f
	s.send(wire.FrameFollow, f.id, wire.AppendFollow(nil, f.want.Digest, f.want.Size))
	return true
}

// leave ends a follow. What the member had said already may still be heard.
func (s *session) leave(f *follow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[f.id] == f {
		delete(s.byID, f.id)
		s.send(wire.FrameLeave, f.id, nil)
	}
}

// send queues a frame. mu is held.
func (s *session) send(t wire.FrameType, id uint32, body []byte) {
	s.out = wire.AppendFrame(s.out, t, id, body)
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// end tells everybody that nothing follows.
func (s *session) end(err error) {
	s.mu.Lock()
	s.over = true
	follows := s.byID
	s.byID = nil
	s.mu.Unlock()
	for _, f := range follows {
		f.to.hear(s.holder.Peer, said{err: err})
	}
}

// run talks to the member until ctx is done, the connection breaks, or nothing
// has been followed for a while. It returns why.
func (s *session) run(ctx context.Context) error {
	conn, r, err := s.x.client.upgrade(ctx, s.holder)
	if err != nil {
		return err
	}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		s.teller = a.AddrPort().Addr()
	}
	s.trip.Store(int64(conn.RoundTrip()))
	s.x.met.meet(s.holder.Peer).tripped(conn.RoundTrip())
	s.x.metrics.followed.Inc()
	defer s.x.metrics.followed.Dec()
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	wg.Go(func() { cancel(s.ask(ctx, conn)) })
	wg.Go(func() { cancel(s.watch(ctx)) })
	err = s.listen(ctx, r)
	cancel(err)
	return context.Cause(ctx)
}

// ask sends what is queued, and a beat when nothing is.
func (s *session) ask(ctx context.Context, conn net.Conn) error {
	self := s.x.swarm.Self()
	out := wire.AppendFrame(nil, wire.FrameSelf, 0, wire.MarshalMembers([]wire.Member{{Pieces: self.Pieces, Zone: self.Zone}}))
	beat := time.NewTicker(beatIdle)
	defer beat.Stop()
	for {
		s.mu.Lock()
		out = append(out, s.out...)
		s.out = s.out[:0]
		s.mu.Unlock()
		if len(out) > 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(sendTimeout)) // a closed connection fails at the write
			if _, err := conn.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.woken:
		case <-beat.C:
			out = wire.AppendFrame(out, wire.FrameBeat, 0, nil)
		}
	}
}

// errIdle ends a connection that nobody needs.
var errIdle = errors.New("nothing is followed")

// watch ends a connection that is silent or not needed. It counts looks and
// not time: while this process stands still nobody else is silent.
func (s *session) watch(ctx context.Context) error {
	const look = beatEvery / 2
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var silent, idle time.Duration
	for {
		before := idle
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
		s.mu.Lock()
		if idle += look; len(s.byID) > 0 {
			idle = 0
		}
		s.over = idle >= sessionIdle && !s.kept.Load()
		over := s.over
		s.mu.Unlock()
		silent += look
		if s.heard.Swap(false) || before > 0 && idle == 0 { // it owed less until now
			silent = 0
		}
		switch {
		case over:
			return errIdle
		case idle == 0 && silent >= s.x.limits.frozen, silent >= deafAfter:
			return errFrozen
		}
	}
}

// listen takes in what the member says.
func (s *session) listen(ctx context.Context, r *bufio.Reader) error {
	pace := rate.NewLimiter(hearRate, hearBurst) // who says more is not read, and waits
	for {
		head, body, err := readFrame(r, wire.MaxInfo)
		if err != nil {
			return err
		}
		s.heard.Store(true)
		if err := pace.WaitN(ctx, len(body)+frameCost); err != nil {
			return err
		}
		if err := s.take(head, body); err != nil {
			return fmt.Errorf("follow %s: %w", s.holder.Peer, err)
		}
	}
}

// take handles one frame.
func (s *session) take(head wire.FrameHead, body []byte) error {
	s.mu.Lock()
	f := s.byID[head.ID]
	if f != nil && head.Type == wire.FrameFull {
		delete(s.byID, head.ID)
	}
	s.mu.Unlock()
	if head.Type == wire.FrameMembers {
		return s.meet(f, body)
	}
	if f == nil {
		return nil // a beat, or about something that is not followed any more
	}
	var w said
	switch head.Type {
	case wire.FrameInfo:
		info, err := parseInfo(body, f.want.Size)
		if err != nil {
			return err
		}
		w.info = info
	case wire.FrameFilling:
		w.filling = true
	case wire.FrameNone:
		w.err = errGone
	case wire.FrameFull:
		w.err = errFull
	default:
		return nil
	}
	f.to.hear(s.holder.Peer, w)
	return nil
}

// parseInfo reads an Info about a blob that is wanted at that size, or at any
// if it is not known. At another size there are no bitmaps to read.
func parseInfo(body []byte, size int64) (wire.Info, error) {
	if size >= 0 && int64(len(body)) > wire.InfoLimit(size) {
		return wire.Info{}, fmt.Errorf("%w: %d bytes about a blob of %d", wire.ErrMalformed, len(body), size)
	}
	return wire.ParseInfo(body)
}

// meet passes on whom the member names.
func (s *session) meet(f *follow, body []byte) error {
	members, err := wire.ParseMembers(body)
	if err != nil || f == nil {
		return err
	}
	var others []Holder
	for _, m := range members {
		if m.ID.Validate() == nil {
			others = append(others, Holder{Peer: m.ID, Pieces: wire.Dialable(m.Pieces, s.teller), Zone: m.Zone})
		}
	}
	f.to.meet(others...)
	return nil
}

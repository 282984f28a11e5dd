package exchange

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/p2p/wire"
)

// tell sends what there is to say until ctx is done or the member does not
// take it.
func (f *follower) tell(ctx context.Context, conn net.Conn) error {
	const upgraded = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + wire.FollowProtocol + "\r\n\r\n"
	if err := f.send(conn, []byte(upgraded)); err != nil {
		return err
	}
	var b []byte
	last := time.Now()
	timer := time.NewTimer(beatEvery)
	defer timer.Stop()
	for {
		now := time.Now()
		var pause, beat time.Duration
		b, pause, beat = f.words(b[:0], now)
		if len(b) == 0 && now.Sub(last) >= beat {
			b = wire.AppendFrame(b, wire.FrameBeat, 0, nil)
		}
		if len(b) > 0 {
			if err := f.send(conn, b); err != nil {
				return err
			}
			last = now
			if err := wait(ctx, wordEvery); err != nil {
				return err
			}
		}
		timer.Reset(min(pause, beat-time.Since(last)))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.woken:
		case <-timer.C:
		}
	}
}

// send writes b, unless the member does not take it.
func (f *follower) send(conn net.Conn, b []byte) error {
	_ = conn.SetWriteDeadline(time.Now().Add(sendTimeout)) // a closed connection fails at the write
	_, err := conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		f.all.x.metrics.refused.WithLabelValues("slow").Inc()
	}
	return err
}

// words appends what is due to b. It returns how long what is due later has to
// wait, and how long the connection may be silent.
func (f *follower) words(b []byte, now time.Time) (_ []byte, pause, beat time.Duration) {
	due, refused, pause, beat := f.due(now)
	for _, w := range due {
		said := f.all.x.word(w.blob, w.size)
		if said.equal(w.last) {
			continue
		}
		b = wire.AppendFrame(b, said.kind, w.id, said.body)
		if w.last == nil {
			b = f.name(b, w)
		}
		w.last = said
		w.notYet = now.Add(time.Duration(len(said.body)) * time.Second / wordRate)
		f.all.x.metrics.told.Inc()
	}
	for _, w := range refused {
		b = wire.AppendFrame(f.name(b, w), wire.FrameFull, w.id, nil)
	}
	return b, pause, beat
}

// due takes the watches of which there may be news.
func (f *follower) due(now time.Time) (due, refused []*watch, wait, beat time.Duration) {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	wait, beat = beatIdle, beatIdle
	if len(f.watches) > 0 {
		beat = beatEvery
	}
	for _, w := range f.watches {
		switch {
		case !w.due:
		case now.Before(w.notYet):
			wait = min(wait, w.notYet.Sub(now))
		default:
			w.due = false
			due = append(due, w)
		}
	}
	refused, f.refused = f.refused, nil
	return due, refused, wait, beat
}

// name appends the names of others who fill what w asks for, or have it.
func (f *follower) name(b []byte, w *watch) []byte {
	others := f.all.x.companions(w.blob, f.holder.Peer)
	if len(others) == 0 {
		return b
	}
	return wire.AppendFrame(b, wire.FrameMembers, w.id, wire.MarshalMembers(others))
}

// companions returns some of the members that are known to fill a blob or to
// have it, in no order, and not the member that wants to know.
func (x *Exchange) companions(d digest.Digest, not peer.ID) []wire.Member {
	known := x.followers.of(d)
	for _, dr := range x.driving(d) {
		known = append(known, dr.search.holders()...)
	}
	var others []wire.Member
	for _, h := range known {
		same := func(m wire.Member) bool { return m.ID == h.Peer }
		if h.Peer == not || len(h.Pieces) == 0 || slices.ContainsFunc(others, same) {
			continue
		}
		if others = append(others, wire.Member{ID: h.Peer, Pieces: h.Pieces, Zone: h.Zone}); len(others) == wire.MaxMembers {
			break
		}
	}
	return others
}

package exchange

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/p2p/wire"
)

// byTCP are streams to one member: connections to its piece channel that m's
// client did not open.
type byTCP struct {
	to     *member
	way    atomic.Int64
	opened atomic.Int64
}

func (s *byTCP) Way(peer.ID) Way { return Way(s.way.Load()) }

func (s *byTCP) Open(ctx context.Context, _ peer.ID) (net.Conn, error) {
	s.opened.Add(1)
	return new(net.Dialer).DialContext(ctx, "tcp", s.to.addr)
}

// TestBetterWay: what a relay carries comes to its end, and nothing new is asked
// for over it once there is a better way. Nobody notices.
func TestBetterWay(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	d := holder.seed(content(1, mib))
	s := &byTCP{to: holder}
	m.client.streams = s
	s.way.Store(int64(Relayed))
	unknown := Holder{Peer: holder.id} // whose addresses nobody knows
	if !m.far(unknown) {
		t.Error("a relayed member is not far")
	}
	info := func() {
		t.Helper()
		if i, err := m.client.info(t.Context(), unknown, d); err != nil || !i.Whole {
			t.Fatalf("%+v, %v", i, err)
		}
	}
	info()
	info()
	running, err := m.client.pieces(t.Context(), holder.id, wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	if n := s.opened.Load(); n != 1 {
		t.Errorf("%d streams for three requests", n)
	}
	s.way.Store(int64(Stream))
	if n, err := io.Copy(io.Discard, running.body); err != nil || n != mib {
		t.Errorf("what was on its way: %d bytes, %v", n, err)
	}
	running.body.Close()
	info()
	info()
	if n := s.opened.Load(); n != 2 {
		t.Errorf("%d streams, want the relayed one and the better one", n)
	}
	if m.far(unknown) {
		t.Error("a member that is not relayed is far")
	}
}

// TestMemberThatCannotBeDialled is reached by a stream, and for a while by
// nothing else; one that is not the member that was asked for is not.
func TestMemberThatCannotBeDialled(t *testing.T) {
	mesh := newMesh(t)
	holder, m, other := mesh.member(nil), mesh.member(nil), mesh.member(nil)
	d := holder.seed(content(1, 10))
	walled := Holder{Peer: holder.id, Pieces: []string{"127.0.0.1:1"}}
	if _, err := m.client.info(t.Context(), walled, d); err == nil {
		t.Fatal("reached without a way")
	}
	s := &byTCP{to: holder}
	m.client.streams = s
	if _, err := m.client.info(t.Context(), walled, d); err != nil {
		t.Fatal(err)
	}
	if !m.client.isDeaf(holder.id) || s.opened.Load() != 1 {
		t.Errorf("deaf %v, %d streams", m.client.isDeaf(holder.id), s.opened.Load())
	}
	if _, err := m.client.info(t.Context(), Holder{Peer: other.id, Pieces: walled.Pieces}, d); err == nil {
		t.Error("another member answered")
	}
	conn, _, err := m.client.upgrade(t.Context(), walled) // to follow it
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

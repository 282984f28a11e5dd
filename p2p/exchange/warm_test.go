package exchange

import (
	"context"
	"encoding/binary"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache"
)

// Connections to members are there before anything is followed, are kept, and
// come back after they broke; members that do not answer are left alone.
func TestConnectionsAreKeptWarm(t *testing.T) {
	mesh := newMesh(t)
	members := mesh.crowd(3)
	m, other, gone := members[0], members[1], members[2]
	gone.stop()
	for range 2 { // again after it broke
		m.follows.keep(m.near)
		eventually(t, "no connection", func() bool { return m.metric("shoal_p2p_followed", "") == 1 && m.silent.Holds(gone.id, time.Now()) })
		m.follows.keep(m.near)
		warm := m.follows.warm()
		if len(warm) != 1 || !warm[other.id] {
			t.Errorf("connected to %v", warm)
		}
		if got := m.follows.sessions[other.id].kept.Load(); !got {
			t.Error("it is not kept")
		}
		other.close()
		eventually(t, "its end was not noticed", func() bool { return len(m.follows.warm()) == 0 })
		other.open(blobcache.Options{})
		m.silent.Pardon(other.id)
	}
}

// Of many members the same ones are followed each time.
func TestNearMembersStayTheSame(t *testing.T) {
	mesh := newMesh(t)
	m, other := mesh.member(nil), mesh.member(nil)
	for i := range 3 * MaxNear {
		m.near = append(m.near, Holder{Peer: peer.ID(binary.BigEndian.AppendUint32(nil, uint32(i)))})
	}
	m.near = append(m.near, other.holder())
	m.follows.keep([]Holder{other.holder()})
	near, connected := m.Exchange.near()
	if len(near) != MaxNear || connected != 3*MaxNear+1 || near[0].Peer != other.id {
		t.Errorf("%d of %d, %v first", len(near), connected, near[0].Peer)
	}
}

// Connections for pieces are kept to the same few members, which are followed,
// and used in time to stay open.
func TestConnectionsForPiecesAreFew(t *testing.T) {
	var w warmth
	var all []Holder
	followed := map[peer.ID]bool{}
	for i := range 6 {
		h := Holder{Peer: peer.ID(rune('a' + i))}
		all, followed[h.Peer] = append(all, h), i != 1
	}
	now := time.Now()
	due := func(after time.Duration, near ...Holder) (ids string) {
		for _, h := range w.due(now.Add(after), near, followed, 3) {
			ids += string(h.Peer)
		}
		return ids
	}
	if got := due(0, all...); got != "acd" {
		t.Errorf("first %q, want those three that are followed", got)
	}
	if got := due(touchEvery-1, all...); got != "" {
		t.Errorf("%q before it is time", got)
	}
	if got := due(touchEvery, all[2:]...); got != "cde" {
		t.Errorf("%q, want those that are open and another for the one that went", got)
	}
	if w.has("a") || !w.has("e") {
		t.Error("it is not known to whom a connection is open")
	}
}

// A fill begins over connections that are there, and opens none.
func TestPiecesComeOverWarmConnections(t *testing.T) {
	mesh := newMesh(t)
	var opened sync.Map // remote addresses of requests
	seeder := mesh.member(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			opened.Store(r.RemoteAddr, r.URL.Path)
			h.ServeHTTP(w, r)
		})
	})
	d := seeder.seed(content(1, mib)) // has no chain to be asked for at the same time
	m := mesh.member(nil)
	m.near = []Holder{seeder.holder()}
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.KeepWarm(ctx) }()
	count := func() (n int) {
		opened.Range(func(any, any) bool { n++; return true })
		return n
	}
	eventually(t, "no connections", func() bool { m.follows.keep(m.near); return m.warmth.has(seeder.id) && count() == 2 })
	m.touch(t.Context(), seeder.holder()) // when this has its answer a connection is free
	before := count()
	f, err := m.Fetch(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-f.Done()
	if f.Err() != nil || count() != before {
		t.Errorf("%d connections, not the %d that were open; %v", count(), before, f.Err())
	}
	end()
	<-done
}

package exchange

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/blob"
)

func TestWhoBeganFirst(t *testing.T) {
	m := newMesh(t).member(nil)
	s := newSearch(m.Exchange, blob.Descriptor{Digest: describe([]byte("x")).Digest, Size: blob.UnknownSize})
	for _, id := range []peer.ID{"asked here before", "filled it when it was asked", "did not", "left"} {
		s.asked[id] = &asked{waiting: true}
	}
	s.asked["asked here before"].earlier = true
	filling, none := said{filling: true}, said{err: errGone}
	s.hear("asked here before", none) // it knows now that this node fills it, too
	s.hear("asked here before", filling)
	s.hear("filled it when it was asked", filling)
	s.hear("did not", none)
	s.hear("did not", filling)
	s.hear("left", filling)
	s.hear("left", none)
	earlier, same := s.rivals()
	if earlier != 1 || !slices.Equal(same, []peer.ID{"filled it when it was asked"}) {
		t.Errorf("%d were first, and at the same moment came %v", earlier, same)
	}
}

// TestBeginKnowsWhoAsked: a member that asked before the fill began was first.
func TestBeginKnowsWhoAsked(t *testing.T) {
	mesh := newMesh(t)
	m, other := mesh.member(nil), mesh.member(nil)
	s := newSearch(m.Exchange, blob.Descriptor{Digest: describe([]byte("x")).Digest, Size: blob.UnknownSize})
	defer s.leaveAll()
	s.begin([]Holder{{Peer: other.id, Pieces: []string{other.addr}}})
	if a := s.asked[other.id]; a == nil || !a.earlier {
		t.Errorf("%+v", a)
	}
}

// TestSizeTurns: two may ask while an answer takes its time.
func TestSizeTurns(t *testing.T) {
	const turn = 100 * time.Millisecond
	var got []time.Duration
	for rank := range 4 {
		got = append(got, sizeTurn(rank, turn))
	}
	if want := []time.Duration{0, turn, 10 * turn, 20 * turn}; !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", fmt.Sprint(got), fmt.Sprint(want))
	}
}

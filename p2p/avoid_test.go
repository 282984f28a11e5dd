package p2p

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

func randomID(t *testing.T) peer.ID {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestAvoidance(t *testing.T) {
	var a avoidance
	now := time.Unix(1e9, 0)
	dead, other := randomID(t), randomID(t)
	for _, wait := range []int{5, 10, 20, 40, 80, 120, 120} {
		if !a.mayTry(dead, now) {
			t.Fatal("left alone for too long")
		}
		a.fail(dead, now)
		now = now.Add(time.Duration(wait)*time.Second - 1)
		if a.mayTry(dead, now) {
			t.Fatalf("tried again within %d s", wait)
		}
		now = now.Add(1)
	}
	if !a.mayTry(other, now) {
		t.Error("another member suffers")
	}
	a.fail(dead, now)
	a.clear(dead)
	if !a.mayTry(dead, now) {
		t.Error("still left alone after it came back")
	}
}

func TestAvoidanceIsBounded(t *testing.T) {
	var a avoidance
	now := time.Unix(1e9, 0)
	for range 2 * maxAvoided {
		a.fail(randomID(t), now)
	}
	if len(a.failed) != maxAvoided {
		t.Errorf("%d failures remembered", len(a.failed))
	}
	// Those that have run out make room.
	late := randomID(t)
	a.fail(late, now.Add(avoidMost))
	if len(a.failed) != 1 || a.mayTry(late, now.Add(avoidMost)) {
		t.Errorf("%d failures remembered", len(a.failed))
	}
}

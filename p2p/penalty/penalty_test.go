package penalty

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

var terms = Terms{First: 5 * time.Second, Most: 30 * time.Second, Members: 4}

func TestPenaltiesDouble(t *testing.T) {
	b := NewBox(terms)
	now := time.Unix(1e9, 0)
	for _, seconds := range []int{5, 10, 20, 30, 30} {
		want := time.Duration(seconds) * time.Second
		if b.Holds("x", now) {
			t.Fatal("left alone without a reason, or for too long")
		}
		if got := b.Add("x", now); got != want {
			t.Fatalf("a penalty of %v, want %v", got, want)
		}
		if got := b.Add("x", now.Add(want-1)); got != 0 {
			t.Errorf("a penalty of %v within another", got)
		}
		if !b.Holds("x", now.Add(want-1)) {
			t.Errorf("over before %v", want)
		}
		now = now.Add(want)
	}
	if b.Holds("x", now) || b.Holds("y", now) {
		t.Error("for too long, or the wrong member")
	}
}

func TestPardon(t *testing.T) {
	b := NewBox(terms)
	now := time.Unix(1e9, 0)
	b.Add("x", now)
	b.Add("y", now)
	b.Pardon("x")
	if b.Holds("x", now) || !b.Holds("y", now) {
		t.Error("the wrong member is pardoned, or none")
	}
	if got := b.Add("x", now); got != terms.First {
		t.Errorf("a penalty of %v after the pardon", got)
	}
}

// TestMemoryIsBounded, and a fresh penalty is never lost to an older one.
func TestMemoryIsBounded(t *testing.T) {
	b := NewBox(terms)
	now := time.Unix(1e9, 0)
	id := func(i int) peer.ID { return peer.ID(fmt.Sprint(i)) }
	for i := range 10 {
		b.Add(id(i), now.Add(time.Duration(i)))
		if !b.Holds(id(i), now.Add(time.Duration(i))) {
			t.Fatal("a full box takes nobody in")
		}
	}
	for i := range 10 {
		if last := i >= 6; b.Holds(id(i), now) != last {
			t.Errorf("number %d is remembered: %v", i, !last)
		}
	}
	now = now.Add(terms.First + 7) // the penalties of 6 and 7 are over
	b.Add("late", now)
	if len(b.members) != 3 || !b.Holds(id(8), now) || !b.Holds("late", now) {
		t.Errorf("%d members remembered, or not those with a penalty", len(b.members))
	}
}

func TestRunning(t *testing.T) {
	b := NewBox(terms)
	now := time.Unix(1e9, 0)
	b.AddFor("x", now, "late")
	b.Add("y", now.Add(time.Second))
	b.AddFor("x", now.Add(time.Second), "late again") // it stays as it is
	got := b.Running(now.Add(terms.First - 1))
	if len(got) != 2 || !slices.Contains(got, Penalty{"x", "late", now.Add(terms.First)}) {
		t.Errorf("%+v", got)
	}
	if got := b.Running(now.Add(terms.First)); len(got) != 1 || got[0] != (Penalty{"y", "", now.Add(time.Second + terms.First)}) {
		t.Errorf("%+v", got)
	}
}

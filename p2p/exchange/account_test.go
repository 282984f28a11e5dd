package exchange

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"
)

func name(i int) digest.Digest { return digest.FromString(fmt.Sprint(i)) }

func TestFlow(t *testing.T) {
	now := time.Unix(1e9, 0)
	var f flow
	add := func(blob int, bytes int64, took time.Duration) {
		f.add(name(blob), bytes, now, now.Add(took))
		now = now.Add(took)
	}
	check := func(bytes, blobs int64, rate float64) {
		t.Helper()
		if got := f.flow(); got.Bytes != bytes || got.Blobs != blobs || got.Rate < 0.99*rate || got.Rate > 1.01*rate {
			t.Errorf("%+v, want %d bytes of %d blobs at %.0f/s", got, bytes, blobs, rate)
		}
	}
	check(0, 0, 0)
	add(1, 0, time.Second)
	check(0, 0, 0) // nothing came
	for range 3 {
		add(1, 1000, time.Second)
		add(2, 1000, time.Second)
	}
	check(6000, 2, 1000)
	now = now.Add(time.Hour) // the rate is that of the last run, however long ago
	check(6000, 2, 1000)
	add(1, 5000, time.Second)
	check(11000, 2, 5000)
	for range 60 { // and follows what changes
		add(1, 100, time.Second)
	}
	check(17000, 2, 100)
	for i := range 100 {
		add(10+i, 1, 0)
		add(1, 1, 0)
	}
	if got := f.flow(); got.Blobs != 102 || len(f.recent) > maxRecent {
		t.Errorf("%d blobs, of which %d are remembered", got.Blobs, len(f.recent))
	}
}

// Both sides of a trade say the same, and how far apart they are.
func TestTrades(t *testing.T) {
	data := content(1, 6*mib+1)
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	d := holder.seed(data)
	m.mustPull(data, nil)
	holder.served() // it is done with all of it
	taken, given := m.tradeWith(holder), holder.tradeWith(m)
	if taken.Taken.Bytes != d.Size || taken.Taken.Blobs != 1 || taken.Taken.Rate <= 0 || taken.Given != (Flow{}) || taken.Ban != nil {
		t.Errorf("taken: %+v", taken)
	}
	if given.Given.Bytes != d.Size || given.Given.Blobs != 1 || given.Given.Rate <= 0 || given.Taken != (Flow{}) {
		t.Errorf("given: %+v", given)
	}
	// Known of both kinds of connections.
	for _, trip := range []time.Duration{taken.RoundTrip, m.met.meet(holder.id).trade().RoundTrip, m.follows.trips()[holder.id]} {
		if trip <= 0 || trip > time.Minute {
			t.Errorf("round trip %v", trip)
		}
	}
	m.convict(holder.id, "piece", d.Digest, 3)
	m.convict("never met", "size", d.Digest, -1)
	for id, about := range map[peer.ID]string{holder.id: "piece 3 of " + d.Digest.String(), "never met": "size of " + d.Digest.String()} {
		ban := m.tradeWith(&member{id: id}).Ban
		if ban == nil || ban.Why != about || !ban.Until.After(time.Now()) {
			t.Errorf("ban %+v, want one about %s", ban, about)
		}
	}
	m.slow.Add("slow", time.Now())
	m.silent.Add("silent", time.Now())
	for _, tr := range m.Trades() {
		if !tr.Slow.IsZero() != (tr.Peer == "slow") || !tr.Silent.IsZero() != (tr.Peer == "silent") {
			t.Errorf("%s: slow until %v, silent until %v", tr.Peer, tr.Slow, tr.Silent)
		}
	}
	if m.met.know("never met") {
		t.Error("who is banned is met")
	}
}

func (m *member) tradeWith(other *member) Trade {
	for _, tr := range m.Trades() {
		if tr.Peer == other.id {
			return tr
		}
	}
	return Trade{}
}

// However many members there are, so many are remembered.
func TestAccountsAreBounded(t *testing.T) {
	a, err := newAcquaintances("self")
	if err != nil {
		t.Fatal(err)
	}
	first := a.meet("0")
	for i := range maxMet + 100 {
		a.meet(peer.ID(fmt.Sprint(i))).took(name(i), 1, time.Now(), time.Now())
		a.meet("0") // is met again and again
	}
	if a.met.Len() != maxMet || a.meet("0") != first {
		t.Errorf("%d accounts, and the first is a new one: %v", a.met.Len(), a.meet("0") != first)
	}
}

func BenchmarkAccount(b *testing.B) {
	a, err := newAcquaintances("self")
	if err != nil {
		b.Fatal(err)
	}
	now, d := time.Now(), name(1)
	b.ReportAllocs()
	for i := range b.N {
		a.meet("x").took(d, 1<<20, now.Add(time.Duration(i)), now.Add(time.Duration(i+1)))
	}
}

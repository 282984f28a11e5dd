package exchange

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/p2p/penalty"
)

const (
	// maxRecent is how many blobs an account remembers in each direction, so
	// that it counts none twice: some more than a node fills at once.
	maxRecent = 16
	// lull is the pause after which a rate is measured anew: longer than
	// between two pieces, shorter than between two pulls.
	lull = 2 * time.Second
	// rateSpan is the longest time that a rate is the mean of, half of it at
	// least: long enough to be steady, short enough to be of now.
	rateSpan = 10 * time.Second
)

// Trade is what this member had to do with another one, for people to look at.
type Trade struct {
	Peer         peer.ID
	Taken, Given Flow
	// RoundTrip is the shortest time in which a connection to it was opened;
	// zero if none was.
	RoundTrip time.Duration
	Ban       *penalty.Penalty // nil if there is none
	// Slow and Silent are until when nobody waits for it, because it was slower
	// than a registry or did not answer; zero if it is not so.
	Slow, Silent time.Time
}

// Flow is what went in one direction.
type Flow struct {
	Bytes int64 // of pieces
	Blobs int64 // that they belong to; counted again when others came between
	// Rate is what the last run of pieces came to, in bytes a second; Last is
	// when it ended. Both are zero before the first.
	Rate float64
	Last time.Time
}

// Trades lists the members that this one met on the piece channel, connected
// to, banned or not waited for, in no order. Those met longest ago are forgotten
// beyond maxMet; a ban is not.
func (x *Exchange) Trades() []Trade {
	trades := make(map[peer.ID]Trade)
	for _, id := range x.met.met.Keys() {
		if a, ok := x.met.met.Peek(id); ok {
			trades[id] = a.trade()
		}
	}
	for id, trip := range x.follows.trips() {
		t := trades[id]
		t.RoundTrip = shorter(t.RoundTrip, trip)
		trades[id] = t
	}
	for box, note := range map[*penalty.Box]func(*Trade, penalty.Penalty){
		x.bans:   func(t *Trade, p penalty.Penalty) { t.Ban = &p },
		x.slow:   func(t *Trade, p penalty.Penalty) { t.Slow = p.Until },
		x.silent: func(t *Trade, p penalty.Penalty) { t.Silent = p.Until },
	} {
		for _, p := range box.Running(time.Now()) {
			t := trades[p.Member]
			note(&t, p)
			trades[p.Member] = t
		}
	}
	all := make([]Trade, 0, len(trades))
	for id, t := range trades {
		t.Peer = id
		all = append(all, t)
	}
	return all
}

// trips returns the round trips of the connections that are open.
func (fs *follows) trips() map[peer.ID]time.Duration {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	trips := make(map[peer.ID]time.Duration, len(fs.sessions))
	for id, s := range fs.sessions {
		trips[id] = time.Duration(s.trip.Load())
	}
	return trips
}

// account is the book of what was traded with a member. It is written once for
// each piece that came and each answer that was sent.
type account struct {
	mu           sync.Mutex
	taken, given flow
	trip         time.Duration
}

// took notes bytes of a piece that came since the member was asked.
func (a *account) took(d digest.Digest, bytes int64, begun, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken.add(d, bytes, begun, now)
}

// gave notes bytes of an answer.
func (a *account) gave(d digest.Digest, bytes int64, begun, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.given.add(d, bytes, begun, now)
}

// tripped notes how long a connection took to open.
func (a *account) tripped(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trip = shorter(a.trip, d)
}

func (a *account) trade() Trade {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Trade{Taken: a.taken.flow(), Given: a.given.flow(), RoundTrip: a.trip}
}

// shorter returns the shorter of two round trips, of which zero is none.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// flow counts what goes in one direction.
type flow struct {
	bytes, blobs int64
	recent       []uint64 // blobs by the beginning of their digests, the last one last; maxRecent at most

	// The last run: so many bytes from since until last.
	run         float64
	since, last time.Time
}

// add counts bytes of a blob that went between begun and now.
func (f *flow) add(d digest.Digest, bytes int64, begun, now time.Time) {
	if bytes == 0 {
		return
	}
	f.bytes += bytes
	name, _ := strconv.ParseUint(d.Encoded()[:16], 16, 64) // a digest that was parsed before
	i := slices.Index(f.recent, name)
	if i < 0 {
		f.blobs++
	}
	if i >= 0 || len(f.recent) == maxRecent {
		f.recent = slices.Delete(f.recent, max(0, i), max(0, i)+1)
	}
	f.recent = append(f.recent, name)
	if begun.Sub(f.last) > lull {
		f.since, f.run = begun, 0
	}
	f.run += float64(bytes)
	f.last = now
	if span := now.Sub(f.since); span > rateSpan { // the older half counts no more
		f.since, f.run = now.Add(-span/2), f.run/2
	}
}

func (f *flow) flow() Flow {
	out := Flow{Bytes: f.bytes, Blobs: f.blobs, Last: f.last}
	if span := f.last.Sub(f.since); span > 0 {
		out.Rate = f.run / span.Seconds()
	}
	return out
}

package exchange

import (
	"bytes"
	"time"

	"github.com/bits-and-blooms/bitset"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/p2p/wire"
)

const (
	// tellEvery is the shortest time between two words about a fill: what
	// changes meanwhile goes out together.
	tellEvery = 10 * time.Millisecond
	// tellProgress is the same while nothing but the progress changes: it is
	// the pulse by which others see that an origin request lives.
	tellProgress = 200 * time.Millisecond
)

// word is what this node says about a blob at a moment: a frame without its
// ID. It never changes, so that one serves all followers.
type word struct {
	kind wire.FrameType
	body []byte
}

func (w *word) equal(o *word) bool {
	return o != nil && w.kind == o.kind && bytes.Equal(w.body, o.body)
}

// board is what a driver last had to say to its followers; part of driver.
type board struct {
	chain  bool          // there is a chain to give
	claims bitset.BitSet // that were told, with what comes from other zones
	untold bool          // something may have changed since
	at     time.Time     // when it was said
	info   []byte        // what was said, without the progress
	bytes  int64         // the progress that was said
}

// filling is what is said of a fill that has just begun: there is more to come
// in a moment, or when the size is known.
func filling() *word { return &word{kind: wire.FrameFilling} }

// tell says what has changed, if it is time to, and returns when to try again
// if it is not.
func (d *driver) tell() time.Duration {
	if !d.board.untold {
		return tick
	}
	since := time.Since(d.board.at)
	if since < tellEvery && !d.claimsMore() {
		return tellEvery - since
	}
	info := d.state()
	state := info.Marshal()
	progress := d.bytes.read
	switch {
	case !bytes.Equal(state, d.board.info):
	case progress == d.board.bytes:
		d.board.untold = false
		return tick
	case since < tellProgress:
		return tellProgress - since
	}
	info.Claims.CopyFull(&d.board.claims)
	d.board.claims.InPlaceUnion(info.Inbound)
	d.board = board{chain: d.board.chain, claims: d.board.claims, at: time.Now(), info: state, bytes: progress}
	info.Progress = progress
	d.said.Store(&word{wire.FrameInfo, info.Marshal()})
	d.x.followers.changed(d.want.Digest)
	return tick
}

// claimsMore reports whether there are claims that nobody has heard of. These
// do not wait: until they are told, somebody else may ask for the same.
func (d *driver) claimsMore() bool {
	told := &d.board.claims
	return d.plan.Claims().DifferenceCardinality(told) > 0 || d.plan.Inbound().DifferenceCardinality(told) > 0
}

// state is what others need to know of the fill, without the progress.
func (d *driver) state() wire.Info {
	have, proven, vouched := inventory(d.fill)
	info := wire.Info{
		Size: d.want.Size, Chain: d.board.chain, Have: have, Proven: proven, Vouched: vouched, Claims: d.plan.Claims(), Inbound: d.plan.Inbound(),
		Volunteer: d.volunteered, Origin: wire.Origin(d.plan.Serving()),
	}
	if d.origins.current() == nil {
		info.Volunteer, info.Origin = false, wire.OriginUnreachable
	}
	return info
}

// word returns what this node has to say about a blob that a member believes
// to be of size bytes, or of unknown size.
func (x *Exchange) word(d digest.Digest, size int64) *word {
	if x.hidden(d) {
		return &word{kind: wire.FrameNone}
	}
	if have, ok := x.cache.Stat(d); ok {
		info := wire.Info{Size: have.Size, Whole: true}
		_, info.Chain = x.cache.Chain(blob.Descriptor{Digest: d, Size: have.Size})
		return &word{wire.FrameInfo, info.Marshal()}
	}
	for _, dr := range x.driving(d) {
		if known := dr.size.Load(); known == size || known < 0 || size < 0 {
			return dr.said.Load()
		}
	}
	return &word{kind: wire.FrameNone}
}

// driving returns the drivers of a blob; there are several if its size is in
// dispute.
func (x *Exchange) driving(d digest.Digest) []*driver {
	x.mu.Lock()
	defer x.mu.Unlock()
	var drivers []*driver
	for k, dr := range x.drivers {
		if k.digest == d {
			drivers = append(drivers, dr)
		}
	}
	return drivers
}

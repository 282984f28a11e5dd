package exchange

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/blob"
	"shoal/p2p/plan"
	"shoal/p2p/wire"
)

// maxMembers is how many members can be part of one plan, whatever
// plan.Degrees say. maxWholes is how many of them may have the whole: these are
// enough for any link, and few enough to keep their connections warm.
const (
	maxMembers = 64
	maxWholes  = 10
)

// leftFor is how long a member that failed, or had not what it said, is left
// out of the plan, whatever it says meanwhile.
const leftFor = 10 * time.Second

// listen takes in what members said since the last time.
func (d *driver) listen() {
	news := d.search.take()
	if len(news) > 0 {
		d.look()
	}
	for _, f := range news {
		d.found(f)
	}
}

// look takes in how large the swarm is.
func (d *driver) look() {
	_, others := d.x.swarm.Near(0)
	d.small, d.smallZone = d.x.limits.degrees.Small(others+1), d.x.smallZone()
}

// found takes in what a member said.
func (d *driver) found(f found) {
	id := f.holder.Peer
	src := d.sources[id]
	switch {
	case d.x.bans.Holds(id, time.Now()):
		return
	case f.err != nil:
		d.silent(id, f.err)
		if src != nil {
			d.forget(src)
		}
		return
	case f.filling: // and that is all that it knows
		d.plan.Accompany()
		return
	case f.info.Size != d.want.Size:
		d.log.Debug("member says another size", "peer", id, "size", f.info.Size)
		if f.info.Whole {
			d.sizes[id] = f.info.Size
		}
		return
	}
	if src == nil {
		d.lastID++
		src = &source{id: d.lastID, moved: time.Now(), far: d.x.far(f.holder)}
		d.sources[id] = src
		d.byID[src.id] = src
		if d.volunteered && !f.info.Volunteer {
			d.x.followers.trim(d.want.Digest)
		}
	}
	if f.info.Progress > src.info.Progress || !f.info.Whole && src.info.Have != nil && f.info.Have.Count() > src.info.Have.Count() {
		src.moved = time.Now()
	}
	src.holder, src.info, src.whole = f.holder, f.info, f.info.Whole
	switch {
	case src.joined:
		d.offer(src)
	case d.room(src):
		d.join(src)
	case src.whole || src.refused || src.tried || time.Now().Before(src.rest):
		// It does not go on talking, or the fill has to remember it.
	default:
		d.spare(src)
		return
	}
}

// askChains asks those of whom it has become known for their chains.
func (d *driver) askChains(ctx context.Context) {
	if d.fill.Trusts() {
		return
	}
	for id, src := range d.sources {
		if src.joined && !src.chained && hasChain(src.info) {
			src.chained = true
			d.io.Go(func() { d.fetchChain(ctx, id) })
		}
	}
}

// silent notes why a member says nothing.
func (d *driver) silent(id peer.ID, err error) {
	switch {
	case errors.Is(err, errGone):
	case errors.Is(err, errLie), errors.Is(err, wire.ErrMalformed):
		d.log.Warn("member breaks the protocol", "peer", id, "error", err)
	default:
		d.log.Debug("member does not answer", "peer", id, "error", err)
	}
}

// join makes a member part of the plan if there is room.
func (d *driver) join(src *source) {
	if src.joined || src.refused || d.solo != nil && d.solo != src || time.Now().Before(src.rest) || !d.room(src) {
		return
	}
	if src.far && !d.abroad() {
		return
	}
	src.joined = true
	d.plan.Join(src.id, ownership(string(src.holder.Peer)), src.far)
	d.offer(src)
}

// offer tells the plan what a member says.
func (d *driver) offer(src *source) {
	has := src.info.Proven
	if src.info.Vouched != nil {
		has = has.Union(src.info.Vouched)
	}
	d.plan.Told(d.now(), src.id, plan.State{
		Whole: src.whole, Has: has, Claims: src.info.Claims, Inbound: src.info.Inbound,
		Progress: src.info.Progress, Volunteer: src.info.Volunteer, Origin: plan.Serving(src.info.Origin),
	})
	if src.whole || has.Any() {
		d.settle(nil)
	}
}

// ownership is the number that stands for a member, or a blob, where members
// compute alike who fetches what from the origin.
func ownership(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}

// room reports whether the plan takes another member.
func (d *driver) room(src *source) bool {
	volunteers, others, wholes := d.joined()
	side := src.side()
	switch {
	case volunteers+sum(others)+sum(wholes) >= maxMembers:
		return false
	case src.whole:
		return wholes[side] < maxWholes
	case d.small || d.smallZone && side == within:
		return true
	}
	return d.x.limits.degrees.Room(d.volunteered && src.info.Volunteer, volunteers, others[side])
}

// joined counts the members that are part of the plan: those that volunteer as
// this node does, others, and those that have the whole.
func (d *driver) joined() (volunteers int, others, wholes sides) {
	for _, s := range d.sources {
		switch {
		case !s.joined:
		case s.whole:
			wholes[s.side()]++
		case d.volunteered && s.info.Volunteer:
			volunteers++
		default:
			others[s.side()]++
		}
	}
	return volunteers, others, wholes
}

// spare lets a member that finds no room go: it has room for followers that
// need it. It is asked again when others have gone (fillUp).
func (d *driver) spare(src *source) {
	delete(d.sources, src.holder.Peer)
	delete(d.byID, src.id)
	d.search.spare(src.holder.Peer)
}

// bench takes a member out of the plan; its requests are broken off.
func (d *driver) bench(src *source) {
	if !src.joined {
		return
	}
	src.joined = false
	d.plan.Gone(d.now(), src.id)
	for id, f := range d.flights {
		if f.Member == src.id {
			d.cancel(id)
		}
	}
}

// leave takes a member that failed out of the plan for a while, and lets
// another in.
func (d *driver) leave(src *source) {
	src.rest, src.failed, src.odd = time.Now().Add(leftFor), 0, 0
	d.bench(src)
	if d.solo == src {
		d.chooseSolo()
	}
	d.fillUp()
}

// forget takes out a member that has nothing any more, or is gone.
func (d *driver) forget(src *source) {
	delete(d.sources, src.holder.Peer)
	delete(d.byID, src.id)
	d.leave(src)
}

// fillUp lets members in that had to wait, and asks spare ones again, also in
// place of one that has little.
func (d *driver) fillUp() {
	d.makeWay()
	for _, s := range d.sources {
		if !s.joined {
			d.join(s)
		}
	}
	if _, others, _ := d.joined(); !d.plan.Done() {
		degree := d.x.limits.degrees.Degree
		d.search.recall(sides{degree - others[within], degree - others[outside]})
	}
}

// ban convicts a member and takes it out.
func (d *driver) ban(id peer.ID, reason string, piece int) {
	d.x.convict(id, reason, d.want.Digest, piece)
	if src := d.sources[id]; src != nil {
		d.forget(src)
	}
}

// hasChain reports whether a chain helps: a blob of one piece has none.
func hasChain(i wire.Info) bool { return i.Chain && blob.PieceCount(i.Size) > 1 }

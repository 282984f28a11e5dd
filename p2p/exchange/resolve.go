package exchange

import (
	"context"
	"fmt"
	"time"

	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
	"shoal/p2p/plan"
	"shoal/p2p/wire"
)

// reopenEvery is the pause before an origin that failed is asked for the size
// again.
const reopenEvery = 500 * time.Millisecond

// opening is the attempt to learn the size from the origin.
type opening struct {
	result chan openResult
	cancel context.CancelFunc
}

type openResult struct {
	stream *opened
	err    error
}

// resolve learns the size of the blob, from the first member that says one, or
// from the origin. It returns what members said meanwhile. Of members that all
// want to know only one asks the origin: the others wait for their turn.
func (d *driver) resolve(ctx context.Context) ([]found, error) {
	var known []found
	var o opening // its channel is nil while nothing is being opened
	defer func() { d.abandon(o) }()
	var notBefore time.Duration
	const look = 5 * time.Millisecond
	timer := time.NewTicker(look)
	defer timer.Stop()
	for armed := time.Now(); ; armed = time.Now() {
		src := d.origins.current()
		d.pledge(src != nil)
		if src != nil && o.result == nil && d.now() >= notBefore && d.originsTurn() && d.now() >= d.mySizeTurn() {
			o = d.tryOpen(ctx, src)
			d.trace.Asked(d.traced(plan.Origin))
		}
		select {
		case <-ctx.Done():
			return nil, ErrClosed
		case <-timer.C:
		case <-d.search.fresh:
			for _, f := range d.search.take() {
				known = append(known, f)
				d.believe(f)
			}
			if d.believed != "" {
				return known, nil
			}
		case r := <-o.result:
			o, notBefore = opening{}, d.now()+reopenEvery
			d.trace.Answered(d.traced(plan.Origin))
			if r.err == nil && r.stream.Size < 0 {
				r.stream.close()
				r.err = fmt.Errorf("%w: the origin tells no size", blob.ErrUnavailable)
			}
			if r.err == nil {
				d.first, d.want.Size = r.stream, r.stream.Size
				return known, nil
			}
			if d.originErr = r.err; refused(r.err) {
				d.origins.next()
			}
		}
		d.woke(look, time.Since(armed))
		since := d.now()
		if err := d.unsettled(since); err != nil && (o.result == nil || since >= d.x.limits.commit) {
			return nil, err
		}
	}
}

// pledge tells others whether this node may learn the size: if it has nobody
// to ask, they must not wait for it.
func (d *driver) pledge(origin bool) {
	w := &word{kind: wire.FrameNone}
	if origin {
		w = filling()
	}
	if !w.equal(d.said.Load()) {
		d.said.Store(w)
		d.x.followers.changed(d.key.digest)
	}
}

// mySizeTurn returns when it is this node's turn to ask the origin for the size:
// whoever began first asks, because it has asked already when the others hear
// of it, and those that began at the same moment agree on one.
func (d *driver) mySizeTurn() time.Duration {
	earlier, same := d.search.rivals()
	var others []uint64
	for _, id := range same {
		others = append(others, ownership(string(id)))
	}
	rank := plan.Rank(ownership(d.want.Digest.String()), ownership(string(d.x.self)), others...)
	return sizeTurn(earlier+rank, d.x.limits.plan.TurnSmall)
}

// sizeTurn returns when the member of this rank asks for the size. The second
// does so soon, in case the first is ill. The others leave these two the time
// that registries take to answer: of a manifest that takes longer than a turn
// everybody would ask for a copy, and registries count them.
func sizeTurn(rank int, turn time.Duration) time.Duration {
	const answer = 10 // turns
	if rank < 2 {
		return time.Duration(rank) * turn
	}
	return time.Duration(rank-1) * answer * turn
}

// believe takes the size that a member says, if it was not wrong before. If it
// is wrong now, the origin or the proof will tell.
func (d *driver) believe(f found) {
	if f.err != nil || f.filling || d.believed != "" || d.x.doubted.Holds(f.holder.Peer, time.Now()) {
		return
	}
	d.want.Size, d.believed, d.learnt = f.info.Size, f.holder.Peer, d.held
	d.search.learnt()
}

// tryOpen asks for as much as a first request would, and for one piece if
// others want to know, too: they may be the ones to fetch the next.
func (d *driver) tryOpen(ctx context.Context, src blob.Source) opening {
	ctx, cancel := context.WithCancel(ctx)
	o := opening{result: make(chan openResult, 1), cancel: cancel}
	rng := blob.Range{Length: int64(d.x.limits.plan.RunPieces) * blob.PieceSize}
	if len(d.search.holders()) > 0 {
		rng.Length = blob.PieceSize
	}
	want := d.want
	d.io.Go(func() {
		s, err := open(pace.WithFlow(ctx, d.flow), src, want, rng)
		if err != nil {
			cancel()
		}
		o.result <- openResult{s, err}
	})
	return o
}

// abandon gives up an opening whose result nobody needs.
func (d *driver) abandon(o opening) {
	if o.result == nil {
		return
	}
	o.cancel()
	d.trace.Answered(d.traced(plan.Origin))
	d.io.Go(func() {
		r := <-o.result
		r.stream.close()
	})
}

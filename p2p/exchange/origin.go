package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
	"shoal/p2p/plan"
)

var (
	// errShort: the origin sent less than was asked for, as it may.
	errShort = errors.New("the origin sent a shorter range")
	// errOtherSize: the origin has the blob at another size.
	errOtherSize = errors.New("the origin says another size")
)

// origins are the places that the blob can be had from outside of the swarm,
// in the order in which callers named them. The first is asked until it says
// that it has no such blob.
type origins struct {
	changed chan struct{} // holds a value after add

	mu   sync.Mutex
	list []blob.Source
	gave int // how many of the list have refused
}

// maxOrigins bounds how many callers' origins are kept.
const maxOrigins = 8

func (o *origins) add(src blob.Source) {
	if src == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) >= maxOrigins {
		return
	}
	o.list = append(o.list, src)
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

func (o *origins) current() blob.Source {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gave < len(o.list) {
		return o.list[o.gave]
	}
	return nil
}

func (o *origins) next() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gave = min(o.gave+1, len(o.list))
}

func (o *origins) all() []blob.Source {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.list)
}

// aimOrigin tells the plan of the origin when its time has come.
func (d *driver) aimOrigin() {
	there := d.origins.current() != nil
	switch {
	case there == d.aimed:
	case !there:
		d.plan.NoOrigin(d.now())
		d.aimed = false
	case d.originsTurn():
		d.plan.OriginFrom(d.now(), d.x.knownOriginRate())
		d.aimed = true
	}
}

// originsTurn reports whether members have had their time to say that they
// have the blob: no more than it takes them all to say no, and so none at all
// if nobody is connected. Who does not answer is not waited for any longer, nor
// is a lookup if most do not: it asks the same members. If one has the whole the
// plan is to judge whether that is enough.
func (d *driver) originsTurn() bool {
	d.search.giveUp(d.held, d.x.limits.answer)
	state, wait := d.search.state(1), d.swarmFirst()
	if state.told {
		wait = max(wait, d.x.limits.swarmMore)
	}
	_, _, wholes := d.joined()
	return state.idle || state.vain || sum(wholes) > 0 || d.held-d.learnt >= wait
}

// swarmFirst is the time that members have to say that they have the blob.
func (d *driver) swarmFirst() time.Duration {
	if d.want.Size >= 0 && d.want.Size < blob.PieceSize {
		return d.x.limits.swarmSmall
	}
	return d.x.limits.swarmFirst
}

// originUsable reports whether there is an origin that answered last time it
// was asked.
func (d *driver) originUsable() bool { return d.origins.current() != nil && d.originErr == nil }

// opened is a stream that was opened to learn the size.
type opened struct {
	*blob.Stream
	cancel context.CancelFunc
}

func (o *opened) close() {
	if o != nil {
		o.Body.Close()
		o.cancel()
	}
}

// open asks the origin for a range of a blob.
func open(ctx context.Context, src blob.Source, want blob.Descriptor, rng blob.Range) (*opened, error) {
	ctx, cancel := context.WithCancel(ctx)
	s, err := src.Open(ctx, want, rng)
	if err != nil {
		cancel()
		return nil, err
	}
	return &opened{Stream: s, cancel: cancel}, nil
}

// fromOrigin fetches a run of pieces from the origin, or what it sends instead.
// first is a stream that is open already, or nil.
func (d *driver) fromOrigin(ctx context.Context, r plan.Request, src blob.Source, first *opened) error {
	buf := d.x.origin.buffer()
	defer d.x.origin.done(buf)
	last := blob.Piece(r.First+r.Count-1, d.want.Size)
	from := blob.Piece(r.First, d.want.Size).Offset
	rng := blob.Range{Offset: from, Length: last.Offset + last.Length - from}
	s := first
	if s == nil || r.First != 0 {
		first.close()
		var err error
		if s, err = open(pace.WithFlow(ctx, d.flow), src, d.want, rng); err != nil {
			return err
		}
	}
	defer s.close()
	if s.Size >= 0 && s.Size != d.want.Size {
		return fmt.Errorf("%w: %w: %d bytes, not %d", blob.ErrCorrupt, errOtherSize, s.Size, d.want.Size)
	}
	in := run{Request: r, from: blobcache.Provenance{Identity: s.Identity}}
	if s.Size < 0 || s.Identity == "" {
		// Whose total is not known does not flow to clients before closure.
		in.from = blobcache.Provenance{Peer: "upstream " + s.Identity}
	}
	end := s.Range.End(d.want.Size)
	ranged, short := true, false
	switch {
	case s.Range.Offset == rng.Offset && end == rng.End(d.want.Size):
	case s.Range.Offset == 0 && end == d.want.Size:
		ranged, in.First, in.Count = false, 0, blob.PieceCount(d.want.Size)
	case s.Range.Offset == rng.Offset && end > rng.End(d.want.Size): // the rest is not read
	case s.Range.Offset == rng.Offset:
		short, in.Count = true, int((end-rng.Offset)/blob.PieceSize)
	default:
		return fmt.Errorf("%w: the origin sent the range %v for %v", blob.ErrUnavailable, s.Range, rng)
	}
	d.post(func() { d.originAnswers(r, ranged) })
	if err := d.receive(in, d.turn.watch(s.Body), buf); err != nil {
		return err
	}
	if short {
		return errShort
	}
	return nil
}

// originAnswers tells the plan that the origin has committed itself.
func (d *driver) originAnswers(r plan.Request, ranged bool) {
	d.plan.Answered(d.now(), r.ID, ranged)
	d.answered, d.originErr = true, nil
	d.settle(nil)
}

// originFailed handles a request that the origin did not bring to its end.
func (d *driver) originFailed(r plan.Request, err error) {
	d.log.Debug("origin failed", "first", r.First, "count", r.Count, "error", err)
	short := errors.Is(err, errShort)
	d.plan.Failed(d.now(), r.ID, !short)
	if short {
		return
	}
	d.originErr = err
	if d.believed != "" && errors.Is(err, errOtherSize) {
		d.x.doubted.Add(d.believed, time.Now())
		d.fill.Fail(err) // a member's word against the registry's
		return
	}
	if refused(err) && !d.answered {
		d.origins.next() // later, with bytes that it gave before, it is only ill
	}
}

// refused reports whether an origin said that it will not give the blob.
func refused(err error) bool {
	return errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrDenied) || errors.Is(err, blob.ErrTooLarge)
}

package exchange

import (
	"errors"
	"fmt"
	"time"

	"shoal/blobcache/blob"
	"shoal/p2p/wire"
)

// hopeless returns why the fill is given up, or nil.
func (d *driver) hopeless() error {
	now, l := time.Now(), d.x.limits
	if d.plan.Done() || ended(d.fill) {
		d.stored = now // closure takes the time that it takes
		return nil
	}
	if !d.settled {
		d.fillUp() // with members that have waited for others to answer
	}
	if !d.settled {
		return d.unsettled(now.Sub(d.begun))
	}
	if len(d.flights) > 0 || d.origins.current() != nil || d.asksMembers() {
		d.busy = now
	}
	switch {
	case now.Sub(d.stored) >= l.stalled:
		return fmt.Errorf("%w: no piece for %v%s", blob.ErrStalled, l.stalled, d.originSaid())
	case now.Sub(d.busy) >= l.alone:
		return fmt.Errorf("%w: nobody left to ask for %d pieces%s", blob.ErrUnavailable, d.plan.Missing(), d.originSaid())
	}
	return nil
}

// originSaid tells in words what the origin said last, if that was an error.
func (d *driver) originSaid() string {
	if d.originErr == nil {
		return ""
	}
	return fmt.Sprintf("; the origin said: %v", d.originErr)
}

// asksMembers reports whether a member is part of the plan that has the whole,
// or whose fill goes on.
func (d *driver) asksMembers() bool {
	for _, s := range d.sources {
		if s.joined && (s.whole || time.Since(s.moved) < d.x.limits.alone) {
			return true
		}
	}
	return false
}

// fillers reports whether a member fills the blob that may have it from
// somewhere else.
func (d *driver) fillers() bool {
	if d.plan == nil {
		return len(d.search.holders()) > 0
	}
	for _, s := range d.sources {
		if !s.whole && s.info.Origin != wire.OriginUnreachable {
			return true
		}
	}
	return false
}

// unsettled returns the error of a fill to which no source has committed
// itself, as soon as it is clear that none will.
func (d *driver) unsettled(since time.Duration) error {
	l := d.x.limits
	state := d.search.state(lookTwice)
	members := !state.alone && (!state.idle || d.fillers())
	switch {
	case since >= l.commit:
	case members:
		return nil
	case d.origins.current() == nil:
	case d.originErr != nil && len(d.flights) == 0 && since >= l.retry:
	default:
		return nil
	}
	if d.originErr != nil {
		return d.originErr
	}
	if d.origins.current() != nil {
		return fmt.Errorf("%w: no answer within %v", blob.ErrUnavailable, l.commit)
	}
	return fmt.Errorf("%w: no member has it and there is no origin to ask", blob.ErrNotFound)
}

// finish ends the fill, tells those who wait, and convicts whom the end of the
// fill convicts.
func (d *driver) finish(err error) {
	if d.fill != nil && d.plan != nil {
		if err != nil {
			d.fill.Fail(err)
		}
		<-d.fill.Done()
		if e := d.fill.Err(); e != nil {
			err = e
		} else {
			err = nil
		}
		d.verdicts()
		d.summary(err)
	}
	d.x.metrics.fills.WithLabelValues(result(err)).Inc()
	d.settle(err)
}

// summary says how the fill went, and keeps what was learnt about the origin.
func (d *driver) summary(err error) {
	args := []any{"size", d.want.Size, "from_origin", d.bytes.origin, "from_peers", d.bytes.peers, "took", time.Since(d.begun).Round(time.Millisecond)}
	if err != nil {
		d.log.Info("fill given up", append(args, "error", err)...)
	} else {
		d.log.Info("fill done", args...)
	}
	d.rememberOrigin()
	if rate, ok := d.plan.OriginRate(d.now()); ok && d.bytes.origin >= 4*blob.PieceSize {
		d.x.learnOriginRate(rate)
	}
}

// result is the label of how a fill ended.
func result(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrDenied):
		return "not_found"
	case errors.Is(err, blob.ErrNoSpace):
		return "no_space"
	case errors.Is(err, blob.ErrCorrupt):
		return "corrupt"
	}
	return "failed"
}

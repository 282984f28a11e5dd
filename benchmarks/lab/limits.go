//go:build linux

package main

import (
	"context"
	"time"

	"shoal/benchmarks/lab/report"
	"shoal/benchmarks/rig"
)

const (
	// limitSpan is over how long limits are kept within some per cent.
	limitSpan = 10 * time.Second
	// limitLead is for the first bytes, and what may pass at once.
	limitLead = time.Second
)

// links is what has moved over links by a moment.
type links struct {
	at       time.Time
	origin   int64 // sent by it
	seeded   int64 // by the seeded nodes
	into     int64 // received by the cold nodes, without what they sent
	uploaded []int64
}

// look reads the counters of the links.
func (r *run) look(ctx context.Context) (l links, err error) {
	l.at = time.Now()
	if _, l.origin, err = r.origin.host.Moved(ctx); err != nil {
		return l, err
	}
	for i, n := range r.nodes {
		received, sent, err := n.Moved(ctx)
		if err != nil {
			return l, err
		}
		l.uploaded = append(l.uploaded, sent)
		if i < r.scenario.Nodes.Seeded {
			l.seeded += sent
		} else {
			l.into += received - sent
		}
	}
	return l, nil
}

// watchLimits measures how limits are kept. If ctx ends before, as it does when the
// clients are done, there is nothing to tell.
func (r *run) watchLimits(ctx context.Context) error {
	if r.scenario.Supply() == 0 {
		return nil
	}
	var seen [2]links
	for i, after := range []time.Duration{limitLead, limitSpan} {
		var err error
		if rig.Sleep(ctx, after) == nil {
			seen[i], err = r.look(ctx)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the clients were done before: that is no failure
		}
		if err != nil {
			return err
		}
	}
	r.result.Limits = r.kept(seen[0], seen[1])
	return nil
}

// kept compares what has moved with the limits. What no limit is for, is left out.
func (r *run) kept(from, to links) *report.Limits {
	seconds, limits := to.at.Sub(from.at).Seconds(), r.scenario.Nodes.Limits
	rate := func(from, to int64) float64 { return float64(to-from) / seconds }
	origin, seeded, into := rate(from.origin, to.origin), rate(from.seeded, to.seeded), rate(from.into, to.into)
	l := &report.Limits{Supply: float64(r.scenario.Supply()) / 8, Sent: seeded + origin, Received: into, MaxUpload: float64(limits.MaxUpload) / 8}
	if limits.MaxOrigin == 0 {
		l.Sent, l.Received = seeded, into-origin
	}
	for i := range to.uploaded {
		l.Uploaded = max(l.Uploaded, rate(from.uploaded[i], to.uploaded[i]))
	}
	return l
}

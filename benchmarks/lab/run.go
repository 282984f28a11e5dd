//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"shoal/benchmarks/lab/report"
	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/testhost"

	"golang.org/x/sync/errgroup"
)

// storedInterval is how often is looked whether a node is done: well below one
// per cent of the shortest bound, and one stat(2) per node.
const storedInterval = 10 * time.Millisecond

// run is one image's way to all nodes of a scenario.
type run struct {
	*stage
	crew   crew
	result *report.Run

	bound time.Duration // image by goodput
	start time.Time     // of the clock; zero until then
}

// play lets the contender play the scenario once. Whatever fails is in the
// result; programs and data are gone when it returns.
func (l *lab) play(ctx context.Context, sc *scenario.Scenario, c contender, round int) report.Run {
	result := report.Run{Scenario: sc.Name, Contender: c.name(), Round: round, Started: time.Now().UTC()}
	ctx, cancel := context.WithTimeout(ctx, limit(sc, c))
	defer cancel()
	if err := l.playTo(ctx, &result, sc, c); err != nil {
		result.Error = err.Error()
	}
	result.Seconds = time.Since(result.Started).Seconds()
	return result
}

// limit is when a run is given up: three times what it is expected to take, as
// a slow contender is a result.
func limit(sc *scenario.Scenario, c contender) time.Duration {
	return time.Minute + 3*estimate(sc, c)
}

// playTo writes to result what it measures.
func (l *lab) playTo(ctx context.Context, result *report.Run, sc *scenario.Scenario, c contender) (err error) {
	r := &run{result: result, stage: &stage{
		scenario: sc, center: l.center, nodes: l.nodesOf(sc), zones: l.zones[:sc.Nodes.Zones.Count], dir: filepath.Join(l.data, "run"), shoal: l.shoal, key: l.key,
	}}
	if r.image, err = l.store.image(sc); err != nil {
		return err
	}
	result.Bytes = r.image.bytes()
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.keepLogs(fmt.Sprintf("%s, %s, round %d", result.Scenario, result.Contender, result.Round)))
		}
		if r.origin != nil {
			r.origin.abandon()
		}
		err = errors.Join(err, l.clean(r.dir))
	}()
	if err := errors.Join(l.origin.Shape(testhost.Rate(sc.Origin.Link)), r.shapeNodes()); err != nil {
		return err
	}
	r.origin, err = startOrigin(ctx, l.origin, filepath.Join(r.dir, "origin"), r.image, sc.Origin.IgnoresRange)
	if err != nil {
		return err
	}
	r.upstream = r.origin.url()
	crewCtx, dismiss := context.WithCancel(ctx)
	defer dismiss()
	if r.crew, err = c.crew(crewCtx, r.stage); err != nil {
		return err
	}
	if err := errors.Join(r.prepare(ctx, c.idle()), ctx.Err()); err != nil {
		return err
	}
	if err := rig.WarmMemory(ctx, r.memory()); err != nil {
		return err
	}
	if err := r.clock(ctx); err != nil {
		return err
	}
	return r.finish(ctx, l)
}

// memory returns how many bytes the run is going to write on, about: what the
// nodes store, and a program for each.
func (r *run) memory() int64 {
	const program = 128 << 20
	return int64(len(r.nodes)) * (r.image.bytes() + program)
}

// shapeNodes gives every node its place and its link.
func (r *run) shapeNodes() error {
	for i, n := range r.nodes {
		var zone *testhost.Zone
		if len(r.zones) > 0 {
			zone = r.zones[i%len(r.zones)]
		}
		if err := errors.Join(n.Plug(), n.Move(zone), n.Shape(testhost.Rate(r.scenario.Link(i)))); err != nil {
			return err
		}
	}
	for _, z := range r.zones {
		if err := errors.Join(z.Shape(testhost.Rate(r.scenario.Nodes.Zones.Link)), z.Apart(r.scenario.Nodes.Zones.Apart)); err != nil {
			return err
		}
	}
	return nil
}

// prepare brings the nodes to where the clock starts: programs that run and
// know each other, seeded nodes that hold the image, and the bound.
func (r *run) prepare(ctx context.Context, idle time.Duration) error {
	first := r.scenario.Nodes.Count
	if r.scenario.Arrivals.StartsNode {
		first = r.scenario.Nodes.Seeded
	}
	var group errgroup.Group
	for i := range first {
		group.Go(func() error { return r.crew.start(ctx, i) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if first == r.scenario.Nodes.Count {
		if err := r.crew.connected(ctx); err != nil {
			return err
		}
	}
	if err := r.seed(ctx); err != nil {
		return err
	}
	connected := time.Now()
	if err := r.measureBound(ctx); err != nil {
		return err
	}
	if first == 0 {
		return nil // nothing runs that could be idle
	}
	return rig.Sleep(ctx, time.Until(connected.Add(idle)))
}

// seed gets the image to the seeded nodes, without limits on any link.
func (r *run) seed(ctx context.Context) error {
	if r.scenario.Nodes.Seeded == 0 {
		return nil
	}
	for _, h := range append([]*testhost.Host{r.origin.host}, r.nodes[:r.scenario.Nodes.Seeded]...) {
		if err := h.Shape(0); err != nil {
			return err
		}
	}
	for i := range r.scenario.Nodes.Seeded {
		if err := r.crew.pull(ctx, i); err != nil {
			return fmt.Errorf("seed node %d: %w", i, err)
		}
		if err := r.awaitStored(ctx, i); err != nil {
			return fmt.Errorf("seed node %d: %w", i, err)
		}
	}
	return errors.Join(r.origin.host.Shape(testhost.Rate(r.scenario.Origin.Link)), r.shapeNodes())
}

// measureBound measures the goodput of a plain download over the link that the
// bound comes from, to the last node: the first ones are seeded. The image goes
// on to be the origin's, whatever the link.
func (r *run) measureBound(ctx context.Context) error {
	if err := r.origin.host.Shape(testhost.Rate(boundLink(r.scenario))); err != nil {
		return err
	}
	last := r.nodes[len(r.nodes)-1]
	var err error
	r.result.Goodput, err = rig.Client{Dial: last.DialContext, Base: r.origin.url()}.Goodput(ctx, meterPath, r.image.meter.size)
	if err != nil {
		return fmt.Errorf("plain download: %w", err)
	}
	r.bound = time.Duration(float64(r.result.Bytes) / r.result.Goodput * float64(time.Second))
	return r.origin.host.Shape(testhost.Rate(r.scenario.Origin.Link))
}

// clock lets the clients begin and measures until all nodes that count are
// done.
func (r *run) clock(ctx context.Context) error {
	if err := r.origin.startCounting(); err != nil {
		return err
	}
	r.result.Nodes = make([]report.Node, len(r.nodes))
	before, err := r.count(ctx)
	if err != nil {
		return err
	}
	meter, err := rig.StartMeter()
	if err != nil {
		return err
	}
	r.start = time.Now()
	rest, end := context.WithCancel(ctx) // of what does not count
	defer end()
	counting, running := errgroup.WithContext(ctx)
	if r.scenario.InTurn() {
		counting.Go(func() error { return r.inTurn(running) })
	}
	var others errgroup.Group
	kill := make([]func(), len(r.nodes)) // ends the client of a node that does not count
	for i := range r.nodes {
		node := &r.result.Nodes[i]
		node.Counts, node.Fate, node.Arrival = r.scenario.Counts(i), r.fate(i), r.scenario.Arrival(i).Seconds()
		switch {
		case r.scenario.InTurn():
		case node.Counts:
			counting.Go(func() error { return r.client(running, i) })
		case node.Fate != report.Seeded:
			mortal, die := context.WithCancel(rest)
			defer die()
			kill[i] = die
			others.Go(func() error { return r.client(mortal, i) })
		}
	}
	var watch errgroup.Group
	watch.Go(func() error { return r.watchLimits(rest) })
	faults := r.faults(rest, kill)
	err = counting.Wait()
	end()
	_ = others.Wait() // their troubles are the scenario's
	for _, waits := range []*errgroup.Group{faults, &watch} {
		if missed := waits.Wait(); err == nil {
			err = missed
		}
	}
	r.result.Load = meter.Load()
	if err == nil {
		err = r.bookSince(ctx, before)
	}
	return err
}

// client is a cold node: it arrives, pulls, and stores.
func (r *run) client(ctx context.Context, i int) error {
	node := &r.result.Nodes[i]
	if err := r.until(ctx, r.scenario.Arrival(i)); err != nil {
		return err
	}
	if r.scenario.Arrivals.StartsNode {
		if err := r.crew.start(ctx, i); err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
	}
	return r.fetch(ctx, i, node)
}

// fetch gets the image to a node and its client, and notes when.
func (r *run) fetch(ctx context.Context, i int, node *report.Node) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := r.crew.pull(ctx, i)
		if err == nil {
			node.Client = r.now()
		}
		return err
	})
	group.Go(func() error {
		err := r.awaitStored(ctx, i)
		if err == nil {
			node.Proven = r.now()
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("node %d: %w", i, err)
	}
	if node.Proven == 0 || r.unstored() {
		node.Proven = node.Client
	}
	return nil
}

// unstored tells whether the contender's nodes do not show what they have
// stored.
func (r *run) unstored() bool {
	_, ok := r.crew.stored(0, r.image.blobs[0])
	return !ok
}

// awaitStored waits until all of the image lies in the node's store, if it has
// one that can be seen.
func (r *run) awaitStored(ctx context.Context, node int) error {
	if r.unstored() {
		return nil
	}
	tick := time.NewTicker(storedInterval)
	defer tick.Stop()
	for _, b := range r.image.blobs {
		file, _ := r.crew.stored(node, b)
		for {
			if _, err := os.Stat(file); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	}
	return nil
}

// now returns the seconds on the clock.
func (r *run) now() float64 { return time.Since(r.start).Seconds() }

// until waits for a moment on the clock.
func (r *run) until(ctx context.Context, at time.Duration) error {
	return rig.Sleep(ctx, time.Until(r.start.Add(at)))
}

// finish looks whether the nodes have the right bytes, ends them, and reads the
// origin's log.
func (r *run) finish(ctx context.Context, l *lab) error {
	if r.unstored() {
		// Looking for the right bytes may have more fetched.
		if err := r.origin.stopCounting(); err != nil {
			return err
		}
	}
	var group errgroup.Group
	group.SetLimit(2)
	for i := range r.nodes {
		if r.result.Nodes[i].Counts {
			group.Go(func() error {
				if err := r.crew.verify(ctx, i); err != nil {
					return fmt.Errorf("node %d has wrong bytes: %w", i, err)
				}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	l.killNodes()
	t, err := r.origin.stop()
	r.result.OriginBytes, r.result.Manifests = t.blobBytes, t.manifestGets
	return err
}

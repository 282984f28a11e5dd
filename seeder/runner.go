package seeder

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxEvents bounds the notifications that a selection has not looked at yet; one
// more makes it look at everything.
const maxEvents = 1000

// settle is how long after a notification it is looked at: what a registry said of
// a tag is good for a second, and the answer may be from before.
const settle = time.Second

// pending is a notification that is not looked at yet.
type pending struct {
	Event
	due time.Time
}

// runner looks at one selection at its times.
type runner struct {
	rules
	s       *Seeder
	limits  *limits
	began   time.Time     // with a schedule, the last look before, if it is known
	wake    chan struct{} // holds one: there is something to do
	brought chan struct{} // holds one: a look has brought something, who holds it is to be checked
	stop    context.CancelFunc
	ended   chan struct{}

	// Of run's goroutine.
	failing map[string]string // images, and why
	written digest.Digest     // of what is on disk about choice

	mu       sync.Mutex
	asked    bool
	events   []pending
	last     time.Time // a look at everything began
	looked   time.Time // the tags were last asked for
	followed time.Time
	running  *Run
	pulls    map[*Pull]struct{} // of running
	runs     []Run
	choice   choice
	holders  *Holders // the last check
}

// run looks until ctx ends.
func (r *runner) run(ctx context.Context) {
	defer close(r.ended)
	if r.MinHolders > 0 {
		var guard sync.WaitGroup
		guard.Go(func() { r.guard(ctx) })
		defer guard.Wait()
	}
	for ctx.Err() == nil {
		r.mu.Lock()
		next, follow := r.times()
		r.mu.Unlock()
		if soonest := earlier(next, follow); !soonest.IsZero() {
			timer := time.AfterFunc(time.Until(soonest), r.poke)
			r.await(ctx)
			timer.Stop()
		} else {
			r.await(ctx)
		}
		r.work(ctx)
	}
}

func (r *runner) await(ctx context.Context) {
	select {
	case <-r.wake:
	case <-ctx.Done():
	}
}

func (r *runner) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// times returns when to look next, and when to follow. mu is held.
func (r *runner) times() (next, follow time.Time) {
	next = r.next(r.began, r.last)
	if r.Follow > 0 && !r.looked.IsZero() {
		follow = r.looked.Add(r.Follow)
	}
	return next, follow
}

// earlier returns the earlier of two times that are, or zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// work does what is due.
func (r *runner) work(ctx context.Context) {
	now := time.Now()
	r.mu.Lock()
	next, follow := r.times()
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	asked, first := r.asked, r.last.IsZero() && (r.schedule == nil || r.MinHolders > 0)
	r.asked = false
	var events []Event
	r.events = slices.DeleteFunc(r.events, func(e pending) bool {
		if due(e.due) {
			events = append(events, e.Event)
		}
		return due(e.due)
	})
	r.mu.Unlock()
	switch {
	case asked:
		r.look(ctx, ByOperator, r.everything)
	case due(next) && first:
		r.look(ctx, ByStart, r.everything)
	case due(next):
		r.look(ctx, BySchedule, r.everything)
	case len(events) > 0:
		r.look(ctx, ByNotification, func(ctx context.Context, run *Run) []string { return r.notified(ctx, run, events) })
	case due(follow):
		r.look(ctx, ByFollow, func(context.Context, *Run) []string { return r.chosen() })
	}
}

// look chooses images and fetches what of them is not here.
func (r *runner) look(ctx context.Context, why string, choose func(context.Context, *Run) []string) {
	run := &Run{Why: why, Began: time.Now()}
	r.mu.Lock()
	r.running, r.pulls, r.looked = run, map[*Pull]struct{}{}, run.Began
	if why != ByNotification && why != ByFollow {
		r.last = run.Began
	}
	r.mu.Unlock()
	images := choose(ctx, run)
	if ctx.Err() != nil {
		return // and nobody asks about it any more
	}
	r.mu.Lock()
	run.Chosen = len(images)
	r.mu.Unlock()
	for _, err := range run.Errors { // nobody adds to them any more
		r.s.log.Warn("a list of images cannot be had, what was chosen of it before stays so", "selection", r.Name, "error", err)
	}
	r.keep()
	r.fetch(ctx, run, images)
	r.keep()
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	run.Ended = time.Now()
	r.running, r.pulls, r.looked = nil, nil, run.Ended
	// Nothing is new, or what was pushed is left out.
	quiet := run.good() && run.Fetched == 0 && (why == ByFollow || why == ByNotification)
	if why == ByFollow {
		r.followed = run.Ended
	}
	if !quiet {
		r.runs = slices.Insert(r.runs, 0, run.sorted())
		r.runs = r.runs[:min(len(r.runs), maxRuns)]
		select {
		case r.brought <- struct{}{}:
		default:
		}
	}
	r.mu.Unlock()
	if r.schedule != nil && why != ByNotification && why != ByFollow {
		r.s.note(r.Name, run.Began)
	}
	r.tell(*run, quiet)
}

// tell logs a run.
func (r *runner) tell(run Run, quiet bool) {
	r.s.metrics.failing.WithLabelValues(r.Name).Set(float64(run.Failed + len(run.Errors)))
	if quiet {
		return
	}
	r.s.log.Info("seeded", "selection", r.Name, "why", run.Why, "chosen", run.Chosen, "unchanged", run.Unchanged,
		"fetched", run.Fetched, "failed", run.Failed, "bytes", run.Bytes, "took", run.Ended.Sub(run.Began).Round(time.Millisecond))
}

// fetch brings images, some at a time.
func (r *runner) fetch(ctx context.Context, run *Run, images []string) {
	var work sync.WaitGroup
	for _, image := range images {
		if r.limits.images.Acquire(ctx, 1) != nil {
			break
		}
		p := NewPull(r.s.o.Mirror, r.s.o.Cache, image, r.platforms)
		p.limits, p.tries = r.limits, tries
		r.mu.Lock()
		r.pulls[p] = struct{}{}
		r.mu.Unlock()
		work.Go(func() {
			defer r.limits.images.Release(1)
			err := p.Run(ctx)
			now := p.Progress()
			r.mu.Lock()
			delete(r.pulls, p)
			run.take(now)
			r.note(image, err)
			if k, chosen := r.choice[image]; err == nil && chosen {
				k.Digest = now.Digest
				r.choice[image] = k
			}
			r.mu.Unlock()
			r.s.metrics.images.WithLabelValues(string(now.State)).Inc()
		})
	}
	work.Wait()
}

// note logs an image that fails, when it begins to, or for another reason. mu is
// held.
func (r *runner) note(image string, err error) {
	switch {
	case err == nil:
		delete(r.failing, image)
	case errors.Is(err, context.Canceled) || r.failing[image] == err.Error():
	default:
		r.failing[image] = err.Error()
		r.s.log.Warn("an image cannot be had", "selection", r.Name, "image", image, "error", err)
	}
}

// notified returns the images that were pushed, as far as the selection has them.
func (r *runner) notified(ctx context.Context, run *Run, events []Event) []string {
	pushed := map[string][]string{} // tags by repository
	for _, e := range events {
		pushed[e.Repository] = append(pushed[e.Repository], e.Tag)
	}
	now := choice{}
	for repository, tags := range pushed {
		for _, p := range r.patterns {
			if !p.covers(repository) {
				continue
			}
			of := choice{}
			r.inRepository(ctx, run, p, repository, of)
			maps.DeleteFunc(of, func(image string, _ kept) bool {
				return !slices.ContainsFunc(tags, func(tag string) bool { return image == p.registry+"/"+repository+":"+tag })
			})
			maps.Copy(now, of)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for image, k := range now {
		if _, chosen := r.choice[image]; chosen || len(r.choice) < maxImages {
			r.choice[image] = k
		}
	}
	return slices.Sorted(maps.Keys(now))
}

// notify has the selection look at what was pushed, and tells whether it is for it.
func (r *runner) notify(e Event) bool {
	if !slices.ContainsFunc(r.patterns, func(p pattern) bool { return p.digest == "" && p.covers(e.Repository) && p.coversTag(e.Tag) }) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) >= maxEvents {
		r.asked = true
		r.poke()
	} else {
		r.events = append(r.events, pending{e, time.Now().Add(settle)})
		time.AfterFunc(settle, r.poke)
	}
	return true
}

// ask has the selection look at everything now.
func (r *runner) ask() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = true
	r.poke()
}

// report tells how it is.
func (r *runner) report() SelectionReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := SelectionReport{Name: r.Name, Followed: r.followed, Runs: append([]Run{}, r.runs...), Holders: r.holders}
	s.Chosen, s.Listed = len(r.choice), r.choice.oldest()
	s.Next, _ = r.times()
	if r.running != nil {
		now := *r.running
		now.Images = slices.Clone(now.Images)
		for p := range r.pulls {
			now.Images = append(now.Images, p.Progress())
		}
		now = now.sorted()
		s.Running = &now
	}
	return s
}

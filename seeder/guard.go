package seeder

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"shoal/blobcache/blob"
)

const (
	// DefaultCheck is the time between two checks of who holds what is selected,
	// if the operator says nothing: a holder that restarts is back by then, and a
	// second one is not likely to be lost within it.
	DefaultCheck = 10 * time.Minute
	// minCheck is a question to a member or two for each blob.
	minCheck = time.Second
	// checkSpread is by which part a check may come earlier or later: of two
	// seeders with the same selection one is first, and the other finds it done.
	checkSpread = 0.1
	// imagesAtOnce and questionsAtOnce bound what one check does at a time.
	imagesAtOnce, questionsAtOnce = 2, 8
	// maxShort bounds the images that a report of a check names.
	maxShort = 100
)

// Holders is a check of who holds what a selection has.
type Holders struct {
	// Want and Zones are how many members, this node included, are to hold each
	// blob, in how many zones.
	Want  int       `json:"want"`
	Zones int       `json:"zones"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	// Images were looked at, and Blobs are theirs, manifests included. So many
	// blobs were Missing holders; Short of them still are after members were
	// ordered to fetch them.
	Images  int `json:"images"`
	Blobs   int `json:"blobs"`
	Missing int `json:"missing"`
	Short   int `json:"short"`
	// Done and Failed are orders: an image and a member each.
	Done   int `json:"done"`
	Failed int `json:"failed"`
	// ShortImages is how many have a blob that is short, or that this node cannot
	// get itself. Why tells of some.
	ShortImages int          `json:"short_images"`
	Why         []ShortImage `json:"why"`
}

// ShortImage has a blob that too few hold.
type ShortImage struct {
	Image string `json:"image"`
	// Holders and Zones are those of the blob that fewest hold, as far as
	// somebody was asked.
	Holders int    `json:"holders"`
	Zones   int    `json:"zones"`
	Error   string `json:"error"` // why it stays so
}

// guard checks who holds what the selection has, when a look has brought
// something and at intervals, until ctx ends.
func (r *runner) guard(ctx context.Context) {
	for {
		spread := 1 + checkSpread*(2*rand.Float64()-1)
		timer := time.NewTimer(time.Duration(spread * float64(r.limits.check)))
		select {
		case <-r.brought:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		r.check(ctx)
	}
}

// check finds out who holds the blobs of what was looked at last, and has members
// fetch what too few do.
func (r *runner) check(ctx context.Context) {
	digests := r.digests()
	if len(digests) == 0 {
		return
	}
	c := &check{
		runner: r, need: need{r.MinHolders, max(1, r.MinZones)}, held: map[digest.Digest][]Member{}, before: map[digest.Digest]bool{},
		report: Holders{Want: r.MinHolders, Zones: max(1, r.MinZones), Began: time.Now(), Images: len(digests), Why: []ShortImage{}},
	}
	c.self, c.others = r.s.o.Swarm.Members()
	var g errgroup.Group
	g.SetLimit(imagesAtOnce)
	for _, image := range slices.Sorted(maps.Keys(digests)) {
		g.Go(func() error {
			if ctx.Err() == nil {
				c.image(ctx, image, digests[image])
			}
			return nil
		})
	}
	_ = g.Wait() // of none that errs
	if ctx.Err() == nil {
		r.checked(c.ended())
	}
}

// checked takes in a check that has ended.
func (r *runner) checked(now Holders) {
	r.mu.Lock()
	last := r.holders
	r.holders = &now
	r.mu.Unlock()
	r.s.metrics.short.WithLabelValues(r.Name).Set(float64(now.ShortImages))
	if now.Done > 0 {
		r.s.log.Info("members were short of what is selected, and have fetched it", "selection", r.Name, "blobs", now.Missing, "orders", now.Done)
	}
	if now.ShortImages > 0 && (last == nil || last.ShortImages != now.ShortImages) {
		first := now.Why[0]
		r.s.log.Warn("too few members hold what is selected", "selection", r.Name, "images", now.ShortImages, "of", now.Images,
			"image", first.Image, "holders", first.Holders, "zones", first.Zones, "error", first.Error)
	}
}

// check is one that is being done.
type check struct {
	*runner
	need   need
	self   Member
	others []Member

	mu     sync.Mutex
	held   map[digest.Digest][]Member // who holds what was asked about
	before map[digest.Digest]bool     // whether enough did before anybody was ordered
	report Holders
}

// image sees to it that enough members hold an image.
func (c *check) image(ctx context.Context, name string, manifest digest.Digest) {
	exact := repository(name) + "@" + manifest.String()
	own := NewPull(c.s.o.Mirror, c.s.o.Cache, exact, c.platforms)
	own.limits = c.limits
	if err := own.Run(ctx); err != nil { // what of it is here is not known
		c.short(ShortImage{Image: name, Error: err.Error()})
		return
	}
	blobs := own.contents()
	ranked := missing(rank(manifest, append(slices.Clone(c.others), c.self)), []Member{c.self})
	held := c.ask(ctx, blobs, ranked)
	now := time.Now()
	able := slices.DeleteFunc(slices.Clone(ranked), func(m Member) bool { return !c.s.rests.may(m.ID, exact, now) })
	var why error
	if chosen := c.need.choose(held, able); len(chosen) > 0 {
		if why = c.order(ctx, exact, blobs, held, chosen); ctx.Err() != nil {
			return
		}
	}
	if short := slices.DeleteFunc(slices.Collect(maps.Values(held)), c.need.met); len(short) > 0 {
		fewest := slices.MinFunc(short, func(a, b []Member) int { return cmp.Or(len(a)-len(b), zones(a)-zones(b)) })
		why = cmp.Or(why, c.nobody(fewest, able))
		c.short(ShortImage{Image: name, Holders: len(fewest), Zones: zones(fewest), Error: why.Error()})
	}
}

// nobody is why no member was ordered to fetch what these hold.
func (c *check) nobody(by, able []Member) error {
	without := missing(c.others, by)
	if alone := missing(without, able); len(alone) > 0 {
		return fmt.Errorf("left alone for a while, as they failed or did not keep it: %d of %d connected members that have it not", len(alone), len(without))
	}
	return fmt.Errorf("too few are connected: this one and %d more, zones of all: %d", len(c.others), zones(append(slices.Clone(c.others), c.self)))
}

// ask returns who holds blobs, as far as that is enough.
func (c *check) ask(ctx context.Context, blobs []blob.Descriptor, ranked []Member) map[digest.Digest][]Member {
	held := make(map[digest.Digest][]Member, len(blobs))
	var g errgroup.Group
	g.SetLimit(questionsAtOnce)
	for _, b := range blobs {
		g.Go(func() error {
			by := c.holders(ctx, b.Digest, ranked)
			c.mu.Lock()
			defer c.mu.Unlock()
			held[b.Digest] = by
			return nil
		})
	}
	_ = g.Wait() // of none that errs
	return held
}

// holders returns who holds a blob, which this node does.
func (c *check) holders(ctx context.Context, d digest.Digest, ranked []Member) []Member {
	c.mu.Lock()
	by, known := c.held[d]
	c.mu.Unlock()
	if known {
		return by
	}
	own := []Member{c.self}
	by = append(own, c.s.o.Swarm.Holders(ctx, d, ranked[:min(len(ranked), maxAsked)], func(found []Member) bool {
		return c.need.met(slices.Concat(own, found))
	})...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[d], c.before[d] = by, c.need.met(by)
	return by
}

// order has members fetch an image, and notes in held who has done so. The error
// is the first one's that has not.
func (c *check) order(ctx context.Context, image string, blobs []blob.Descriptor, held map[digest.Digest][]Member, members []Member) (first error) {
	var coming []blob.Descriptor
	for _, b := range blobs {
		for range missing(members, held[b.Digest]) {
			coming = append(coming, b)
		}
	}
	if err := c.limits.wait(ctx, coming); err != nil {
		return err
	}
	for i, err := range c.s.o.Swarm.Order(ctx, image, c.Platforms, members) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m := members[i]
		c.s.rests.note(m.ID, image, err, time.Now())
		c.mu.Lock()
		if err != nil {
			c.report.Failed++
			c.s.metrics.orders.WithLabelValues("failed").Inc()
			first = cmp.Or(first, fmt.Errorf("%.80s: %w", m.ID, err))
			c.s.log.Debug("a member has not done what it was ordered", "image", image, "peer", m.ID, "error", err)
		} else {
			c.report.Done++
			c.s.metrics.orders.WithLabelValues("done").Inc()
			for _, b := range blobs {
				by := c.held[b.Digest] // another image's order may have changed it
				by = slices.Concat(by, missing([]Member{m}, by))
				held[b.Digest], c.held[b.Digest] = by, by
			}
		}
		c.mu.Unlock()
	}
	return first
}

// short notes an image.
func (c *check) short(i ShortImage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.ShortImages++
	if len(c.report.Why) < maxShort {
		c.report.Why = append(c.report.Why, i)
	}
}

// ended returns the report.
func (c *check) ended() Holders {
	h := c.report
	h.Ended, h.Blobs = time.Now(), len(c.held)
	slices.SortFunc(h.Why, func(a, b ShortImage) int { return cmp.Compare(a.Image, b.Image) })
	for d, by := range c.held {
		if !c.before[d] {
			h.Missing++
		}
		if !c.need.met(by) {
			h.Short++
		}
	}
	return h
}

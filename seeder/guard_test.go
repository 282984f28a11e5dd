package seeder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"shoal/blobcache/blob"
)

// members reads "a/hamburg b/paris".
func members(words string) (all []Member) {
	for word := range strings.FieldsSeq(words) {
		id, zone, _ := strings.Cut(word, "/")
		all = append(all, Member{id, zone})
	}
	return all
}

func words(all []Member) string {
	var words []string
	for _, m := range all {
		words = append(words, m.ID+"/"+m.Zone)
	}
	return strings.Join(words, " ")
}

// TestRank: the same order wherever it is computed, the best of each zone first,
// another for another image; who leaves changes it for nobody else in its zone.
func TestRank(t *testing.T) {
	all := members("a/x b/x c/x d/x e/y f/y g/z")
	first := map[string]bool{}
	for i := range 20 {
		image := digest.FromString(fmt.Sprint(i))
		ranked := rank(image, all)
		first[ranked[0].ID] = true
		if zones(ranked[:3]) != 3 || zones(ranked[3:5]) != 2 {
			t.Errorf("not the best of each zone first: %s", words(ranked))
		}
		shuffled := slices.Clone(all)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := rank(image, shuffled); !slices.Equal(again, ranked) {
			t.Errorf("%s elsewhere, %s here", words(again), words(ranked))
		}
		gone := members("b/x")
		of := func(zone string, all []Member) []Member {
			return slices.DeleteFunc(missing(all, gone), func(m Member) bool { return m.Zone != zone })
		}
		if after := rank(image, missing(all, gone)); !slices.Equal(of("x", after), of("x", ranked)) || !slices.Equal(of("y", after), of("y", ranked)) {
			t.Errorf("%s without b, %s with it", words(after), words(ranked))
		}
	}
	if len(first) < 4 {
		t.Errorf("of 20 images the first is always among %v", slices.Collect(maps.Keys(first)))
	}
}

func TestNeed(t *testing.T) {
	for _, tt := range []struct {
		name       string
		need       need
		held       []string // by blob
		candidates string
		want       string
	}{
		{"enough", need{2, 1}, []string{"a/x b/x", "a/x c/y"}, "d/x", ""},
		{"one short", need{2, 1}, []string{"a/x b/x", "a/x"}, "d/x e/x", "d/x"},
		{"the zone that holds least", need{3, 1}, []string{"a/x b/x"}, "c/x d/y", "d/y"},
		{"the zone that holds least, twice", need{4, 1}, []string{"a/x b/y"}, "c/x d/x e/y", "c/x e/y"},
		{"in one zone only", need{2, 2}, []string{"a/x b/x"}, "c/x d/y e/z", "d/y"},
		{"in one zone only, and no other there", need{2, 2}, []string{"a/x b/x"}, "c/x d/x", ""},
		{"both short, and no other zone there", need{2, 2}, []string{"a/x"}, "c/x d/x", "c/x"},
		{"who holds a part is asked for the rest", need{2, 1}, []string{"a/x b/x", "a/x"}, "b/x c/x", "b/x"},
		{"one for all parts", need{2, 2}, []string{"a/x", "a/x b/x", "a/x c/y"}, "d/y e/z", "d/y"},
		{"as many as there are", need{9, 3}, []string{"a/x"}, "b/x c/y", "c/y b/x"},
		{"nobody", need{2, 1}, []string{"a/x"}, "", ""},
	} {
		held := map[digest.Digest][]Member{}
		for i, by := range tt.held {
			held[digest.FromString(fmt.Sprint(i))] = members(by)
		}
		if got := words(tt.need.choose(held, members(tt.candidates))); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRests(t *testing.T) {
	r, now := newRests(), time.Unix(1e9, 0)
	may := func(member, image string, want bool) {
		t.Helper()
		if got := r.may(member, image, now); got != want {
			t.Errorf("%s, %s: %v", member, image, got)
		}
	}
	for _, pause := range []time.Duration{restFirst, 2 * restFirst, 4 * restFirst} {
		r.note("a", "one", errors.New("full"), now)
		now = now.Add(pause - 1)
		may("a", "other", false)
		may("b", "one", true)
		now = now.Add(1)
		may("a", "one", true)
	}
	for range 100 {
		r.note("a", "one", errors.New("full"), now)
	}
	now = now.Add(restMost)
	may("a", "one", true)
	r.note("a", "one", nil, now)
	may("a", "other", true)
	may("a", "one", false) // it had it, and has it no more
	now = now.Add(lostFor)
	may("a", "one", true)
}

// crowd is a Swarm in memory.
type crowd struct {
	world *world

	mu      sync.Mutex
	others  []Member
	has     map[string]bool  // member and digest
	fail    map[string]error // by member
	lossy   map[string]bool  // members that keep nothing
	ordered []string
	asked   int
}

func newCrowd(others string) *crowd {
	return &crowd{others: members(others), has: map[string]bool{}, fail: map[string]error{}, lossy: map[string]bool{}}
}

func (c *crowd) Members() (Member, []Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Member{"self", "x"}, slices.Clone(c.others)
}

func (c *crowd) Holders(_ context.Context, d digest.Digest, ask []Member, enough func([]Member) bool) (found []Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range ask {
		if enough(found) {
			break
		}
		c.asked++
		if c.has[m.ID+d.String()] {
			found = append(found, m)
		}
	}
	return found
}

func (c *crowd) Order(_ context.Context, image string, platforms []string, to []Member) (errs []error) {
	c.world.mu.Lock()
	m := c.world.manifests[image]
	c.world.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, member := range to {
		c.ordered = append(c.ordered, fmt.Sprintf("%s %s %s", member.ID, image, platforms))
		errs = append(errs, c.fail[member.ID])
		for _, d := range append([]blob.Descriptor{m.Descriptor}, m.Blobs...) {
			if c.fail[member.ID] == nil && !c.lossy[member.ID] {
				c.has[member.ID+d.Digest.String()] = true
			}
		}
	}
	return errs
}

// set changes the crowd.
func (c *crowd) set(how func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	how()
}

// change changes the crowd, lets check look at it, and returns what was ordered
// meanwhile.
func (c *crowd) change(how func()) string {
	c.set(func() { c.ordered = nil; how() })
	pass(2 * time.Minute)
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.ordered, "\n")
}

func (c *crowd) drop(id string) func() {
	return func() { c.others = slices.DeleteFunc(c.others, func(m Member) bool { return m.ID == id }) }
}

// TestSeederKeepsHolders: who holds too little is ordered to fetch it, once, at the
// first look, when a holder has gone, and when a tag has moved; what cannot be
// restored is told, and who could not is left alone.
func TestSeederKeepsHolders(t *testing.T) {
	const image = "r.io/team/app:v1.0.0"
	c := Config{CheckEvery: time.Minute, Selections: []Selection{{
		Name: "team", Images: []string{image}, Platforms: []string{"all"}, Schedule: "0 3 1 1 *", MinHolders: 2, MinZones: 2,
	}}}
	crowd := newCrowd("a/x b/y")
	seed(t, Options{Swarm: crowd}, c, func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		exact := func() string { return "r.io/team/app@" + w.manifests[image].Digest.String() }
		report := func() Holders { return *s.Report().Selections[0].Holders }
		short := func() float64 { return testutil.ToFloat64(s.metrics.short.WithLabelValues("team")) }

		// At the start, with a schedule, too, and in the zone that has it not.
		if got, want := strings.Join(crowd.ordered, "\n"), "b "+exact()+" [all]"; got != want {
			t.Errorf("ordered %q, want %q", got, want)
		}
		if h := report(); h.Images != 1 || h.Blobs != 3 || h.Missing != 3 || h.Short != 0 || h.Done != 1 || short() != 0 {
			t.Errorf("after the start: %+v", h)
		}
		asked := crowd.asked
		if got := crowd.change(func() {}); got != "" || report().Missing != 0 {
			t.Errorf("nothing has changed: ordered %q", got)
		}
		if n := crowd.asked - asked; n < 3 || n > 3*2*3 { // two checks, or one or three
			t.Errorf("%d questions about 3 blobs", n)
		}
		if got := crowd.change(crowd.drop("b")); got != "a "+exact()+" [all]" || report().Short != 3 || short() != 1 {
			t.Errorf("no other zone: ordered %q, %+v", got, report())
		}
		if why := report().Why; len(why) != 1 || why[0].Holders != 2 || why[0].Zones != 1 || why[0].Error != "too few are connected: this one and 1 more, zones of all: 1" {
			t.Errorf("%+v", why)
		}
		if got := crowd.change(func() { crowd.others = append(crowd.others, members("c/y")...) }); !strings.HasPrefix(got, "c ") || short() != 0 {
			t.Errorf("one comes: ordered %q", got)
		}
		// What the node has lost itself is here again.
		lost := w.manifests[image].Blobs[1].Digest
		w.cache.Remove([]digest.Digest{lost}, time.Time{}, false)
		crowd.change(func() {})
		if _, whole := w.cache.Stat(lost); !whole {
			t.Error("the node does not hold it itself")
		}
		// A tag moves: the new image is the one that counts.
		w.add(image, "config", "a new layer")
		if err := s.Look("team"); err != nil {
			t.Fatal(err)
		}
		if got := crowd.change(func() {}); got != "c "+exact()+" [all]" {
			t.Errorf("a tag has moved: ordered %q", got)
		}
	})
}

// Who refuses, or does not keep what it fetched, is not asked again and again.
func TestSeederLeavesAlone(t *testing.T) {
	c := Config{CheckEvery: time.Minute, Selections: []Selection{{Name: "team", Images: []string{"r.io/team/app:v1.0.0"}, MinHolders: 2}}}
	crowd := newCrowd("a/x")
	crowd.fail["a"] = errors.New("it refuses: no")
	seed(t, Options{Swarm: crowd}, c, func(t *testing.T, _ *world, s *Seeder) {
		t.Helper()
		pass(20 * time.Minute)
		h := s.Report().Selections[0].Holders
		if n := len(crowd.ordered); n < 3 || n > 5 || h.Short != 3 { // at 0, 1, 3, 7, 15
			t.Errorf("%d orders in 20 minutes; %+v", n, h)
		}
		crowd.set(func() { crowd.fail["a"], crowd.lossy["a"] = nil, true })
		pass(30 * time.Minute)
		crowd.set(func() { crowd.ordered = nil })
		pass(2 * time.Hour)
		if n := len(crowd.ordered); n < 1 || n > 2 {
			t.Errorf("%d orders in two hours to one that does not keep it", n)
		}
		if why := s.Report().Selections[0].Holders.Why; len(why) != 1 || !strings.Contains(why[0].Error, "left alone for a while, as they failed or did not keep it: 1 of 1 connected members") {
			t.Errorf("%+v", why)
		}
	})
}

// A selection that is not to be checked asks nobody.
func TestSeederAsksNobody(t *testing.T) {
	c := Config{CheckEvery: time.Minute, Selections: []Selection{{Name: "team", Images: []string{"r.io/team/app:v1.0.0"}}}}
	crowd := newCrowd("a/x")
	seed(t, Options{Swarm: crowd}, c, func(t *testing.T, _ *world, s *Seeder) {
		t.Helper()
		if pass(time.Hour); crowd.asked > 0 || s.Report().Selections[0].Holders != nil {
			t.Errorf("%d questions", crowd.asked)
		}
	})
}

// While a runtime waits nobody is ordered anything, for a while.
func TestOrdersHoldBack(t *testing.T) {
	c := Config{CheckEvery: time.Minute, Selections: []Selection{{Name: "team", Images: []string{"r.io/team/app:v1.0.0"}, MinHolders: 2}}}
	crowd := newCrowd("")
	var busy atomic.Bool
	seed(t, Options{Swarm: crowd, Busy: busy.Load}, c, func(t *testing.T, _ *world, _ *Seeder) {
		t.Helper()
		busy.Store(true)
		crowd.set(func() { crowd.others = members("a/x") })
		if pass(100 * time.Second); crowd.asked == 0 || len(crowd.ordered) > 0 { // a check began after 54 to 66 s
			t.Errorf("while a runtime waits: %d questions, ordered %q", crowd.asked, crowd.ordered)
		}
		busy.Store(false)
		if pass(time.Second); len(crowd.ordered) != 1 {
			t.Errorf("when none does any more: ordered %q", crowd.ordered)
		}
	})
}

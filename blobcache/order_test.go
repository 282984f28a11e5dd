package blobcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/blob"
	"shoal/blobcache/images"
)

// picture is a manifest and its layers.
type picture struct {
	manifest sample
	layers   []sample
}

func (p picture) all() []sample { return append([]sample{p.manifest}, p.layers...) }

// store puts an image into the cache; layers may be those of others.
func store(t *testing.T, c *Cache, seed byte, layers ...sample) picture {
	t.Helper()
	p := picture{manifest: newSample(1000+int(seed), seed), layers: layers}
	put(t, c, p.manifest)
	var refs []digest.Digest
	for _, l := range layers {
		refs = append(refs, l.Digest)
	}
	c.Refer(p.manifest.Digest, refs...)
	for _, l := range layers {
		if _, ok := c.Stat(l.Digest); !ok {
			put(t, c, l)
		}
	}
	return p
}

// here tells which of the samples the cache has.
func here(c *Cache, ss ...sample) (which []bool) {
	for _, s := range ss {
		_, ok := c.Stat(s.Digest)
		which = append(which, ok)
	}
	return which
}

// An image goes as one, but for what others need; whatever of it is used, all of
// it is.
func TestEvictionByImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, t.TempDir(), Options{Budget: 6 * mib})
		base := newSample(mib, 1)
		one := store(t, c, 2, base, newSample(mib, 3), newSample(mib, 4))
		pass(time.Minute)
		two := store(t, c, 5, base, newSample(mib, 6))
		pass(time.Minute)
		if !c.Use(one.manifest.Digest) {
			t.Error("the image is not here")
		}
		pass(time.Minute)
		loose := newSample(mib, 7)
		put(t, c, loose)
		put(t, c, newSample(mib, 8)) // two must go, its own layer with it
		if got := here(c, two.all()...); !slices.Equal(got, []bool{false, true, false}) {
			t.Errorf("of the image that was not used %v are here", got)
		}
		if got := here(c, append(one.all(), loose)...); slices.Contains(got, false) {
			t.Errorf("of what was used %v are here", got)
		}
		if c.parents[base.Digest] == nil || len(c.parents[base.Digest]) != 1 || len(c.refs) != 1 {
			t.Errorf("links to what is gone: %v", c.parents)
		}
	})
}

// An index ages with its manifests, whichever of them is used.
func TestAnIndexIsOneImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, t.TempDir(), Options{})
		child := store(t, c, 1, newSample(100, 2))
		index := store(t, c, 3, child.manifest)
		pass(time.Hour)
		other := store(t, c, 4, newSample(100, 5))
		pass(time.Hour)
		c.Use(child.manifest.Digest)
		c.evictOne()
		if got := here(c, slices.Concat(index.all(), child.layers, other.all())...); !slices.Equal(got, []bool{true, true, true, false, false}) {
			t.Errorf("here %v", got)
		}
		c.evictOne()
		if n := len(c.Blobs()); n != 0 {
			t.Errorf("%d blobs of the index are left", n)
		}
	})
}

// What is read, or on its way, or pinned keeps its whole image; when nothing else
// is left what nobody reads of it goes.
func TestWhatKeepsAnImage(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	read := store(t, c, 1, newSample(100, 2), newSample(100, 3))
	coming := newSample(2*mib, 4)
	pulled := picture{manifest: newSample(1000, 5)}
	put(t, c, pulled.manifest)
	c.Refer(pulled.manifest.Digest, coming.Digest)
	f := startFill(t, c, coming)
	pinned := store(t, c, 6, newSample(100, 7))
	c.KeepName("r/a:1", pinned.manifest.Descriptor)
	if err := c.Pin("r/a:1"); err != nil {
		t.Fatal(err)
	}
	b, err := c.Get(t.Context(), read.layers[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	last := store(t, c, 8, newSample(100, 9))
	if !c.evictOne() || slices.Contains(here(c, slices.Concat(read.all(), pinned.all(), []sample{pulled.manifest})...), true) == false {
		t.Fatal("nothing went")
	}
	if got := here(c, slices.Concat(last.all(), read.all(), pinned.all(), []sample{pulled.manifest})...); slices.Contains(got[2:], false) || got[0] || got[1] {
		t.Errorf("first the image that nobody needs should go: %v", got)
	}
	for c.evictOne() {
	}
	if got := here(c, slices.Concat(read.all(), pinned.all())...); !slices.Equal(got, []bool{false, true, false, true, true}) {
		t.Errorf("in use and pinned are not evicted, all else may be: %v", got)
	}
	b.Close()
	write(t, f, coming, honest, 0, 1)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
}

// A pin holds the name: over a restart, for what it is later, and before there is
// anything. What is pinned is no room for fills.
func TestPins(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{Budget: 3 * mib})
	if err := c.Pin("r/a:1"); err != nil {
		t.Fatal(err)
	}
	first := store(t, c, 1, newSample(mib, 2))
	c.KeepName("r/a:1", first.manifest.Descriptor)
	for range 2 {
		if _, _, err := c.Fill(newSample(2*mib, 3).Descriptor); !errors.Is(err, blob.ErrNoSpace) {
			t.Errorf("beside what is pinned: %v", err)
		}
		if c.evictOne() {
			t.Error("what is pinned was evicted")
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = open(t, dir, Options{Budget: 3 * mib})
	}
	second := store(t, c, 4, newSample(mib/2, 5))
	c.KeepName("r/a:1", second.manifest.Descriptor)
	if !c.evictOne() || slices.Contains(here(c, first.all()...), true) {
		t.Error("what the tag was is still pinned")
	}
	if had, err := c.Unpin("r/a:1"); !had || err != nil || !c.evictOne() || len(c.Blobs()) > 0 {
		t.Errorf("unpinned: %v %v, %d blobs left", had, err, len(c.Blobs()))
	}
	if had, err := c.Unpin("r/a:1"); had || err != nil {
		t.Errorf("unpinned again: %v %v", had, err)
	}
}

// Between the marks nothing goes, above the high one all down to the low one.
func TestWaterMarks(t *testing.T) {
	c := open(t, t.TempDir(), Options{Budget: 1000, HighWater: 0.9, LowWater: 0.5})
	for i := range byte(9) {
		put(t, c, newSample(100, i))
	}
	if c.tidy(); len(c.Blobs()) != 9 {
		t.Errorf("%d blobs at the high mark", len(c.Blobs()))
	}
	put(t, c, newSample(100, 10))
	if c.tidy(); len(c.Blobs()) != 5 {
		t.Errorf("%d blobs after the high mark was passed, want 5", len(c.Blobs()))
	}
}

// The disk keeps its free bytes: before a fill, within it, and when others write.
func TestMinFree(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := open(t, t.TempDir(), Options{MinFree: 1000, Metrics: reg})
	var mu sync.Mutex
	free := int64(1250)
	c.disk.free = func(string) (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		return free - c.used, nil
	}
	a, b := newSample(100, 1), newSample(100, 2)
	put(t, c, a)
	put(t, c, b)
	put(t, c, newSample(100, 3))
	if got := here(c, a, b); !slices.Equal(got, []bool{false, true}) {
		t.Errorf("here %v", got)
	}
	if _, _, err := c.Fill(newSample(300, 4).Descriptor); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("a fill that would take it: %v", err)
	}
	free = 1150
	if c.tidy(); len(c.Blobs()) != 1 {
		t.Errorf("%d blobs after somebody else has filled the disk", len(c.Blobs()))
	}
	free = 900
	if err := c.Put(t.Context(), a.Descriptor, bytesOf(a)); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("nothing is left to evict: %v", err)
	}
	if c.tidy(); metric(t, reg, "shoal_cache_excess_bytes", "") != 100 {
		t.Errorf("%v bytes too few are free, want 100", metric(t, reg, "shoal_cache_excess_bytes", ""))
	}
}

// What cannot be evicted is told: the cache stays above its mark.
func TestExcess(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := open(t, t.TempDir(), Options{Budget: 10_000, HighWater: 0.1, LowWater: 0.1, Metrics: reg})
	if err := c.Pin("r/a:1"); err != nil {
		t.Fatal(err)
	}
	p := store(t, c, 1, newSample(500, 2))
	c.KeepName("r/a:1", p.manifest.Descriptor)
	want := float64(p.manifest.Size + 500 - 1000)
	if c.tidy(); metric(t, reg, "shoal_cache_excess_bytes", "") != want || metric(t, reg, "shoal_cache_size_bytes", "") != 10_000 {
		t.Errorf("%v bytes too much, want %v", metric(t, reg, "shoal_cache_excess_bytes", ""), want)
	}
	if _, err := c.Unpin("r/a:1"); err != nil {
		t.Fatal(err)
	}
	if c.tidy(); metric(t, reg, "shoal_cache_excess_bytes", "") != 0 {
		t.Error("too much after the image could go")
	}
}

// What was not used for the age goes as an image; what was used of late stays.
func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, t.TempDir(), Options{MaxAge: time.Hour})
		base := newSample(100, 1)
		old := store(t, c, 2, base, newSample(100, 3))
		held, err := c.Get(t.Context(), old.layers[1].Digest)
		if err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Minute)
		young := store(t, c, 4, base)
		pass(31 * time.Minute)
		if c.tidy(); slices.Contains(here(c, old.all()...), false) {
			t.Error("an image that somebody reads went for its age")
		}
		held.Close()
		c.tidy()
		if got := here(c, slices.Concat(old.all(), young.all())...); !slices.Equal(got, []bool{false, true, false, true, true}) {
			t.Errorf("here %v", got)
		}
		pass(time.Hour)
		if c.tidy(); len(c.Blobs()) > 0 {
			t.Errorf("%d blobs are left", len(c.Blobs()))
		}
	})
}

// Links, uses and names are there after a restart, also after one that left half
// of an image.
func TestLinksAfterACrash(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	p := store(t, c, 1, newSample(100, 2), newSample(100, 3))
	c.KeepName("r/a:1", p.manifest.Descriptor)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(c.blobPath(p.manifest.Digest)); err != nil { // removed, and the record not yet
		t.Fatal(err)
	}
	c = open(t, dir, Options{})
	if len(c.refs) > 0 || len(c.parents) > 0 || len(c.Names()) != 1 {
		t.Errorf("links %v, names %v", c.refs, c.Names())
	}
	put(t, c, p.manifest)
	c.Refer(p.manifest.Digest, p.layers[0].Digest, p.layers[1].Digest)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir, Options{})
	if !c.evictOne() || len(c.Blobs()) != 0 {
		t.Errorf("it is no image after a restart: %d blobs are left", len(c.Blobs()))
	}
}

// Names of fills that fail leave no links, nor does what never comes.
func TestLinksOfWhatDoesNotCome(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	m, l := newSample(2*mib, 1), newSample(100, 2)
	c.Refer(m.Digest, l.Digest)
	if len(c.refs) > 0 {
		t.Error("links of what nobody fetches")
	}
	f := startFill(t, c, m)
	if c.Refer(m.Digest, l.Digest); len(c.refs) != 1 {
		t.Error("no links of what is on its way")
	}
	f.Fail(context.Canceled)
	<-f.Done()
	if len(c.refs) > 0 || len(c.parents) > 0 {
		t.Error("links of what did not come")
	}
}

// What is read, pinned, or was used since stays; a dry run removes nothing and
// says the same.
func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, t.TempDir(), Options{})
		p := store(t, c, 1, newSample(100, 2), newSample(200, 3))
		pinned := newSample(300, 4)
		put(t, c, pinned)
		if err := c.Pin("r/a@" + pinned.Digest.String()); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		young := newSample(400, 5)
		put(t, c, young)
		all := []digest.Digest{p.manifest.Digest, p.layers[0].Digest, p.layers[1].Digest, pinned.Digest, young.Digest, digest.FromString("not here")}
		b, err := c.Get(t.Context(), p.layers[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		want := Removal{Blobs: 2, Bytes: p.manifest.Size + 200, Busy: 0, Pinned: 1}
		pass(time.Second) // the layer that is read was used just now
		for _, dry := range []bool{true, false} {
			if got := c.Remove(all, before, dry); got != want {
				t.Errorf("dry %v: %+v, want %+v", dry, got, want)
			}
		}
		if got := c.Remove(all, time.Time{}, false); got != (Removal{Blobs: 1, Bytes: 400, Busy: 1, Pinned: 1}) {
			t.Errorf("whenever used: %+v", got)
		}
		b.Close()
	})
}

// Every altered blob is found, whatever its date says, no other one is, and it is
// said that they may be brought again.
func TestScrub(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := open(t, t.TempDir(), Options{Metrics: reg})
	events, cancel := c.Subscribe()
	defer cancel()
	for i := range byte(20) {
		s := newSample(mib/2*int(i+1), i)
		put(t, c, s)
		if i%3 != 0 {
			continue
		}
		path := c.blobPath(s.Digest)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		data := slices.Clone(s.data)
		data[len(data)-1-int(i)] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	rotten := 0
	for _, d := range c.unproven(time.Now()) {
		err := c.Scrub(t.Context(), d, Pace(0))
		if errors.Is(err, blob.ErrCorrupt) && errors.Is(err, blob.ErrNotFound) {
			rotten++
		} else if err != nil {
			t.Error(err)
		}
	}
	if rotten != 7 || len(c.Blobs()) != 13 || metric(t, reg, "shoal_cache_rotten_total", "") != 7 || metric(t, reg, "shoal_cache_scrubbed_blobs_total", "") != 20 {
		t.Errorf("found %d of 7, %d blobs left", rotten, len(c.Blobs()))
	}
	clean(t, c)
	told := map[digest.Digest]bool{}
	deadline := time.After(deadline)
	for len(told) < 7 {
		select {
		case e := <-events:
			if e.Rotten {
				told[e.Blob.Digest] = true
			}
		case <-deadline:
			t.Fatalf("told of %d", len(told))
		}
	}
	if err := c.Scrub(t.Context(), digest.FromString("x"), Pace(0)); !errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("what is not here: %v", err)
	}
}

// On its schedule a scrub takes blobs whose proof is old, and only those, at its
// rate.
func TestScrubSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		c := open(t, t.TempDir(), Options{Metrics: reg, ScrubEvery: time.Hour, ScrubRate: mib})
		put(t, c, newSample(20*mib, 1))
		run(t, c)
		done := func() float64 { return metric(t, reg, "shoal_cache_scrubbed_bytes_total", "") / mib }
		if pass(59 * time.Minute); done() != 0 {
			t.Error("scrubbed before its time")
		}
		pass(2*time.Minute + 10*time.Second)
		if n := done(); n < 9 || n > 13 {
			t.Errorf("%v MiB after some 10 s at 1 MiB a second", n)
		}
		if pass(time.Minute); done() != 20 {
			t.Errorf("%v MiB of 20", done())
		}
		if pass(30 * time.Minute); done() != 20 {
			t.Error("scrubbed again before its time")
		}
	})
}

// long leaves a benchmark out that takes long even for one turn, where it is only
// looked at whether benchmarks run.
func long(b *testing.B) {
	b.Helper()
	if testing.Short() {
		b.Skip("takes seconds")
	}
}

// The rate of a scrub is what was asked for, within a tenth, on a real clock.
func BenchmarkScrub(b *testing.B) {
	long(b)
	c, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s := newSample(64*mib, 1)
	if err := c.Put(b.Context(), s.Descriptor, bytesOf(s)); err != nil {
		b.Fatal(err)
	}
	for _, rate := range []int64{0, 20e6, 100e6} {
		b.Run(fmt.Sprint(rate/1e6, "MB/s"), func(b *testing.B) {
			b.SetBytes(s.Size)
			pace := Pace(rate)
			for b.Loop() {
				if err := c.Scrub(b.Context(), s.Digest, pace); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A cache of 10,000 blobs, a tenth of them manifests, is pruned: what is to go is
// found out, and the files are deleted.
func BenchmarkPrune(b *testing.B) {
	long(b)
	const manifests, layers = 1000, 9
	for b.Loop() {
		b.StopTimer()
		c, err := Open(b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		c.disk.sync, c.disk.syncDir = func(*os.File) error { return nil }, func(string) error { return nil }
		for i := range manifests {
			var refs []digest.Digest
			for k := range layers + 1 {
				data := fmt.Append(nil, "blob ", i, k)
				d := blob.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
				if err := c.Put(b.Context(), d, bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
				if refs = append(refs, d.Digest); k == layers {
					c.Refer(d.Digest, refs[:layers]...)
					c.KeepName(fmt.Sprint("r/a:", i), d)
				}
			}
		}
		if err := c.meta.Flush(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		set := images.Find(c.Inventory().Blobs, c.Names())
		done := c.Remove(set.Without(func(images.Image) bool { return true }), time.Now(), false)
		for _, n := range c.Names() {
			if err := c.ForgetName(n.Image); err != nil {
				b.Fatal(err)
			}
		}
		c.flush()
		if done.Blobs != manifests*(layers+1) {
			b.Fatalf("%+v", done)
		}
		c.Close()
	}
}

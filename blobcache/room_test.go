package blobcache

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"shoal/blobcache/blob"
)

// What was not used for longest goes first, and only as much as is needed;
// what is in use stays, and so do running fills.
func TestEviction(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := open(t, t.TempDir(), Options{Budget: 4 * mib, Metrics: reg})
	a, b, d, e := newSample(mib, 1), newSample(mib, 2), newSample(mib, 3), newSample(mib, 4)
	for _, s := range []sample{a, b, d} {
		put(t, c, s)
	}
	has(t, c, a) // b is the oldest now
	put(t, c, e)
	for _, s := range []sample{a, b, d, e} {
		if _, ok := c.Stat(s.Digest); !ok {
			t.Errorf("%s was evicted within the budget", s.Digest)
		}
	}
	held, err := c.Get(t.Context(), d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	two := newSample(2*mib, 5)
	f := startFill(t, c, two)
	if _, ok := c.Stat(b.Digest); !ok {
		t.Error("a claim of a size evicts before a byte has come")
	}
	write(t, f, two, honest, 0, 1) // b goes, then a
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[*sample]bool{&a: false, &b: false, &d: true, &e: true, &two: true} {
		if _, ok := c.Stat(s.Digest); ok != want {
			t.Errorf("%d bytes of seed %v: here %v, want %v", s.Size, s.Digest, ok, want)
		}
		if _, err := os.Stat(c.blobPath(s.Digest)); (err == nil) != want {
			t.Errorf("file of %v: %v", s.Digest, err)
		}
	}
	if n := metric(t, reg, "shoal_cache_evictions_total", ""); n != 2 {
		t.Errorf("%v evictions", n)
	}
	if n := metric(t, reg, "shoal_cache_bytes", ""); n != 4*mib {
		t.Errorf("%v bytes", n)
	}
	if chain, ok := c.Chain(a.Descriptor); !ok || len(chain) != 0 {
		t.Error("the chain went with the blob")
	}
}

// A fill that cannot come to its end is refused before it starts, counting
// what is in use and what running fills will need; idle partial blobs give way.
func TestFillThatCannotFit(t *testing.T) {
	book, reg := new(logbook), prometheus.NewRegistry()
	c := open(t, t.TempDir(), Options{Budget: 6 * mib, Logger: book.logger(), Metrics: reg})
	if _, _, err := c.Fill(newSample(7*mib, 1).Descriptor); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("larger than the budget: %v", err)
	}
	three, four, idle := newSample(3*mib, 2), newSample(4*mib, 3), newSample(3*mib, 4)
	g := startFill(t, c, idle)
	write(t, g, idle, honest, 0, 1)
	g.Fail(errors.New("idle"))
	<-g.Done()
	f := startFill(t, c, three)
	for range 3 {
		if _, _, err := c.Fill(four.Descriptor); !errors.Is(err, blob.ErrNoSpace) {
			t.Errorf("beside a running fill: %v", err)
		}
	}
	write(t, f, three, honest, 0, 1, 2)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	held, err := c.Get(t.Context(), three.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Fill(four.Descriptor); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("beside a blob in use: %v", err)
	}
	held.Close()
	f = startFill(t, c, four)
	write(t, f, four, honest, 0, 1, 2, 3)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, four)
	if _, err := os.Stat(c.fillDir(g.key)); !os.IsNotExist(err) {
		t.Errorf("the idle partial blob: %v", err)
	}
	if n := metric(t, reg, "shoal_cache_no_space_total", ""); n != 5 {
		t.Errorf("counted %v times, want 5", n)
	}
	if n := book.count("the cache has no room"); n != 1 {
		t.Errorf("logged %d times, want once a minute", n)
	}
}

func TestLackOfRoomIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := new(logbook)
		c := open(t, t.TempDir(), Options{Budget: 1, Logger: book.logger()})
		for range 4 {
			if _, _, err := c.Fill(newSample(2, 1).Descriptor); !errors.Is(err, blob.ErrNoSpace) {
				t.Fatal(err)
			}
			pass(30 * time.Second)
		}
		if n := book.count("level=ERROR"); n != 2 {
			t.Errorf("logged %d times in 90 s:\n%v", n, book)
		}
	})
}

// Blobs that came into use after a fill started can take the room it counted
// on: it stays as it is and goes on when there is room again.
func TestBudgetRunsOutMidway(t *testing.T) {
	c := open(t, t.TempDir(), Options{Budget: 4 * mib})
	used := newSample(2*mib, 1)
	put(t, c, used)
	s := newSample(4*mib, 2)
	f := startFill(t, c, s)
	b, err := c.Get(t.Context(), used.Digest)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, s, honest, 0, 2)
	if err := f.WritePiece(1, s.piece(1), honest); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("beyond the budget: %v", err)
	}
	if f.Err() != nil || f.Have().String() != "{0,2}" {
		t.Errorf("have %s, error %v", f.Have(), f.Err())
	}
	b.Close()
	write(t, f, s, honest, 1, 3)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
}

// smallDisk returns a folder on a disk of size bytes: a real one for root,
// otherwise one whose writes fail when the files in it take that much. full
// brings the fault into the cache.
func smallDisk(t *testing.T, size int64) (dir string, full func(*Cache)) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.FormatInt(size, 10)); err == nil {
			t.Cleanup(func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Errorf("unmount: %v", err)
				}
			})
			return dir, func(*Cache) {}
		} else if !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		t.Log("root may not mount here: the full disk is simulated")
	}
	return dir, func(c *Cache) {
		taken := func() (sum int64) {
			_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error {
				var st unix.Stat_t
				if unix.Lstat(path, &st) == nil {
					sum += st.Blocks * 512
				}
				return nil
			})
			return sum
		}
		write := c.disk.writeAt
		c.disk.writeAt = func(f *os.File, p []byte, off int64) (int, error) {
			if taken()+int64(len(p)) > size {
				return 0, unix.ENOSPC
			}
			return write(f, p, off)
		}
		c.disk.free = func(string) (int64, error) { return size - taken(), nil }
	}
}

// A disk that is full is a clear error, and costs nothing that is there.
func TestDiskFull(t *testing.T) {
	dir, full := smallDisk(t, 8*mib)
	book := new(logbook)
	c := open(t, filepath.Join(dir, "cache"), Options{Logger: book.logger()})
	full(c)
	run(t, c)
	kept := newSample(2*mib, 1)
	put(t, c, kept)
	b, err := c.Get(t.Context(), kept.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Fill(newSample(9*mib, 2).Descriptor); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("a fill larger than the disk: %v", err)
	}
	s := newSample(5*mib, 3)
	f := startFill(t, c, s)
	ballast := filepath.Join(dir, "ballast") // somebody else fills the disk
	if err := os.WriteFile(ballast, make([]byte, 3*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	var wrote []int
	for i := range s.n() {
		err = f.WritePiece(i, s.piece(i), honest)
		if err != nil {
			break
		}
		wrote = append(wrote, i)
	}
	if !errors.Is(err, blob.ErrNoSpace) || !errors.Is(err, unix.ENOSPC) || len(wrote) == 0 {
		t.Fatalf("after pieces %v: %v", wrote, err)
	}
	if book.count("the cache has no room") != 1 {
		t.Errorf("the log does not say it:\n%v", book)
	}
	f.Fail(err)
	if err := ends(t, f); !errors.Is(err, blob.ErrNoSpace) {
		t.Error(err)
	}
	data, err := io.ReadAll(b.File())
	if err != nil || len(data) != len(kept.data) {
		t.Errorf("the blob in use: %v", err)
	}
	b.Close()
	has(t, c, kept)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f = startFill(t, c, s)
	if have := f.Have(); have.Count() != uint(len(wrote)) {
		t.Errorf("have %s, wrote %v", have, wrote)
	}
	write(t, f, s, honest, s.all(0)...)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
	has(t, c, kept)
	clean(t, c)
}

// When the disk is full, what nobody uses gives way, whatever the budget says.
func TestDiskFullEvicts(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	old, s := newSample(mib, 1), newSample(mib+1, 2)
	put(t, c, old)
	write := c.disk.writeAt
	c.disk.writeAt = func(f *os.File, p []byte, off int64) (int, error) {
		if _, here := c.Stat(old.Digest); here {
			return 0, unix.ENOSPC
		}
		return write(f, p, off)
	}
	put(t, c, s)
	has(t, c, s)
	if _, ok := c.Stat(old.Digest); ok {
		t.Error("the old blob is still here")
	}
}

// Partial blobs that nobody goes on with are deleted after a day.
func TestStalePartials(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(3*mib, 1)
	f := startFill(t, c, s)
	write(t, f, s, honest, 1)
	f.Fail(errors.New("idle"))
	<-f.Done()
	c.DropPartials(time.Now().Add(-time.Hour), false)
	if _, err := os.Stat(c.fillDir(f.key)); err != nil {
		t.Errorf("a fresh one: %v", err)
	}
	c.DropPartials(time.Now().Add(time.Hour), false)
	if _, err := os.Stat(c.fillDir(f.key)); !os.IsNotExist(err) || c.used != 0 {
		t.Errorf("a stale one: %v, %d bytes", err, c.used)
	}
}

// A budget that is smaller than last time is kept from the start.
func TestSmallerBudget(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	a, b := newSample(mib, 1), newSample(mib, 2)
	put(t, c, a)
	put(t, c, b)
	has(t, c, a)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir, Options{Budget: mib})
	run(t, c)
	until(t, "the cache fits its budget", func() bool { return len(c.Blobs()) == 1 })
	has(t, c, a) // the last used one; times of use outlive the process
}

func TestLRU(t *testing.T) {
	var l lru
	at := func(s int) *entry { return &entry{used: time.Unix(int64(s), 0)} }
	one, two, three := at(1), at(2), at(3)
	for _, e := range []*entry{two, three, one} {
		l.add(e)
	}
	order := func(want ...*entry) {
		t.Helper()
		if got := slices.Collect(l.oldest); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	order(one, two, three)
	l.touch(one, time.Unix(4, 0))
	order(two, three, one)
	l.remove(three)
	order(two, one)
}

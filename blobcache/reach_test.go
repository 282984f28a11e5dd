package blobcache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/internal/meta"
)

func (c *Cache) wantReach(t *testing.T, d digest.Digest, want Reach) {
	t.Helper()
	if got := c.Reach(d); got != want {
		t.Errorf("%s is for %d, want %d", d, got, want)
	}
}

func TestRestrictAndWiden(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	here, private, none := newSample(10, 1), newSample(20, 2), newSample(30, 3)
	put(t, c, here)
	if err := c.Restrict(Permitted, here.Digest, private.Digest); err != nil {
		t.Fatal(err)
	}
	put(t, c, private)
	for _, step := range []struct {
		do                  func() error
		here, private, none Reach
	}{
		{func() error { return nil }, Everybody, Permitted, Everybody},
		{func() error { return c.Restrict(Permitted, private.Digest, none.Digest) }, Everybody, Permitted, Permitted},
		{func() error { return c.Restrict(Members, private.Digest, none.Digest) }, Everybody, Members, Members},
		{func() error { return c.Restrict(Permitted, private.Digest, none.Digest) }, Everybody, Members, Members},
		{func() error { c.Widen(private.Digest); return nil }, Everybody, Everybody, Members},
		{func() error { return c.Restrict(Permitted, private.Digest) }, Everybody, Everybody, Members}, // it is here
		{func() error { c.Widen(none.Digest); return nil }, Everybody, Everybody, Everybody},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		c.wantReach(t, here.Digest, step.here)
		c.wantReach(t, private.Digest, step.private)
		c.wantReach(t, none.Digest, step.none)
	}
}

// Who announces blobs hears of one again when members may have it.
func TestWhatIsWidenedIsNews(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(10, 1)
	if err := c.Restrict(Permitted, s.Digest); err != nil {
		t.Fatal(err)
	}
	put(t, c, s)
	events, cancel := c.Subscribe()
	defer cancel()
	c.Widen(s.Digest)
	select {
	case e := <-events:
		if e.Blob.Digest != s.Digest || e.Gone {
			t.Errorf("event %v", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("no event")
	}
}

// A mark is on disk before anything can be kept under it: it outlives a crash
// at any moment, and eviction.
func TestMarksOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	whole, part, shared := newSample(2*mib, 1), newSample(2*mib, 2), newSample(10, 3)
	if err := c.Restrict(Permitted, whole.Digest, part.Digest); err != nil {
		t.Fatal(err)
	}
	if err := c.Restrict(Members, shared.Digest); err != nil {
		t.Fatal(err)
	}
	// What a crash leaves now: no record, no shutdown.
	crashed := t.TempDir()
	db, err := os.ReadFile(filepath.Join(dir, "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(crashed, "blobs", "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"meta.db": db, filepath.Join("blobs", "sha256", whole.Digest.Encoded()): whole.data} {
		if err := os.WriteFile(filepath.Join(crashed, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, crashed, Options{})
	has(t, again, whole)
	again.wantReach(t, whole.Digest, Permitted)
	again.wantReach(t, part.Digest, Permitted)
	again.wantReach(t, shared.Digest, Members)

	again.Widen(part.Digest)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	again = open(t, crashed, Options{})
	again.wantReach(t, part.Digest, Everybody)
	again.mu.Lock()
	trash := again.detach(again.blobs[whole.Digest])
	again.mu.Unlock()
	again.empty(trash)
	again.wantReach(t, whole.Digest, Permitted) // or what comes back were for everybody
}

// Without the records nobody knows who may have what is here.
func TestMarksThatAreLost(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"gone":   os.Remove,
		"broken": func(path string) error { return os.WriteFile(path, []byte("no database"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := open(t, dir, Options{})
			s := newSample(10, 1)
			put(t, c, s)
			c.wantReach(t, s.Digest, Everybody)
			if err := errors.Join(c.Close(), lose(filepath.Join(dir, "meta.db"))); err != nil {
				t.Fatal(err)
			}
			c = open(t, dir, Options{})
			has(t, c, s)
			c.wantReach(t, s.Digest, Permitted)
			c.Widen(s.Digest)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			open(t, dir, Options{}).wantReach(t, s.Digest, Everybody)
		})
	}
}

// Where marks cannot be written, nothing is kept under them.
func TestMarksThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	d := newSample(10, 1).Digest
	if err := c.meta.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // not only at the first time
		if err := c.Restrict(Permitted, d); !errors.Is(err, blob.ErrNoSpace) {
			t.Errorf("error %v", err)
		}
	}
	var err error
	if c.meta, err = meta.Open(filepath.Join(dir, "meta.db")); err != nil { // for Close
		t.Fatal(err)
	}
}

func TestMarksAreBounded(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(10, 1)
	if err := c.Restrict(Permitted, s.Digest); err != nil {
		t.Fatal(err)
	}
	put(t, c, s)
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range maxMarks {
		c.marks[digest.FromString(fmt.Sprint(i))] = mark{Permitted, now}
	}
	if c.forgetMarks(now); len(c.marks) != maxMarks+1 {
		t.Errorf("%d marks: those that were just named must stay", len(c.marks))
	}
	c.forgetMarks(now.Add(2 * markAge))
	if _, ok := c.marks[s.Digest]; !ok || len(c.marks) != 1 {
		t.Errorf("%d marks", len(c.marks))
	}
}

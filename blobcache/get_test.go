package blobcache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/blob"
)

// A blob that is altered on disk, in whatever way, is found when it is asked
// for, dropped, and never given out; it can be filled again.
func TestAlteredBlobIsDropped(t *testing.T) {
	s := newSample(2*mib+3, 1)
	for name, alter := range map[string]func(path string) error{
		"a bit": func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{s.data[mib] ^ 1}, mib)
			return errors.Join(err, f.Close())
		},
		"a bit, with the old times": func(path string) error {
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			bad := bytes.Clone(s.data)
			bad[0] ^= 1
			return errors.Join(os.WriteFile(path, bad, 0o600), os.Chtimes(path, st.ModTime(), st.ModTime()))
		},
		"truncated": func(path string) error { return os.Truncate(path, mib) },
		"longer": func(path string) error {
			return os.WriteFile(path, append(bytes.Clone(s.data), 0), 0o600)
		},
		"another file": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, newSample(2*mib+3, 2).data, 0o600))
		},
		"removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			book, reg := new(logbook), prometheus.NewRegistry()
			c := open(t, t.TempDir(), Options{Logger: book.logger(), Metrics: reg})
			put(t, c, s)
			has(t, c, s)
			if err := alter(c.blobPath(s.Digest)); err != nil {
				t.Fatal(err)
			}
			if b, err := c.Get(t.Context(), s.Digest); !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("Get: %v %v", b, err)
			}
			if _, ok := c.Stat(s.Digest); ok || len(c.Blobs()) > 0 {
				t.Error("it is still listed")
			}
			if n := metric(t, reg, "shoal_cache_corrupt_total", ""); n != 1 || book.count("blob on disk is not what it was") != 1 {
				t.Errorf("counted %v times; log:\n%v", n, book)
			}
			if n := metric(t, reg, "shoal_cache_bytes", ""); n != 0 {
				t.Errorf("%v bytes are counted", n)
			}
			clean(t, c)
			f := startFill(t, c, s)
			write(t, f, s, honest, s.all(0)...)
			if err := ends(t, f); err != nil {
				t.Fatal(err)
			}
			has(t, c, s)
		})
	}
}

// A file that was touched but not altered is proven again, and then trusted.
func TestTouchedBlobIsProvenAgain(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(mib+1, 3)
	put(t, c, s)
	before := c.entryOf(s).stamp
	if err := os.Chtimes(c.blobPath(s.Digest), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
	if after := c.entryOf(s).stamp; after == before || after.Mtime != time.Unix(1, 0).UnixNano() {
		t.Errorf("stamp %v, was %v", after, before)
	}
}

// The proof of a blob that nobody has touched is renewed after a day.
func TestProofAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, t.TempDir(), Options{})
		s := newSample(mib+1, 4)
		put(t, c, s)
		proven := c.entryOf(s).proven
		pass(24*time.Hour - time.Nanosecond)
		has(t, c, s)
		if c.entryOf(s).proven != proven {
			t.Error("proven again too early")
		}
		pass(time.Nanosecond)
		has(t, c, s)
		if c.entryOf(s).proven != proven.Add(24*time.Hour) {
			t.Error("not proven again after a day")
		}
	})
}

// One proof serves all who ask while it runs, and goes on without them.
func TestProofIsShared(t *testing.T) {
	c := open(t, t.TempDir(), Options{ReverifyAfter: time.Nanosecond})
	s := newSample(8*mib, 5)
	put(t, c, s)
	c.reverify = time.Hour
	c.mu.Lock()
	e := c.blobs[s.Digest]
	e.proven = time.Unix(1, 0)
	c.mu.Unlock()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Get(gone, s.Digest); !errors.Is(err, context.Canceled) {
		t.Errorf("an impatient asker: %v", err)
	}
	has(t, c, s)
	if n := e.pins; n != 0 {
		t.Errorf("%d pins are left", n)
	}
}

func TestGetMissAndHit(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := open(t, t.TempDir(), Options{Metrics: reg})
	s := newSample(10, 6)
	if _, err := c.Get(t.Context(), s.Digest); !errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("Get: %v", err)
	}
	put(t, c, s)
	has(t, c, s)
	has(t, c, s)
	for name, want := range map[string]float64{
		"shoal_cache_hits_total": 2, "shoal_cache_misses_total": 1,
		"shoal_cache_blobs": 1, "shoal_cache_bytes": 10,
	} {
		if got := metric(t, reg, name, ""); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestPut(t *testing.T) {
	s := newSample(mib+7, 7)
	other := newSample(mib+7, 8)
	broken := errors.New("broken")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	unknown := s.Descriptor
	unknown.Size = blob.UnknownSize
	for name, tt := range map[string]struct {
		ctx  context.Context
		d    blob.Descriptor
		r    io.Reader
		want error
	}{
		"right":         {nil, s.Descriptor, bytes.NewReader(s.data), nil},
		"size unknown":  {nil, unknown, bytes.NewReader(s.data), nil},
		"other bytes":   {nil, s.Descriptor, bytes.NewReader(other.data), blob.ErrCorrupt},
		"short":         {nil, s.Descriptor, bytes.NewReader(s.data[:mib]), blob.ErrCorrupt},
		"long":          {nil, s.Descriptor, io.MultiReader(bytes.NewReader(s.data), strings.NewReader("x")), blob.ErrCorrupt},
		"broken reader": {nil, s.Descriptor, io.MultiReader(bytes.NewReader(s.data), iotest.ErrReader(broken)), broken},
		"ctx":           {canceled, s.Descriptor, bytes.NewReader(s.data), context.Canceled},
		"digest":        {nil, blob.Descriptor{Digest: "sha512:00"}, bytes.NewReader(s.data), blob.ErrDigestInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			c := open(t, t.TempDir(), Options{Metrics: reg})
			ctx := tt.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			if err := c.Put(ctx, tt.d, tt.r); !errors.Is(err, tt.want) {
				t.Errorf("Put: %v, want %v", err, tt.want)
			}
			left, err := os.ReadDir(c.partialDir())
			if err != nil || len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
			clean(t, c)
			want := 0.0
			if tt.want == nil {
				want = float64(s.Size)
				has(t, c, s)
				put(t, c, s) // again: fine
				if chain, ok := c.Chain(s.Descriptor); !ok || len(chain) != 1 {
					t.Error("no chain is kept")
				}
			}
			if got := metric(t, reg, "shoal_cache_bytes", ""); got != want {
				t.Errorf("%v bytes are counted, want %v", got, want)
			}
		})
	}
}

// What manifests said is found until the blob itself is here, and adds the
// media type to it.
func TestRememberAndLookup(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	s := newSample(10, 9)
	told := s.Descriptor
	told.MediaType = "application/x-layer"
	unknown := blob.Descriptor{Digest: digest.FromString("?"), Size: blob.UnknownSize}
	c.Remember(told, unknown)
	if d, ok := c.Lookup(s.Digest); !ok || d != told {
		t.Errorf("Lookup: %v %v", d, ok)
	}
	if _, ok := c.Lookup(unknown.Digest); ok {
		t.Error("a descriptor without a size is known")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir, Options{})
	put(t, c, s)
	if d, ok := c.Lookup(s.Digest); !ok || d != told {
		t.Errorf("Lookup of a whole blob: %v %v", d, ok)
	}
	lie := told
	lie.Size++
	c.Remember(lie)
	if d, ok := c.Lookup(s.Digest); !ok || d.Size != s.Size {
		t.Errorf("a fact gives way to a claim: %v", d)
	}
}

// Each change of what is here is an event, and nobody waits for receivers.
func TestEvents(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	a, b := newSample(10, 10), newSample(11, 11)
	events, cancel := c.Subscribe()
	for _, step := range []struct {
		do   func()
		want Event
	}{
		{func() { put(t, c, a) }, Event{Blob: a.Descriptor}},
		{func() { put(t, c, b) }, Event{Blob: b.Descriptor}},
		{func() { c.evictOne() }, Event{Blob: a.Descriptor, Gone: true}},
	} {
		step.do()
		if got := <-events; got != step.want {
			t.Errorf("event %v, want %v", got, step.want)
		}
	}
	cancel()
	if e, ok := <-events; ok {
		t.Errorf("event %v after cancel", e)
	}
	put(t, c, a)
	silent, _ := c.Subscribe()
	for range 10 {
		c.evictOne()
		put(t, c, a) // nobody receives, and nothing blocks
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range silent {
	}
	after, cancel := c.Subscribe()
	cancel()
	if _, ok := <-after; ok {
		t.Error("an event after Close")
	}
}

// For a receiver that lags, each blob has one event: the last.
func TestLaggingSubscriber(t *testing.T) {
	s := &subscription{wake: make(chan struct{}, 1), fresh: map[digest.Digest]Event{}}
	a, b := newSample(1, 1).Descriptor, newSample(1, 2).Descriptor
	for range 100 {
		s.push(Event{Blob: a})
		s.push(Event{Blob: b})
		s.push(Event{Blob: a, Gone: true})
	}
	first, _ := s.pop()
	second, _ := s.pop()
	if _, more := s.pop(); more || first != (Event{Blob: a, Gone: true}) || second != (Event{Blob: b}) {
		t.Errorf("%v, %v, more %v", first, second, more)
	}
}

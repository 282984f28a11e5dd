package blobcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// Every size at which the cut into pieces or SHA-256's padding changes fills,
// in any order, with and without a chain, and leaves the chain behind.
func TestFillOfEverySize(t *testing.T) {
	sizes := []int{0, 1}
	for n := 55; n <= 64; n++ {
		sizes = append(sizes, n)
	}
	for k := 1; k <= 2; k++ {
		sizes = append(sizes, k*mib-1, k*mib, k*mib+1)
	}
	for _, size := range sizes {
		for _, hinted := range []bool{false, true} {
			c := open(t, t.TempDir(), Options{})
			s := newSample(size, 1)
			f := startFill(t, c, s)
			if hinted {
				if err := f.OfferChain(s.chain, "honest", nil); err != nil {
					t.Fatal(err)
				}
			}
			write(t, f, s, honest, rand.Perm(s.n())...)
			if err := ends(t, f); err != nil || len(f.Rejections()) > 0 {
				t.Errorf("size %d: %v", size, err)
			}
			has(t, c, s)
			if chain, ok := c.Chain(s.Descriptor); !ok || !slices.Equal(chain, s.chain) {
				t.Errorf("size %d: chain of %d states, %v", size, len(chain), ok)
			}
			if have, proven := f.Have(), f.Proven(); have.Count() != uint(s.n()) || proven.Count() != uint(s.n()) {
				t.Errorf("size %d: have %d, proven %d", size, have.Count(), proven.Count())
			}
		}
	}
}

// A runtime without access to SHA-256's state fills too, from front to back.
func TestFillWithoutChains(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	c.chains = false
	s := newSample(3*mib+5, 1)
	f := startFill(t, c, s)
	if err := f.OfferChain(s.chain, "honest", nil); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, honest, 3, 1, 2, 0)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
}

// Many goroutines write in random order, every piece several times, while
// readers come, read from anywhere and leave.
func TestManyWritersAndReaders(t *testing.T) {
	for _, hinted := range []bool{false, true} {
		t.Run(fmt.Sprintf("hinted=%v", hinted), func(t *testing.T) {
			c := open(t, t.TempDir(), Options{})
			run(t, c)
			s := newSample(24*mib+99, 2)
			f := startFill(t, c, s)
			if hinted {
				if err := f.OfferChain(s.chain, "honest", nil); err != nil {
					t.Fatal(err)
				}
			}
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for _, i := range rand.Perm(s.n()) {
						if err := f.WritePiece(i, s.piece(i), honest); err != nil {
							t.Errorf("piece %d: %v", i, err)
						}
					}
				})
			}
			for reader := range 8 {
				all.Go(func() { readSome(t, f, s, reader) })
			}
			all.Wait()
			if err := ends(t, f); err != nil {
				t.Fatal(err)
			}
			has(t, c, s)
			if n := c.entryOf(s).pins; n != 0 {
				t.Errorf("%d pins are left", n)
			}
		})
	}
}

// readSome reads a range of f, in one of several ways; every third reader
// leaves before the end.
func readSome(t *testing.T, f *Fill, s sample, number int) {
	t.Helper()
	off := rand.Int64N(s.Size)
	r, err := f.Open(t.Context(), blob.Range{Offset: off, Length: -1})
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	var got bytes.Buffer
	switch number % 3 {
	case 0:
		_, err = r.WriteTo(&got)
	case 1:
		_, err = got.ReadFrom(struct{ io.Reader }{r})
	case 2:
		_, err = io.CopyN(&got, struct{ io.Reader }{r}, min(mib, s.Size-off))
	}
	if want := s.data[off:][:got.Len()]; err != nil || !bytes.Equal(got.Bytes(), want) || number%3 < 2 && int64(got.Len()) != s.Size-off {
		t.Errorf("reader %d from %d: %d bytes, error %v", number, off, got.Len(), err)
	}
}

func (c *Cache) entryOf(s sample) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blobs[s.Digest]
}

// There is one fill for a digest and size: the second asker joins it.
func TestFillIsShared(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := open(t, t.TempDir(), Options{Metrics: reg})
	s := newSample(mib+1, 3)
	f := startFill(t, c, s)
	again := s.Descriptor
	again.MediaType = "application/x-layer"
	g, started, err := c.Fill(again)
	if err != nil || started || g != f || f.Descriptor().MediaType != "application/x-layer" {
		t.Errorf("second Fill: %p %v %v, want %p", g, started, err, f)
	}
	if r, ok := c.Running(s.Digest); !ok || r != f {
		t.Error("it is not running")
	}
	if n := metric(t, reg, "shoal_cache_fills_running", ""); n != 1 {
		t.Errorf("%v fills are running", n)
	}
	write(t, f, s, honest, s.all(0)...)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Running(s.Digest); ok {
		t.Error("it is still running")
	}
	if d, ok := c.Stat(s.Digest); !ok || d != again {
		t.Errorf("Stat: %v %v", d, ok)
	}
	h, started, err := c.Fill(s.Descriptor)
	if err != nil || started || ends(t, h) != nil {
		t.Fatalf("Fill of a whole blob: %v %v", started, err)
	}
	if err := h.WritePiece(0, s.piece(0), honest); err != nil || h.OfferChain(s.chain, "x", nil) != nil {
		t.Errorf("a piece for a whole blob: %v", err)
	}
	r, err := h.Open(t.Context(), blob.Range{Offset: mib, Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, s.data[mib:]) {
		t.Errorf("reads %d bytes, error %v", len(got), err)
	}
	if c.evictOne() {
		t.Error("a blob with a reader was evicted")
	}
	r.Close()
	if _, err := h.Open(t.Context(), blob.Range{Offset: s.Size + 1}); !errors.Is(err, blob.ErrTooLarge) {
		t.Errorf("a range behind the end: %v", err)
	}
	for name, want := range map[string]float64{"committed": 1, "failed": 0} {
		if n := metric(t, reg, "shoal_cache_fills_total", name); n != want {
			t.Errorf("fills %s: %v", name, n)
		}
	}
}

// Conflicting sizes are separate fills; the one that proves its size ends the
// others.
func TestConflictingSizes(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(2*mib, 4)
	claim := s.Descriptor
	claim.Size++
	g, started, err := c.Fill(claim)
	if err != nil || !started {
		t.Fatal(err)
	}
	r, err := g.Open(t.Context(), blob.Range{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := startFill(t, c, s)
	if f == g {
		t.Fatal("two sizes share a fill")
	}
	write(t, f, s, honest, s.all(0)...)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if err := ends(t, g); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("the other size: %v", err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("its reader: %v", err)
	}
	if _, err := os.Stat(c.fillDir(g.key)); !os.IsNotExist(err) {
		t.Errorf("its files: %v", err)
	}
	if _, _, err := c.Fill(claim); !errors.Is(err, blob.ErrCorrupt) {
		t.Errorf("the size is claimed again: %v", err)
	}
	has(t, c, s)
}

func TestFillRefuses(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(1, 5)
	for name, tt := range map[string]struct {
		d    blob.Descriptor
		want error
	}{
		"digest":     {blob.Descriptor{Digest: "sha256:../../etc/passwd", Size: 1}, blob.ErrDigestInvalid},
		"huge":       {blob.Descriptor{Digest: s.Digest, Size: blob.MaxSize + 1}, blob.ErrTooLarge},
		"not empty":  {blob.Descriptor{Digest: s.Digest, Size: 0}, blob.ErrCorrupt},
		"no size":    {blob.Descriptor{Digest: s.Digest, Size: blob.UnknownSize}, nil},
		"over space": {blob.Descriptor{Digest: s.Digest, Size: blob.MaxSize}, blob.ErrNoSpace},
	} {
		f, started, err := c.Fill(tt.d)
		if f != nil || started || err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v %v, want %v", name, started, err, tt.want)
		}
	}
}

func TestWritePieceRefuses(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(mib+10, 6)
	f := startFill(t, c, s)
	for name, write := range map[string]func() error{
		"before the first": func() error { return f.WritePiece(-1, s.piece(0), honest) },
		"behind the last":  func() error { return f.WritePiece(2, s.piece(1), honest) },
		"short":            func() error { return f.WritePiece(0, s.piece(0)[1:], honest) },
		"long last":        func() error { return f.WritePiece(1, s.data[:11], honest) },
		"from nobody":      func() error { return f.WritePiece(0, s.piece(0), Provenance{}) },
		"from two":         func() error { return f.WritePiece(0, s.piece(0), Provenance{Peer: "a", Identity: "b"}) },
	} {
		if write() == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if f.Have().Any() {
		t.Error("something was stored")
	}
}

// What a driver gives up stays on disk, and the next fill goes on from there
// without a single piece again.
func TestFailedFillGoesOn(t *testing.T) {
	for _, complete := range []bool{false, true} {
		c := open(t, t.TempDir(), Options{})
		s := newSample(5*mib, 7)
		f := startFill(t, c, s)
		write(t, f, s, origin, 0, 1, 3)
		r, err := f.Open(t.Context(), blob.Range{Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		gaveUp := errors.New("gave up")
		f.Fail(gaveUp)
		f.Fail(errors.New("twice"))
		if err := ends(t, f); !errors.Is(err, gaveUp) {
			t.Errorf("failed of %v", err)
		}
		if n, err := io.Copy(io.Discard, r); !errors.Is(err, gaveUp) {
			t.Errorf("reader: %d bytes, %v", n, err)
		}
		r.Close()
		if err := f.WritePiece(2, s.piece(2), origin); !errors.Is(err, ErrClosed) {
			t.Errorf("a write after the end: %v", err)
		}
		if _, err := f.Open(t.Context(), blob.Range{}); !errors.Is(err, gaveUp) {
			t.Errorf("a reader after the end: %v", err)
		}
		if _, err := f.Lend(0, 1, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Lend after the end: %v", err)
		}
		f = startFill(t, c, s)
		if got, want := f.Have().String(), "{0,1,3}"; got != want {
			t.Errorf("have %s, want %s", got, want)
		}
		if complete {
			write(t, f, s, origin, 4, 2)
			if err := ends(t, f); err != nil || len(f.Rejections()) > 0 {
				t.Error(err)
			}
			has(t, c, s)
		}
	}
}

// A fill whose files cannot be opened fails, and harms nothing.
func TestFillThatCannotOpen(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(2*mib, 9)
	if err := os.WriteFile(c.fillDir(fillKey{s.Digest, s.Size}), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f, started, err := c.Fill(s.Descriptor); f != nil || started || err == nil {
		t.Errorf("Fill: %v %v", started, err)
	}
	if _, ok := c.Running(s.Digest); ok {
		t.Error("it is running")
	}
	f := startFill(t, c, s) // what was in the way has been put away
	write(t, f, s, honest, 0, 1)
	if err := ends(t, f); err != nil {
		t.Error(err)
	}
}

// Of two who write a piece at once the second waits for the first, and its
// bytes are not looked at.
func TestOnePieceTwoWriters(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(2*mib, 9)
	f := startFill(t, c, s)
	real, writing, goOn := c.disk.writeAt, make(chan struct{}), make(chan struct{})
	c.disk.writeAt = func(file *os.File, p []byte, off int64) (int, error) {
		writing <- struct{}{}
		<-goOn
		return real(file, p, off)
	}
	errs := make(chan error, 2)
	go func() { errs <- f.WritePiece(0, s.piece(0), honest) }()
	<-writing
	go func() { errs <- f.WritePiece(0, s.wrong(0), liar) }()
	until(t, "the second waits", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.changed != nil })
	close(goOn)
	for range 2 {
		select {
		case err := <-errs:
			if err != nil {
				t.Error(err)
			}
		case <-writing:
			t.Fatal("both write")
		}
	}
	c.disk.writeAt = real
	write(t, f, s, honest, 1)
	if err := ends(t, f); err != nil {
		t.Error(err)
	}
}

// Many ask for the same blob at once: one starts it.
func TestFillIsStartedOnce(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(mib+1, 9)
	var all sync.WaitGroup
	var starters atomic.Int32
	for range 16 {
		all.Go(func() {
			f, started, err := c.Fill(s.Descriptor)
			if err != nil {
				t.Error(err)
				return
			}
			if started {
				starters.Add(1)
				write(t, f, s, honest, 0, 1)
			}
			r, err := f.Open(t.Context(), blob.Range{Length: -1})
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, s.data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	if n := starters.Load(); n != 1 {
		t.Errorf("%d starters", n)
	}
}

// The empty blob is whole at once.
func TestEmptyBlob(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(0, 0)
	f := startFill(t, c, s)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(t.Context(), blob.Range{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); len(got) != 0 || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	has(t, c, s)
}

// Closing the cache ends fills and whoever waits on them; the next process
// goes on.
func TestCloseEndsFills(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	s := newSample(4*mib, 10)
	f := startFill(t, c, s)
	write(t, f, s, origin, 1, 2)
	r, err := f.Open(context.Background(), blob.Range{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() { _, err := io.ReadAll(r); read <- err }()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Errorf("reader: %v", err)
	}
	r.Close()
	if err := ends(t, f); !errors.Is(err, ErrClosed) {
		t.Errorf("fill: %v", err)
	}
	if _, _, err := c.Fill(s.Descriptor); !errors.Is(err, ErrClosed) {
		t.Errorf("Fill: %v", err)
	}
	if _, err := c.Get(t.Context(), s.Digest); !errors.Is(err, ErrClosed) {
		t.Errorf("Get: %v", err)
	}
	if err := c.Put(t.Context(), s.Descriptor, bytes.NewReader(s.data)); !errors.Is(err, ErrClosed) {
		t.Errorf("Put: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	c = open(t, dir, Options{})
	f = startFill(t, c, s)
	if got := f.Have().String(); got != "{1,2}" {
		t.Errorf("have %s", got)
	}
}

// The memory that a piece takes does not grow with the piece or the blob.
func TestMemoryIsBounded(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	run(t, c)
	s := newSample(mib, 11)
	const n = 96
	h := proof.NewHasher()
	for range n {
		h.Write(s.data)
	}
	sum := h.Sum()
	f, _, err := c.Fill(blob.Descriptor{Digest: digestOf(sum), Size: n * mib})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, i := range rand.Perm(n) {
		if err := f.WritePiece(i, s.data, honest); err != nil {
			t.Fatal(err)
		}
	}
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	// A buffer of one piece is borrowed for hashing, and comes back.
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(8*mib); got > most {
		t.Errorf("%d pieces allocated %d bytes, want at most %d", n, got, most)
	}
}

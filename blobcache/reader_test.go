package blobcache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"shoal/blobcache/blob"
)

// flows returns how many bytes a reader of the whole may have now.
func flows(t *testing.T, f *Fill) int64 {
	t.Helper()
	var sum int64
	for sum < f.key.size {
		n, _, err := f.available(sum, f.key.size)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		sum += n
	}
	return sum
}

// What may go to a client, and when. Every case ends with the blob whole and
// its reader served to the end.
func TestReleasedPrefix(t *testing.T) {
	s := newSample(5*mib+9, 1)
	for name, tt := range map[string]struct {
		prepare func(c *Cache) // before the fill
		steps   func(c *Cache, f *Fill)
		want    int64
	}{
		"one upstream flows": {
			steps: func(c *Cache, f *Fill) { write(t, f, s, origin, 0, 1, 2) },
			want:  3 * mib,
		},
		"a gap waits": {
			steps: func(c *Cache, f *Fill) { write(t, f, s, origin, 2, 3, 0) },
			want:  1 * mib,
		},
		"another upstream waits": {
			steps: func(c *Cache, f *Fill) {
				write(t, f, s, origin, 0, 1)
				write(t, f, s, mirror, 2, 3)
			},
			want: 2 * mib,
		},
		"the first upstream again behind another waits": {
			steps: func(c *Cache, f *Fill) {
				write(t, f, s, origin, 0, 2, 3)
				write(t, f, s, mirror, 1)
			},
			want: 1 * mib,
		},
		"peers wait": {
			steps: func(c *Cache, f *Fill) { write(t, f, s, honest, 0, 1, 2) },
			want:  0,
		},
		"a peer in between waits": {
			steps: func(c *Cache, f *Fill) {
				write(t, f, s, origin, 0, 2)
				write(t, f, s, honest, 1)
			},
			want: 1 * mib,
		},
		"an offered chain proves nothing": {
			steps: func(c *Cache, f *Fill) {
				if err := f.OfferChain(s.chain, "honest", nil); err != nil {
					t.Fatal(err)
				}
				write(t, f, s, honest, 0, 1, 2)
			},
			want: 0,
		},
		"restored pieces wait": {
			prepare: func(c *Cache) {
				f := startFill(t, c, s)
				write(t, f, s, origin, 0, 1)
				f.Fail(errors.New("restart"))
				<-f.Done()
			},
			steps: func(c *Cache, f *Fill) { write(t, f, s, origin, 2, 3) },
			want:  0,
		},
		"a kept chain proves at once": {
			prepare: func(c *Cache) { put(t, c, s); c.evictOne() },
			steps:   func(c *Cache, f *Fill) { write(t, f, s, honest, 0, 1, 3) },
			want:    2 * mib,
		},
		"a kept chain proves restored pieces": {
			prepare: func(c *Cache) {
				f := startFill(t, c, s)
				write(t, f, s, honest, 0, 1, 2)
				f.Fail(errors.New("restart"))
				<-f.Done()
				put(t, c, s)
				for c.entryOf(s) != nil {
					e := c.entryOf(s)
					c.mu.Lock()
					c.empty(c.detach(e))
					c.mu.Unlock()
				}
			},
			steps: func(c *Cache, f *Fill) {
				until(t, "restored pieces are proven", func() bool { return f.Proven().Count() == 3 })
			},
			want: 3 * mib,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, t.TempDir(), Options{})
			if tt.prepare != nil {
				tt.prepare(c)
			}
			f := startFill(t, c, s)
			tt.steps(c, f)
			if got := flows(t, f); got != tt.want {
				t.Errorf("%d bytes flow, want %d", got, tt.want)
			}
			r, err := f.Open(t.Context(), blob.Range{Length: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			write(t, f, s, origin, s.all(0)...)
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, s.data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err := ends(t, f); err != nil {
				t.Error(err)
			}
		})
	}
}

// The last piece is held until the digest is right, and so is the last piece
// of any range: a body that is not proven never ends cleanly.
func TestLastPieceIsHeld(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(4*mib, 2)
	f := startFill(t, c, s)
	write(t, f, s, origin, 0, 1, 2)
	if got := flows(t, f); got != 3*mib {
		t.Errorf("%d bytes flow", got)
	}
	for _, tt := range []struct{ off, end, want int64 }{
		{0, 2 * mib, mib}, // up to where the range's last piece starts
		{0, 2*mib + 1, 2 * mib},
		{mib, mib + 5, 0},
		{5, mib + 5, mib - 5},
	} {
		n, _, err := f.available(tt.off, tt.end)
		if err != nil || n != tt.want {
			t.Errorf("range %d to %d: %d bytes flow (%v), want %d", tt.off, tt.end, n, err, tt.want)
		}
	}
	f.mu.Lock()
	f.judging = true // closure would come at once
	f.mu.Unlock()
	write(t, f, s, origin, 3)
	if got := flows(t, f); got != 3*mib {
		t.Errorf("%d bytes flow with all pieces here and nothing proven", got)
	}
	if _, wait, err := f.available(4*mib, 4*mib); wait == nil {
		t.Errorf("a reader at the end got %v before the blob was proven", err)
	}
	f.mu.Lock()
	f.judging = false
	f.advance()
	f.mu.Unlock()
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.available(4*mib, 4*mib); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// Readers wait without looking again and again, wake up when something comes,
// and obey their ctx.
func TestReadersWaitAndObey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, t.TempDir(), Options{})
		s := newSample(3*mib, 3)
		f := startFill(t, c, s)
		why := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		r, err := f.Open(ctx, blob.Range{Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var got int64
		ended := make(chan error, 1)
		go func() {
			_, err := r.WriteTo(writer(func(p []byte) { got += int64(len(p)) }))
			ended <- err
		}()
		start := time.Now()
		for i := range 2 {
			synctest.Wait() // the reader is blocked for good
			if got != int64(i)*mib {
				t.Errorf("%d bytes after %d pieces", got, i)
			}
			write(t, f, s, origin, i)
		}
		synctest.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("somebody let %v pass", d)
		}
		cancel(why)
		if err := <-ended; !errors.Is(err, why) {
			t.Errorf("ended with %v", err)
		}
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, why) {
			t.Errorf("Read after the end of ctx: %v", err)
		}
		f.Fail(why)
		<-f.Done()
	})
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// sendfiler is a connection as net/http sees it: it can take from a file
// without copying if it is handed one.
type sendfiler struct {
	t    *testing.T
	got  bytes.Buffer
	runs int
}

func (s *sendfiler) Write([]byte) (int, error) {
	s.t.Error("bytes were copied through user space")
	return 0, errors.New("copied")
}

func (s *sendfiler) ReadFrom(r io.Reader) (int64, error) {
	s.runs++
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		s.t.Errorf("handed a %T", r)
		return 0, errors.New("no file")
	}
	if _, ok := limited.R.(*os.File); !ok {
		s.t.Errorf("handed a limited %T", limited.R)
	}
	return s.got.ReadFrom(r)
}

// What WriteTo and a Blob hand on is what the net package sends by sendfile: a
// limited *os.File.
func TestReaderSendsFiles(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(9*mib+1, 4)
	f := startFill(t, c, s)
	w := &sendfiler{t: t}
	r, err := f.Open(t.Context(), blob.Range{Offset: 7, Length: 8 * mib})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	write(t, f, s, honest, s.all(0)...)
	n, err := r.WriteTo(w)
	if err != nil || n != 8*mib || !bytes.Equal(w.got.Bytes(), s.data[7:8*mib+7]) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if w.runs > 4 {
		t.Errorf("in %d runs", w.runs)
	}
	if err := ends(t, f); err != nil {
		t.Error(err)
	}
}

// The same over a real connection, while the fill runs.
func TestReaderOverHTTP(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(6*mib+1, 5)
	f := startFill(t, c, s)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r, err := f.Open(req.Context(), blob.Range{Length: -1})
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		w.Header().Set("Content-Length", "6291457")
		w.(http.Flusher).Flush()
		if _, err := r.WriteTo(w); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err == nil {
		defer resp.Body.Close()
		write(t, f, s, origin, 0, 1)
		head := make([]byte, mib)
		if _, err := io.ReadFull(resp.Body, head); err != nil || !bytes.Equal(head, s.data[:mib]) {
			t.Errorf("head: %v", err)
		}
		write(t, f, s, honest, s.all(2)...)
		var rest []byte
		if rest, err = io.ReadAll(resp.Body); !bytes.Equal(rest, s.data[mib:]) {
			t.Errorf("the rest has %d bytes", len(rest))
		}
	}
	if err != nil {
		t.Error(err)
	}
	if err := ends(t, f); err != nil {
		t.Error(err)
	}
}

// A reader that is open when its fill commits keeps the blob, and reads what
// it has read again.
func TestReaderPinsWhatItReads(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(2*mib, 6)
	f := startFill(t, c, s)
	r, err := f.Open(t.Context(), blob.Range{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, s, honest, 0, 1)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if c.evictOne() {
		t.Error("evicted in use")
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, s.data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	again := make([]byte, 5)
	if _, err := r.ReadAt(again, mib); err != nil || !bytes.Equal(again, s.data[mib:mib+5]) {
		t.Errorf("ReadAt: %v", err)
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("Read of nothing: %d, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if !c.evictOne() {
		t.Error("not evicted though nobody uses it")
	}
}

// A file that becomes too short under a reader is an error, not an end.
func TestShortFileIsNoEnd(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(2*mib, 7)
	f := startFill(t, c, s)
	var readers []*Reader
	for range 2 {
		r, err := f.Open(t.Context(), blob.Range{Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		readers = append(readers, r)
	}
	write(t, f, s, honest, 0, 1)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(c.blobPath(s.Digest), mib+1); err != nil {
		t.Fatal(err)
	}
	if _, err := readers[0].WriteTo(io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("WriteTo: %v", err)
	}
	if _, err := io.ReadAll(readers[1]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Read: %v", err)
	}
}

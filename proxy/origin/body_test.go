package origin_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/proxy/origin/origintest"
)

func TestASlowReaderIsNotAStall(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddBlob("lib/x", make([]byte, 1<<20))
		st, err := w.repository("u.test").Blobs().Open(t.Context(), d, whole)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Body.Close()
		for range 3 {
			w.pass(time.Hour)
			if _, err := io.ReadFull(st.Body, make([]byte, 300<<10)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestClosingTheBodyEndsTheRequest(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddBlob("lib/x", []byte(data))
		r.Fault(origintest.Fault{Effect: origintest.SilenceAfter(1)})
		st, err := w.repository("u.test").Blobs().Open(t.Context(), d, whole)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Body.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := w.open.Load(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestTheContextGovernsTheBody(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{})
		d := r.AddBlob("lib/x", []byte(data))
		r.Fault(origintest.Fault{Effect: origintest.SilenceAfter(1)})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		_, _, err := read(ctx, w.repository("u.test").Blobs(), d, whole)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("error %v after %v", err, time.Since(begin))
		}
	})
}

func TestTheContextGovernsEveryWait(t *testing.T) {
	for name, effect := range map[string]origintest.Effect{
		"headers":     origintest.Silence(),
		"retry":       origintest.Status(503),
		"retry after": origintest.TooMany(3 * time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r := w.registry("u.test:80", origintest.Options{})
				d := r.AddBlob("lib/x", []byte(data))
				r.Fault(origintest.Fault{Effect: effect})
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
				defer cancel()
				begin := time.Now()
				_, _, err := read(ctx, w.repository("u.test").Blobs(), d, whole)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 30*time.Millisecond {
					t.Errorf("error %v after %v", err, time.Since(begin))
				}
			})
		})
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{}})
		d := r.AddBlob("lib/x", make([]byte, 100<<10))
		repo := w.repository("u.test")
		r.Fault(origintest.Fault{Kind: origintest.Blob, Skip: 3, Times: 1, Effect: origintest.Status(503)})
		for i := range 10 {
			if _, _, err := read(t.Context(), repo.Blobs(), d, blob.Range{Offset: int64(i), Length: 50 << 10}); err != nil {
				t.Fatal(err)
			}
			missing := blob.Descriptor{Digest: digest.FromString("missing"), Size: -1}
			if _, _, err := read(t.Context(), repo.Blobs(), missing, whole); !errors.Is(err, blob.ErrNotFound) {
				t.Fatal(err)
			}
			if _, err := repo.Stat(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.dialled.Load(); n != 1 {
			t.Errorf("%d connections were made, want 1", n)
		}
	})
}

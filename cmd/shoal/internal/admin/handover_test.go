package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/cmd/shoal/internal/handover"
)

// startNear serves the endpoint to programs on this machine, who are told to hand
// files over if they shall. Small requests have so long.
func startNear(t *testing.T, verbs CacheVerbs, told bool, patience time.Duration) (addr string) {
	t.Helper()
	l, err := handover.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	status := Status{ID: "id"}
	if told {
		status.Socket = l.Addr().String()
	}
	srv := httptest.NewUnstartedServer(Handler(Options{
		Gatherer: prometheus.NewRegistry(), Cache: verbs, Logger: slog.New(slog.DiscardHandler),
		Status: func() Status { return status }, Unready: func() string { return "" },
	}))
	srv.Config.ConnContext = handover.Context
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = patience, patience
	srv.Start()
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Config.Serve(l) }()
	t.Cleanup(func() { l.Close(); srv.Close(); <-ended })
	return strings.TrimPrefix(srv.URL, "http://")
}

// The time that small requests have is not that of an archive: to prove or to keep
// what is in it may take longer.
func TestArchivesTakeTheirTime(t *testing.T) {
	const small = 500 * time.Millisecond // in which a busy machine reads a small request
	patient := func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(small + small/5):
			return nil
		}
	}
	verbs := CacheVerbs{
		Export: func(ctx context.Context, _ Export) (*Archive, error) {
			return &Archive{Size: 4, Close: func() {}, Write: func(w io.Writer) error { _, err := io.WriteString(w, "text"); return err }}, patient(ctx)
		},
		Import: func(ctx context.Context, _ Import, r io.Reader) (Imported, error) {
			_, err := io.Copy(io.Discard, r)
			return Imported{Images: []string{}}, errors.Join(err, patient(ctx))
		},
	}
	for _, near := range []bool{true, false} {
		addr := startNear(t, verbs, near, small)
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := (Export{Images: []string{"a"}}).To(t.Context(), addr, f); n != 4 || err != nil {
			t.Errorf("near %t: export: %d, %v", near, n, err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, _, err := (Import{}).Do(t.Context(), addr, f); err != nil {
			t.Errorf("near %t: import: %v", near, err)
		}
		f.Close()
	}
}

// What goes in is the same whether the node reads the file or is sent it.
func TestImportNearAndFar(t *testing.T) {
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, []byte("an archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, near := range []bool{true, false} {
		var got []byte
		handed := false
		addr := startNear(t, CacheVerbs{Import: func(_ context.Context, i Import, r io.Reader) (_ Imported, err error) {
			_, handed = r.(*os.File)
			got, err = io.ReadAll(r)
			return Imported{Images: []string{i.Name}}, err
		}}, near, time.Minute)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, done, err := Import{Name: "a:1"}.Do(t.Context(), addr, f)
		if f.Close(); err != nil || string(got) != "an archive" || handed != near || done.Images[0] != "a:1" {
			t.Errorf("near %t: %q, handed over %t, %+v, %v", near, got, handed, done, err)
		}
	}
}

// What comes out is the same whether the node writes the file or sends it, and so
// is why it does not.
func TestExportNearAndFar(t *testing.T) {
	blobFile := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(blobFile, bytes.Repeat([]byte("blob"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, near := range []bool{true, false} {
		closed, refuse := 0, error(nil)
		addr := startNear(t, CacheVerbs{Export: func(context.Context, Export) (*Archive, error) {
			return &Archive{Size: 5003, Close: func() { closed++ }, Write: func(w io.Writer) error {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return err
				}
				f, err := os.Open(blobFile)
				if err != nil {
					return err
				}
				defer f.Close()
				if _, err := io.CopyN(w, f, 4000); err != nil {
					return err
				}
				_, err = io.Copy(w, strings.NewReader("end"))
				return err
			}}, refuse
		}}, near, time.Minute)
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := Export{Images: []string{"a"}}.To(t.Context(), addr, out)
		if err != nil || n != 5003 || closed != 1 {
			t.Errorf("near %t: %d bytes, %v, closed %d times", near, n, err, closed)
		}
		out.Close()
		want := append(append(make([]byte, 1000), bytes.Repeat([]byte("blob"), 1000)...), "end"...)
		if got, err := os.ReadFile(out.Name()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("near %t: %d bytes, %v", near, len(got), err)
		}
		full, err := os.OpenFile(out.Name(), os.O_RDONLY, 0) // as good as a full disk
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (Export{Images: []string{"a"}}).To(t.Context(), addr, full); !errors.Is(err, map[bool]error{true: ErrRefused, false: ErrBrokenOff}[near]) || !strings.Contains(err.Error(), "export was broken off: write ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("near %t: a file that cannot be written: %v", near, err)
		}
		full.Close()
		refuse = ErrRefused
		if _, err := (Export{Images: []string{"a"}}).To(t.Context(), addr, out); !errors.Is(err, ErrRefused) {
			t.Errorf("near %t: refused: %v", near, err)
		}
	}
}

// A file is written to no further when its asker has left.
func TestAttended(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, leave := context.WithCancel(t.Context())
	leave()
	a := attended{ctx, out}
	if n, err := io.CopyN(a, strings.NewReader("text"), 4); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("copy: %d, %v", n, err)
	}
	if n, err := a.Write([]byte("text")); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("write: %d, %v", n, err)
	}
}

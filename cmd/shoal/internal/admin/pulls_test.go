package admin

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/cmd/shoal/internal/pulls"
	"shoal/proxy/pull"
)

func TestPulls(t *testing.T) {
	dir := t.TempDir()
	store, err := pulls.Open(dir, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(Handler(Options{Pulls: store, Logger: slog.New(slog.DiscardHandler)}))
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	if _, got, err := FetchPulls(t.Context(), addr); err != nil || len(got.Pulls) != 0 {
		t.Errorf("none: %v, %v", got, err)
	}
	for _, image := range []string{"first", "<second>"} {
		store.Add(pull.Report{Summary: pull.Summary{Version: pull.Version, Image: image, Seconds: 1, Result: pull.OK}, Waits: []pull.Wait{{For: pull.Disk, Seconds: 1}}})
	}
	if _, got, err := FetchPulls(t.Context(), addr); err != nil || len(got.Pulls) != 2 || got.Pulls[0].ID != 2 || got.Pulls[0].Image != "<second>" {
		t.Errorf("%v, %v", got, err)
	}
	if _, got, err := FetchPull(2)(t.Context(), addr); err != nil || got.Image != "<second>" || got.Waits[0].For != pull.Disk {
		t.Errorf("%v, %v", got, err)
	}
	if _, _, err := FetchPull(3)(t.Context(), addr); !errors.Is(err, pulls.ErrNotFound) {
		t.Errorf("what there is not: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pulls", "1.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"2": 200, "2.svg": 200, "3": 404, "3.svg": 404, "x": 400, "2.png": 400, ".svg": 400, "1": 500, "-1": 404} {
		if got, text := fetch(t, srv.URL+"/api/v1/pulls/"+path); got != want || want == 404 && !strings.Contains(text, "the last 100 are kept") {
			t.Errorf("%s: %d %s", path, got, text)
		}
	}
	// A picture runs nothing, whoever made up the names in it.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/api/v1/pulls/2.svg", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if h := resp.Header; h.Get("Content-Type") != "image/svg+xml" || h.Get("Content-Security-Policy") != "default-src 'none'; style-src 'unsafe-inline'" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v", h)
	}
}

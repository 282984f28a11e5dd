package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// startCache serves the endpoint with verbs.
func startCache(t *testing.T, verbs CacheVerbs) (addr string) {
	t.Helper()
	srv := httptest.NewServer(Handler(Options{Gatherer: prometheus.NewRegistry(), Cache: verbs, Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// A web page cannot have a browser change the cache.
func TestCacheVerbsAreNotForWebPages(t *testing.T) {
	asked := 0
	addr := startCache(t, CacheVerbs{
		Pin:    func(context.Context, Pin) (Pinned, error) { asked++; return Pinned{}, nil },
		Remove: func(context.Context, Remove) (Removed, error) { asked++; return Removed{}, nil },
		Prune:  func(context.Context, Prune) (Removed, error) { asked++; return Removed{}, nil },
		Verify: func(context.Context, Verify, func(Verified)) error { asked++; return nil },
		Export: func(context.Context, Export) (*Archive, error) { asked++; return nil, nil },
		Import: func(context.Context, Import, io.Reader) (Imported, error) { asked++; return Imported{}, nil },
	})
	for _, path := range []string{pinPath, rmPath, prunePath, verifyPath, exportPath, importPath} {
		for name, c := range map[string]struct {
			header http.Header
			want   int
		}{
			"a form":                 {http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415},
			"text":                   {http.Header{"Content-Type": {"text/plain"}}, 415},
			"another site":           {http.Header{"Content-Type": {"application/json"}, "Origin": {"http://evil.example"}}, 403},
			"a name that leads here": {http.Header{"Content-Type": {"application/json"}, "Sec-Fetch-Site": {"same-origin"}}, 403},
			"an unknown field":       {http.Header{"Content-Type": {"application/json"}}, 400},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+path, strings.NewReader(`{"force":true}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = c.header
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if path == importPath && c.want == 400 {
				c.want = 415 // it takes no JSON at all
			}
			if resp.Body.Close(); resp.StatusCode != c.want {
				t.Errorf("%s, %s: %d, want %d", path, name, resp.StatusCode, c.want)
			}
		}
	}
	if asked > 0 {
		t.Errorf("the node was asked %d times", asked)
	}
}

// What is asked arrives, what is answered comes back, and so do reasons.
func TestCacheVerbs(t *testing.T) {
	refuse := fmt.Errorf("%w: for a reason", ErrRefused)
	steps := []Verified{{Blobs: 1, OfBlobs: 2, Rotten: []Rotten{}}, {Blobs: 2, OfBlobs: 2, Rotten: []Rotten{{Digest: "d", Images: []string{"i"}}}, Done: true}}
	cut := false
	addr := startCache(t, CacheVerbs{
		List: func() Images { return Images{Images: []Image{{Digest: "d", Size: 5}}} },
		Pin:  func(_ context.Context, p Pin) (Pinned, error) { return Pinned{Images: p.Images}, nil },
		Remove: func(_ context.Context, r Remove) (Removed, error) {
			return Removed{Images: r.Images, DryRun: r.DryRun}, nil
		},
		Prune: func(context.Context, Prune) (Removed, error) { return Removed{}, refuse },
		Verify: func(_ context.Context, v Verify, tell func(Verified)) error {
			if v.Rate == 1 {
				return refuse
			}
			for _, s := range steps {
				if tell(s); cut {
					panic(http.ErrAbortHandler)
				}
			}
			return nil
		},
	})
	if _, list, err := FetchImages(t.Context(), addr); err != nil || len(list.Images) != 1 || list.Images[0].Size != 5 {
		t.Errorf("list: %+v, %v", list, err)
	}
	if done, err := (Pin{Images: []string{"a"}}).Do(t.Context(), addr); err != nil || !reflect.DeepEqual(done.Images, []string{"a"}) {
		t.Errorf("pin: %+v, %v", done, err)
	}
	if text, done, err := (Remove{Images: []string{"a"}, DryRun: true}).Do(t.Context(), addr); err != nil || !done.DryRun || !strings.Contains(string(text), `"dry_run": true`) {
		t.Errorf("rm: %s, %+v, %v", text, done, err)
	}
	if _, _, err := (Prune{UnusedFor: 1}).Do(t.Context(), addr); !errors.Is(err, ErrRefused) || err.Error() != "refused: for a reason" {
		t.Errorf("prune: %v", err)
	}
	var seen []Verified
	last, err := Verify{}.Do(t.Context(), addr, func(v Verified) { seen = append(seen, v) })
	if err != nil || !reflect.DeepEqual(seen, steps) || !reflect.DeepEqual(last, steps[1]) {
		t.Errorf("verify: %+v, %v", seen, err)
	}
	if _, err := (Verify{Rate: 1}).Do(t.Context(), addr, func(Verified) {}); !errors.Is(err, ErrRefused) {
		t.Errorf("verify refused: %v", err)
	}
	cut = true
	if _, err := (Verify{}).Do(t.Context(), addr, func(Verified) {}); err == nil {
		t.Error("a verification that was cut off passes for a whole one")
	}
}

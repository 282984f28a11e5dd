package origin

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"shoal/blobcache/blob"
)

// Lists come in pages, as links say; who is asked stays who it is.
func TestLists(t *testing.T) {
	var asked []string
	names := []string{"hub/a", "hub/b/c", "other/d", "hub/e"}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		at, _ := strconv.Atoi(r.URL.Query().Get("last"))
		switch r.URL.Path {
		case "/v2/_catalog":
			w.Header().Set("Link", fmt.Sprintf(`<http://elsewhere.example/v2/_catalog?last=%d&n=1>; rel="next"`, at+1))
			if at+1 == len(names) {
				w.Header().Del("Link")
			}
			fmt.Fprintf(w, `{"repositories":[%q]}`, names[at])
		case "/v2/hub/endless/tags/list":
			w.Header().Set("Link", `</v2/hub/endless/tags/list?last=1>; rel="next"`)
			fmt.Fprint(w, `{"tags":["v1"]}`)
		case "/v2/hub/gap/tags/list", "/v2/hub/torn/tags/list":
			pages := []string{`{"tags":["v1"]}`, `{"tags":null}`, `{"tags":["v2"]}`}
			if at+1 < len(pages) {
				w.Header().Set("Link", fmt.Sprintf(`<?last=%d>; rel="next"`, at+1))
			} else if strings.Contains(r.URL.Path, "torn") {
				w.WriteHeader(http.StatusBadGateway)
			}
			fmt.Fprint(w, pages[at])
		case "/v2/hub/large/tags/list":
			fmt.Fprint(w, strings.Repeat(" ", maxPage+1))
		case "/v2/hub/text/tags/list":
			fmt.Fprint(w, "tags")
		case "/v2/hub/app/tags/list":
			fmt.Fprint(w, `{"name":"hub/app","tags":["v1","v2"]}`)
		default:
			http.Error(w, "{}", http.StatusNotFound)
		}
	}))
	defer srv.Close()
	c, err := New(Options{Registries: Registries{"r.example": {Upstreams: []string{srv.URL + "/hub"}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Repositories(t.Context(), "r.example")
	if err != nil || !slices.Equal(all, []string{"a", "b/c", "e"}) {
		t.Errorf("%q, %v", all, err)
	}
	if want := []string{"/v2/_catalog?n=1000", "/v2/_catalog?last=1&n=1", "/v2/_catalog?last=2&n=1", "/v2/_catalog?last=3&n=1"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
	for name, want := range map[string]error{"app": nil, "gap": nil, "torn": blob.ErrUnavailable, "gone": blob.ErrNotFound, "endless": blob.ErrTooLarge, "large": blob.ErrTooLarge, "text": blob.ErrUnavailable} {
		asked = nil
		r, err := c.Repository("r.example", name)
		if err != nil {
			t.Fatal(err)
		}
		tags, err := r.Tags(t.Context())
		if !errors.Is(err, want) || len(asked) > maxPages || want == nil && !slices.Equal(tags, []string{"v1", "v2"}) || want != nil && len(tags) > 0 {
			t.Errorf("%s: %q, %v after %d questions", name, tags, err, len(asked))
		}
	}
	if _, err := c.Repositories(t.Context(), "127.0.0.1:1"); !errors.Is(err, ErrRegistryRefused) {
		t.Errorf("a registry that is not listed: %v", err)
	}
}

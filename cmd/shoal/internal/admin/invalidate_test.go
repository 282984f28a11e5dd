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

// startInvalidate serves the endpoint with a node that notes what it is asked.
func startInvalidate(t *testing.T, answer Invalidated, err error) (addr string, asked *[]Invalidate) {
	t.Helper()
	asked = &[]Invalidate{}
	srv := httptest.NewServer(Handler(Options{
		Gatherer: prometheus.NewRegistry(),
		Invalidate: func(_ context.Context, ask Invalidate) (Invalidated, error) {
			*asked = append(*asked, ask)
			return answer, err
		},
		Logger: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), asked
}

func TestInvalidate(t *testing.T) {
	want := Invalidated{Image: "docker.io/library/app:v1", Forgotten: 2, Members: 3}
	addr, asked := startInvalidate(t, want, nil)
	for _, ask := range []Invalidate{{Image: "app:v1"}, {Statement: []byte("signed")}} {
		got, err := ask.Do(t.Context(), addr)
		if last := (*asked)[len(*asked)-1]; err != nil || got != want || !reflect.DeepEqual(last, ask) {
			t.Errorf("%+v, %v; asked %+v", got, err, last)
		}
	}
}

func TestInvalidateFails(t *testing.T) {
	ask := Invalidate{Image: "app:v1"}
	addr, _ := startInvalidate(t, Invalidated{}, fmt.Errorf("%w: for a reason", ErrRefused))
	if _, err := ask.Do(t.Context(), addr); !errors.Is(err, ErrRefused) || err.Error() != "refused: for a reason" {
		t.Errorf("refused: %v", err)
	}
	addr, _ = startInvalidate(t, Invalidated{}, errors.New("inner matters"))
	if _, err := ask.Do(t.Context(), addr); err == nil || err.Error() != "500 Internal Server Error: it failed, see the log" {
		t.Errorf("failed: %v", err)
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer other.Close()
	if _, err := ask.Do(t.Context(), strings.TrimPrefix(other.URL, "http://")); err == nil || !strings.Contains(err.Error(), "does not answer like a shoal node") {
		t.Errorf("something else: %v", err)
	}
}

// A web page cannot have a browser change anything, and nothing but what is
// meant is taken for a request.
func TestInvalidateIsNotForWebPages(t *testing.T) {
	addr, asked := startInvalidate(t, Invalidated{Image: "x"}, nil)
	const good = `{"image":"app:v1"}`
	for name, c := range map[string]struct {
		method, body string
		header       http.Header
		want         int
	}{
		"a form":                 {"POST", "image=app", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415},
		"text":                   {"POST", good, http.Header{"Content-Type": {"text/plain"}}, 415},
		"no type":                {"POST", good, nil, 415},
		"another site":           {"POST", good, http.Header{"Content-Type": {"application/json"}, "Origin": {"http://evil.example"}}, 403},
		"a file":                 {"POST", good, http.Header{"Content-Type": {"application/json"}, "Origin": {"null"}}, 403},
		"a name that leads here": {"POST", good, http.Header{"Content-Type": {"application/json"}, "Sec-Fetch-Site": {"same-origin"}}, 403},
		"what a browser asks before": {"OPTIONS", "", http.Header{
			"Origin": {"http://evil.example"}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"content-type"},
		}, 405},
		"a picture":   {"GET", "", nil, 405},
		"nothing":     {"POST", "{}", http.Header{"Content-Type": {"application/json"}}, 400},
		"both":        {"POST", `{"image":"a","statement":"YQ=="}`, http.Header{"Content-Type": {"application/json"}}, 400},
		"more":        {"POST", `{"image":"a","force":true}`, http.Header{"Content-Type": {"application/json"}}, 400},
		"no JSON":     {"POST", "image", http.Header{"Content-Type": {"application/json"}}, 400},
		"without end": {"POST", `{"image":"` + strings.Repeat("a", maxBody) + `"}`, http.Header{"Content-Type": {"application/json"}}, 400},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+addr+invalidatePath, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		for key, values := range c.header {
			req.Header[key] = values
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.want || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d, want %d", name, resp.StatusCode, c.want)
		}
	}
	if len(*asked) > 0 {
		t.Errorf("the node was asked %+v", *asked)
	}
}

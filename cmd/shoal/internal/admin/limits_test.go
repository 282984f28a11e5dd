package admin

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/pace"
)

// startLimits serves the endpoint of a node with two limits.
func startLimits(t *testing.T) (addr string, rules map[string]pace.Rules) {
	t.Helper()
	rules = map[string]pace.Rules{"max-upload": {}, "max-origin": {}}
	srv := httptest.NewServer(Handler(Options{
		Gatherer: prometheus.NewRegistry(),
		Limits: func() []Limit {
			return []Limit{
				{Name: "max-upload", Rules: rules["max-upload"].Words()},
				{Name: "max-origin", Rules: rules["max-origin"].Words(), Rate: 5, Waited: 6, Changed: true},
			}
		},
		SetLimits: func(said map[string]pace.Rules) {
			for name, r := range said {
				rules[name] = r
			}
		},
		Logger: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), rules
}

func TestLimits(t *testing.T) {
	addr, rules := startLimits(t)
	want := Limits{[]Limit{
		{Name: "max-upload", Rules: []string{"5MB/s", "22:00-06:00 unlimited"}},
		{Name: "max-origin", Rules: []string{"unlimited"}, Rate: 5, Waited: 6, Changed: true},
	}}
	if _, got, err := (SetLimits{"max-upload": {"5MB", "22:00-06:00 unlimited"}}).Do(t.Context(), addr); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("set: %+v, %v", got, err)
	}
	if text, got, err := FetchLimits(t.Context(), addr); err != nil || !reflect.DeepEqual(got, want) || !strings.Contains(string(text), `"changed": true`) {
		t.Errorf("shown: %+v, %v", got, err)
	}
	_, _, err := (SetLimits{"max-upload": {"1MB"}, "max-origin": {"5"}}).Do(t.Context(), addr)
	if err == nil || err.Error() != `400 Bad Request: max-origin: "5" is out of range: use 10kB/s to 1TB/s, or unlimited` {
		t.Errorf("a wrong one: %v", err)
	}
	if got := rules["max-upload"].String(); got != "5MB/s, 22:00-06:00 unlimited" {
		t.Errorf("the other was set to %s", got)
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer other.Close()
	if _, _, err := (SetLimits{"max-upload": {"1MB"}}).Do(t.Context(), strings.TrimPrefix(other.URL, "http://")); err == nil || !strings.Contains(err.Error(), "does not answer like a shoal node") {
		t.Errorf("something else: %v", err)
	}
}

// As TestInvalidateIsNotForWebPages, for PUT and POST.
func TestLimitsAreNotForWebPages(t *testing.T) {
	addr, rules := startLimits(t)
	json := http.Header{"Content-Type": {"application/json"}}
	const good = `{"max-upload":"1MB"}`
	for name, c := range map[string]struct {
		method, body string
		header       http.Header
		want         int
	}{
		"a form":           {"POST", good, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415},
		"no type":          {"PUT", good, nil, 415},
		"another site":     {"POST", good, http.Header{"Content-Type": {"application/json"}, "Origin": {"http://evil.example"}}, 403},
		"a name for this":  {"PUT", good, http.Header{"Content-Type": {"application/json"}, "Sec-Fetch-Site": {"same-origin"}}, 403},
		"asked before":     {"OPTIONS", "", http.Header{"Origin": {"http://evil.example"}, "Access-Control-Request-Method": {"PUT"}}, 405},
		"nothing":          {"PUT", `{}`, json, 400},
		"no JSON":          {"PUT", `5MB`, json, 400},
		"no rate":          {"PUT", `{"max-upload":[]}`, json, 400},
		"a number":         {"PUT", `{"max-upload":5}`, json, 400},
		"no limit of ours": {"PUT", `{"max-speed":"5MB"}`, json, 400},
		"without end":      {"PUT", `{"max-upload":"` + strings.Repeat("1", maxBody) + `"}`, json, 400},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+addr+limitsPath, strings.NewReader(c.body))
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
	if got := rules["max-upload"].String(); got != "unlimited" {
		t.Errorf("the limit was set to %s", got)
	}
}

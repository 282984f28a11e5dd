package admin

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// serve starts an endpoint over a registry with one of everything.
func serve(t *testing.T, unready *string, g prometheus.Gatherer) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(Handler(Options{
		Gatherer: g,
		Status: func() Status {
			return Status{ID: "12D3", Joined: true, Peers: 1, Members: []Member{{ID: "12D4"}}, Cache: Cache{Budget: 100}, Fills: []Fill{}}
		},
		Peers: func() []Peer {
			return []Peer{{Member: Member{ID: "12D4", Zone: "attic"}, Connected: true, RoundTrip: 0.5}}
		},
		Unready: func() string { return *unready },
		Logger:  slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(srv.Close)
	return srv
}

func registry(t *testing.T) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewRegistry()
	counter := func(name string, label string, values map[string]float64) {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, []string{label})
		for value, n := range values {
			vec.WithLabelValues(value).Add(n)
		}
		reg.MustRegister(vec)
	}
	gauge := func(name string, n float64) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name})
		g.Set(n)
		reg.MustRegister(g)
	}
	counter("shoal_upstream_bytes_total", "registry", map[string]float64{"docker.io": 1, "ghcr.io": 2})
	counter("shoal_p2p_fetched_bytes_total", "source", map[string]float64{"origin": 1000, "peers": 4})
	counter("shoal_p2p_other_zone_bytes_total", "x", map[string]float64{"": 2})
	counter("shoal_proxy_served_bytes_total", "source", map[string]float64{"cache": 8, "fill": 16, "passthrough": 32})
	counter("shoal_p2p_served_bytes_total", "x", map[string]float64{"": 128})
	gauge("shoal_cache_bytes", 256)
	gauge("shoal_cache_blobs", 512)
	return reg
}

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestEndpoints(t *testing.T) {
	why := "joining"
	srv := serve(t, &why, registry(t))
	for _, tt := range []struct {
		why, path string
		code      int
		body      string
	}{
		{"joining", "/healthz", 200, "ok\n"},
		{"joining", "/readyz", 503, "joining\n"},
		{"", "/readyz", 200, "ready\n"},
		{"stopping", "/readyz", 503, "stopping\n"},
		{"", "/debug/pprof/", 404, "404 page not found\n"},
		{"", "/", 404, "404 page not found\n"},
	} {
		why = tt.why
		if code, body := fetch(t, srv.URL+tt.path); code != tt.code || body != tt.body {
			t.Errorf("%s (%q): %d %q, want %d %q", tt.path, tt.why, code, body, tt.code, tt.body)
		}
	}
	if code, body := fetch(t, srv.URL+"/metrics"); code != 200 || !strings.Contains(body, `shoal_upstream_bytes_total{registry="ghcr.io"} 2`) {
		t.Errorf("metrics: %d %q", code, body)
	}
	resp, err := http.Post(srv.URL+"/api/v1/status", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}

func TestStatusTakesBytesFromTheMetrics(t *testing.T) {
	ready := ""
	srv := serve(t, &ready, registry(t))
	text, s, err := Fetch(t.Context(), strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	want := Status{
		ID: "12D3", Ready: true, Joined: true, Peers: 1, Members: []Member{{ID: "12D4"}},
		Bytes: Bytes{Origin: 3, Peers: 4, OtherZones: 2, CacheHits: 8, ServedClients: 56, ServedPeers: 128},
		Cache: Cache{Bytes: 256, Budget: 100, Blobs: 512}, Fills: []Fill{},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	var contract struct {
		ID, Zone      *string
		Joined, Ready *bool
		Peers         *int
		Bytes         map[string]int64
		Fills         []any
	}
	if err := json.Unmarshal(text, &contract); err != nil {
		t.Fatal(err)
	}
	if contract.ID == nil || contract.Zone == nil || contract.Joined == nil || contract.Ready == nil || contract.Peers == nil || contract.Fills == nil {
		t.Errorf("fields of the contract are missing: %s", text)
	}
	if want := map[string]int64{"origin": 3, "peers": 4, "other_zones": 2, "cache_hits": 8, "served_clients": 56, "served_peers": 128}; !reflect.DeepEqual(contract.Bytes, want) {
		t.Errorf("bytes %v, want %v", contract.Bytes, want)
	}
}

func TestPeers(t *testing.T) {
	ready := ""
	srv := serve(t, &ready, registry(t))
	text, p, err := FetchPeers(t.Context(), strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	want := Peers{Peers: []Peer{{Member: Member{ID: "12D4", Zone: "attic"}, Connected: true, RoundTrip: 0.5}}}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	// What nobody did has no time and no reason.
	if s := string(text); strings.Contains(s, "last") || strings.Contains(s, "ban") || !strings.Contains(s, `"taken": {`) {
		t.Errorf("JSON %s", s)
	}
}

func TestBrokenMetricsAreAnError(t *testing.T) {
	ready := ""
	srv := serve(t, &ready, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return nil, errors.New("broken") }))
	if code, _ := fetch(t, srv.URL+"/api/v1/status"); code != 500 {
		t.Errorf("status %d, want 500", code)
	}
	if _, _, err := Fetch(t.Context(), strings.TrimPrefix(srv.URL, "http://")); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("client: %v", err)
	}
}

func TestFetchFromSomethingElse(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	for name, fetch := range map[string]func() error{
		"status": func() error { _, _, err := Fetch(t.Context(), addr); return err },
		"peers":  func() error { _, _, err := FetchPeers(t.Context(), addr); return err },
	} {
		if err := fetch(); err == nil || !strings.Contains(err.Error(), "does not answer like a shoal node") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDialable(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:5050": "127.0.0.1:5050", "0.0.0.0:5050": "localhost:5050", ":5050": "localhost:5050",
		"[::]:5050": "localhost:5050", "node7:5050": "node7:5050", "[::1]:5050": "[::1]:5050",
	} {
		if got := dialable(in); got != want {
			t.Errorf("dialable(%q) = %q, want %q", in, got, want)
		}
	}
}

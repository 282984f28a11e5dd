// Package admin is the HTTP side that a node shows its operator: health,
// readiness, metrics and status; and the client for it. It keeps no numbers of
// its own: bytes come out of the metrics registry, so that /metrics and the
// status cannot differ. What it can change in the node is what it is given
// functions for, and never for a web page: whoever reaches the address may ask,
// a browser there may not. It starts no goroutines; the caller serves the
// Handler.
package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"shoal/cmd/shoal/internal/pulls"

	"shoal/blobcache/pace"

	"shoal/seeder"
)

// Options are what the endpoint reports on.
type Options struct {
	Gatherer prometheus.Gatherer
	// Status fills in what the node knows of itself; Bytes and the cache's
	// numbers are added from Gatherer.
	Status func() Status
	// Peers lists the members that the node knows.
	Peers func() []Peer
	// Invalidate forgets what was asked for; ErrRefused if that is not to be.
	Invalidate func(context.Context, Invalidate) (Invalidated, error)
	// Pulls are the reports of the last pulls.
	Pulls *pulls.Store
	// Limits lists them, SetLimits replaces the rules of those that are named.
	Limits    func() []Limit
	SetLimits func(map[string]pace.Rules)
	Cache     CacheVerbs
	// Pull fetches images and calls tell again and again with how far each is, the
	// last time when all have ended; until then ErrRefused if that is not to be.
	Pull func(ctx context.Context, ask Pull, tell func([]Progress)) error
	// Preheat is Pull for this node and members that a trusted key names.
	Preheat func(ctx context.Context, ask Preheat, tell func([]Progress)) error
	// Seeder tells what the node fetches by itself; Look has it look at a
	// selection now, or at all: ErrRefused if there is no such one.
	Seeder func() seeder.Report
	Look   func(selection string) error
	// Unready returns why the node should not be used yet or any more, or "".
	Unready func() string
	Logger  *slog.Logger
}

// Handler serves /healthz, /readyz, /metrics, /api/v1/status, /api/v1/peers,
// /api/v1/pull, /api/v1/preheat, and /api/v1/pulls, /api/v1/limits,
// /api/v1/seeder and /api/v1/cache, with what is below them.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := o.Unready(); why != "" {
			writeText(w, http.StatusServiceUnavailable, why)
			return
		}
		writeText(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /api/v1/status", o.serveStatus)
	mux.HandleFunc("GET /api/v1/peers", func(w http.ResponseWriter, _ *http.Request) {
		o.writeJSON(w, Peers{Peers: o.Peers()})
	})
	mux.HandleFunc("GET /api/v1/pulls", func(w http.ResponseWriter, _ *http.Request) {
		o.writeJSON(w, Pulls{Pulls: o.Pulls.List()})
	})
	mux.HandleFunc("GET /api/v1/pulls/{id}", o.serveReport)
	mux.HandleFunc("POST "+invalidatePath, o.serveInvalidate)
	mux.HandleFunc("GET "+limitsPath, func(w http.ResponseWriter, _ *http.Request) { o.writeJSON(w, Limits{o.Limits()}) })
	mux.HandleFunc("PUT "+limitsPath, o.serveSetLimits)
	mux.HandleFunc("POST "+limitsPath, o.serveSetLimits)
	o.handleCache(mux)
	mux.HandleFunc("POST "+pullPath, o.servePull)
	mux.HandleFunc("POST "+preheatPath, o.servePreheat)
	mux.HandleFunc("GET /api/v1/seeder", func(w http.ResponseWriter, _ *http.Request) { o.writeJSON(w, o.Seeder()) })
	mux.HandleFunc("POST "+lookPath, o.serveLook)
	return mux
}

func (o Options) serveStatus(w http.ResponseWriter, _ *http.Request) {
	s := o.Status()
	s.Ready = o.Unready() == ""
	if err := s.addMetrics(o.Gatherer); err != nil {
		o.Logger.Error("status: gather metrics", "error", err)
		http.Error(w, "metrics cannot be gathered, see the log", http.StatusInternalServerError)
		return
	}
	o.writeJSON(w, s)
}

func (o Options) writeJSON(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(answer); err != nil {
		o.Logger.Debug("client went away", "error", err)
	}
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// A prober that went away is not worth a line of log.
	_, _ = io.WriteString(w, text+"\n")
}

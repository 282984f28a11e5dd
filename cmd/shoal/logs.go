package main

import (
	"context"
	"io"
	"log/slog"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"

	"shoal/cmd/shoal/internal/config"
)

// newLogger writes to standard error as the operator wants it.
func newLogger(w io.Writer, cfg config.Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// adoptLibraryLogs ends that libp2p and its DHT write to standard error in
// formats of their own. Their errors are nearly all of peers that failed, which
// is Debug in this house; what matters comes back to us as an error. Whoever
// sets libp2p's own GOLOG_LOG_LEVEL wants to see all of it, and does.
func adoptLibraryLogs(log *slog.Logger, lookup func(string) (string, bool)) {
	if _, set := lookup("GOLOG_LOG_LEVEL"); set {
		return
	}
	gologshim.SetDefaultHandler(demoted{log.With("part", "libp2p").Handler()})
	golog.SetupLogging(golog.Config{Level: golog.LevelFatal})
}

// demoted hands on warnings and errors as Debug.
type demoted struct{ slog.Handler }

// Enabled is of slog.Handler.
func (h demoted) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle is of slog.Handler.
func (h demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is of slog.Handler.
func (h demoted) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demoted{h.Handler.WithAttrs(attrs)}
}

// WithGroup is of slog.Handler.
func (h demoted) WithGroup(name string) slog.Handler { return demoted{h.Handler.WithGroup(name)} }

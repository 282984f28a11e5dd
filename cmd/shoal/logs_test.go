package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"shoal/cmd/shoal/internal/config"
)

func TestLogger(t *testing.T) {
	for _, tt := range []struct {
		cfg  config.Config
		want string
	}{
		{config.Config{LogLevel: slog.LevelInfo, LogFormat: "text"}, "level=INFO msg=b"},
		{config.Config{LogLevel: slog.LevelInfo, LogFormat: "json"}, `"level":"INFO","msg":"b"}`},
	} {
		var out bytes.Buffer
		log := newLogger(&out, tt.cfg)
		log.Debug("a")
		log.Info("b")
		if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q", tt.cfg.LogFormat, got)
		}
	}
}

func TestLibraryErrorsAreDebug(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelInfo:  "",
		slog.LevelDebug: "level=DEBUG msg=boom a=1 g.b=2\n",
	} {
		var out bytes.Buffer
		h := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
		log := slog.New(demoted{h})
		log.Info("chatter")
		log.With("a", 1).WithGroup("g").Error("boom", "b", 2)
		if got := out.String(); got != want {
			t.Errorf("at %s: %q, want %q", level, got, want)
		}
	}
}

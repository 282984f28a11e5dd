package main

import (
	"context"
	"os"
	"os/signal"
	"reflect"
	"syscall"

	"shoal/cmd/shoal/internal/config"
	"shoal/seeder"
)

// hangups returns SIGHUPs from now on; until release, none ends the process.
func hangups() (signals <-chan os.Signal, release func()) {
	all := make(chan os.Signal, 1)
	signal.Notify(all, syscall.SIGHUP)
	return all, func() { signal.Stop(all) }
}

// reload reads the settings again at each SIGHUP, until ctx ends. The limits, and
// what a node fetches by itself, are taken from them; the rest needs a restart.
// Settings that are wrong are logged, and those before stay.
func (s *service) reload(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.hangups:
		}
		next, err := s.reread()
		if err == nil {
			err = s.seeder.Apply(next.Seeder)
		}
		if err != nil {
			s.log.Error("the settings are wrong, those before stay", "error", err)
			continue
		}
		settings := next.Limits()
		s.limits.settings.Store(&settings)
		s.setLimits(settings)
		s.log.Info("settings read again", "selections", len(next.Seeder.Selections), "restart_needed", needsRestart(s.cfg, next))
	}
}

// needsRestart tells whether something else was changed than what reload takes.
func needsRestart(now, next config.Config) bool {
	now.Seeder, next.Seeder = seeder.Config{Webhook: now.Seeder.Webhook}, seeder.Config{Webhook: next.Seeder.Webhook}
	now.MaxUpload, now.MaxDownload, now.MaxOrigin = next.MaxUpload, next.MaxDownload, next.MaxOrigin
	return !reflect.DeepEqual(now, next)
}

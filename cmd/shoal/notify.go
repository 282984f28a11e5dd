package main

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"shoal/cmd/shoal/internal/admin"
)

// reportToManager tells the service manager that started this process that the
// node is ready, as /readyz would, and from then on that it lives, until ctx is
// done. Without one that wants to know (sd_notify(3)) it does nothing.
func (s *service) reportToManager(ctx context.Context) error {
	select {
	case <-s.node.JoinTried():
		s.tellManager(daemon.SdNotifyReady)
	case <-ctx.Done():
		return nil
	}
	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("the service manager's watchdog will not hear of this node", "error", err)
	}
	if patience == 0 {
		return nil
	}
	tick := time.NewTicker(patience / 3) // one answer may be late
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if s.answers(ctx, patience/3) {
				s.tellManager(daemon.SdNotifyWatchdog)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// answers reports whether the node can be talked to, over a socket as others
// do: a process that has run out of file descriptors is no use, for instance.
func (s *service) answers(ctx context.Context, patience time.Duration) bool {
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := admin.Alive(attempt, s.admin.addr())
	if err != nil && ctx.Err() == nil {
		s.log.Warn("this node does not answer itself; its service manager ends it if that goes on", "error", err)
	}
	return err == nil
}

// tellManager tells the service manager a state.
func (s *service) tellManager(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("the service manager was not told", "state", state, "error", err)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"shoal/cmd/shoal/internal/runfile"
)

// drainPatience is how long running responses get after a signal. It is what
// Kubernetes gives a pod, and less than what systemd gives a service.
const drainPatience = 30 * time.Second

// errHurried ends a node that was told twice to stop.
var errHurried = errors.New("stopped by a second signal, running downloads were cut off")

// run is the node until stop ends and running responses have had their time,
// or hurry ends, or a part fails. All goroutines have ended and everything is
// closed when it returns.
func (s *service) run(stop, hurry context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.announce(); err != nil {
		return err
	}
	// Without stop's end: the parts go on while responses are running.
	work, end := context.WithCancel(context.WithoutCancel(stop))
	defer end()
	g, work := errgroup.WithContext(work)
	for name, part := range map[string]func(context.Context) error{"cache": s.cache.Run, "swarm": s.node.Run, "prefetch": s.proxy.Run, "reports": s.seen.Run, "seeder": s.seed} {
		g.Go(func() error { return lasting(work, name, part) })
	}
	for _, e := range s.endpoints() {
		g.Go(e.serve)
	}
	g.Go(func() error { return s.reportToManager(work) })
	g.Go(func() error { return s.reload(work) })
	g.Go(func() error {
		defer s.closeServers()
		defer end()
		select {
		case <-stop.Done():
			return s.drain(hurry)
		case <-work.Done(): // a part failed
			return nil
		}
	})
	err = g.Wait()
	if err == nil {
		s.log.Info("stopped")
	}
	return errors.Join(err, runfile.Remove(s.cfg.DataDir))
}

// lasting runs a part that must not end before ctx.
func lasting(ctx context.Context, name string, part func(context.Context) error) error {
	err := part(ctx)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	if err == nil {
		err = errors.New("ended by itself")
	}
	return fmt.Errorf("%s: %w", name, err)
}

// drain takes no new requests of runtimes and waits for the running ones.
func (s *service) drain(hurry context.Context) error {
	s.stopping.Store(true)
	s.tellManager(daemon.SdNotifyStopping)
	s.log.Info("stopping: running downloads may end, a second signal cuts them off", "patience", drainPatience.String())
	ctx, cancel := context.WithTimeout(hurry, drainPatience)
	defer cancel()
	err := s.mirror.server.Shutdown(ctx)
	switch {
	case hurry.Err() != nil:
		return errHurried
	case errors.Is(err, context.DeadlineExceeded):
		s.log.Warn("downloads that were still running were cut off", "patience", drainPatience.String())
		return nil
	}
	return err
}

// endpoints are those that there are.
func (s *service) endpoints() []endpoint {
	all := []endpoint{s.mirror, s.admin}
	for _, e := range []endpoint{s.files, s.webhook} {
		if e.listener != nil {
			all = append(all, e)
		}
	}
	return all
}

// closeServers cuts all connections.
func (s *service) closeServers() {
	for _, e := range s.endpoints() {
		// Their listeners are all that can fail to close, and are at their end.
		_ = e.server.Close()
	}
}

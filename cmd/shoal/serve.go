package main

import (
	"context"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"shoal/cmd/shoal/internal/config"
	"shoal/proxy/origin"
)

type serveCmd struct {
	config.Flags
}

// Help shows examples.
func (serveCmd) Help() string {
	return `The node is a read-only registry mirror on --mirror, and a member of a swarm on --swarm. What its runtime asks for comes from its cache, from other members, or from the registry, in this order, and is proven against its digest before it goes out.

Alone, as a cache in front of Docker Hub:

    $ shoal serve --data-dir /var/lib/shoal

Two machines that share; the first, with address 10.0.0.1:

    $ shoal serve --swarm-key /etc/shoal/swarm.key
    $ shoal id
    12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F

and the second:

    $ shoal serve --swarm-key /etc/shoal/swarm.key --join /ip4/10.0.0.1/tcp/4001/p2p/12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F

"shoal help configuration" shows a file, "shoal help registries" other registries, "shoal help runtimes" how to point a runtime at the node.

On SIGHUP the node reads its settings again, and takes from them the limits (--max-...) and what it is to fetch by itself ("shoal help seeders"); others need a restart. On SIGTERM and SIGINT running downloads get 30 s to end; a second signal ends at once. Where a port was given as 0, DIR/listen.json says which it is.`
}

// Run is a node until a signal, or until a part of it fails.
func (c serveCmd) Run(env environment) error {
	read := func() (config.Config, error) { return config.Load(c.Flags, env.environ) }
	cfg, err := read()
	if err != nil {
		return err
	}
	log := newLogger(env.stderr, cfg)
	for _, name := range cfg.UnknownNames {
		log.Warn("environment variable names no setting of shoal, ignored", "name", name)
	}
	if f := cfg.DockerConfig; f != "" && !slices.ContainsFunc(slices.Collect(maps.Values(cfg.Registries)), func(r origin.Registry) bool { return r.DockerConfig == f }) {
		log.Warn("docker-config is for registries with \"access: shared\" and no other credentials, and there are none", "file", f)
	}
	adoptLibraryLogs(log, os.LookupEnv)
	limitMemory(os.LookupEnv)
	stop, hurry, release := interrupts(env.ctx)
	defer release()
	hangups, forget := hangups()
	defer forget()
	s, err := newService(env.ctx, cfg, log)
	if err != nil {
		return err
	}
	s.hangups, s.reread = hangups, read
	return s.run(stop, hurry)
}

// interrupts returns a context that ends with the first SIGINT or SIGTERM, and
// one that ends with the second; the third has its usual, final effect. release
// ends both, and the goroutine behind them.
func interrupts(ctx context.Context) (stop, hurry context.Context, release func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	stop, first := context.WithCancel(ctx)
	hurry, second := context.WithCancel(ctx)
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer signal.Stop(signals)
		for _, cancel := range []context.CancelFunc{first, second} {
			select {
			case <-signals:
				cancel()
			case <-quit:
				return
			}
		}
	}()
	return stop, hurry, func() {
		close(quit)
		<-ended
		first()
		second()
	}
}

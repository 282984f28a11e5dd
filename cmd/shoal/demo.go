package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/mattn/go-isatty"

	"shoal/cmd/shoal/internal/demo"
)

type demoCmd struct {
	Keep bool `env:"SHOAL_KEEP" help:"Leave the nodes running until Ctrl-C, and print how to point a dockerd at them."`
}

// Help shows examples.
func (demoCmd) Help() string {
	return `Starts an origin registry with an uplink of 200 Mbit/s and five nodes on free ports of the loopback interface, lets all pull a generated image of 67 MB at once, and prints who got how much from where. It needs no root, no network and no dockerd, and leaves nothing behind.

    $ shoal demo
    $ shoal demo --keep`
}

// Run shows the demo.
func (c demoCmd) Run(env environment) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("demo: find the shoal program: %w", err)
	}
	ctx, stop := signal.NotifyContext(env.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return demo.Run(ctx, demo.Options{Executable: exe, Out: env.stdout, Terminal: isTerminal(env.stdout), Keep: c.Keep})
}

// isTerminal reports whether somebody watches w.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

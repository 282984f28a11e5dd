package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"shoal/blobcache/pace"
	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
)

// statusTimeout is far above what a healthy node needs for an answer, and
// short enough for a person who waits.
const statusTimeout = 5 * time.Second

type statusCmd struct {
	config.Admin
	config.Common
	JSON  bool `name:"json" env:"SHOAL_JSON" help:"Print the JSON of /api/v1/status."`
	Watch bool `short:"w" env:"SHOAL_WATCH" help:"Show it again every second, with rates, until Ctrl-C; on a terminal in place."`
}

// Help shows examples.
func (statusCmd) Help() string {
	return `    $ shoal status
    $ shoal status --watch                   # running fills with rates and the time left
    $ shoal status --json | jq .bytes
    $ shoal status --admin 127.0.0.1:5051

Counters start at zero with the node's process.`
}

// Run asks the node and prints the answer.
func (c statusCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{Admin: c.Admin, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	return look(env, c.Watch, c.JSON, asker(cfg.Admin, admin.Fetch), printStatus)
}

// glance is what a node said at a moment.
type glance[T any] struct {
	at   time.Time
	text []byte // the JSON as it came
	said T
}

// look shows what a node says, once or again and again: its JSON, or what write
// makes of it and of what it said before.
func look[T any](env environment, again, raw bool, ask func(context.Context) (glance[T], error), write func(out io.Writer, now, before glance[T]) error) error {
	show := func(now, before glance[T]) error { return write(env.stdout, now, before) }
	if raw {
		show = func(now, _ glance[T]) error {
			_, err := env.stdout.Write(now.text)
			return err
		}
	}
	if again {
		return watch(env, raw, ask, show)
	}
	now, err := ask(env.ctx)
	if err != nil {
		return err
	}
	return show(now, glance[T]{})
}

// asker returns the function that asks the node at addr.
func asker[T any](addr string, fetch func(ctx context.Context, addr string) ([]byte, T, error)) func(context.Context) (glance[T], error) {
	return func(ctx context.Context) (glance[T], error) {
		ctx, cancel := context.WithTimeout(ctx, statusTimeout)
		defer cancel()
		text, said, err := fetch(ctx, addr)
		if err != nil {
			return glance[T]{}, askError(addr, err)
		}
		return glance[T]{at: time.Now(), text: text, said: said}, nil
	}
}

// askError says what to do about a node that does not answer.
func askError(addr string, err error) error {
	return fmt.Errorf("ask the node at %s: %w; is it running? name its admin endpoint with --admin", addr, err)
}

// printStatus writes it for people, and how much it is more than before, if
// there is a before.
func printStatus(out io.Writer, now, before glance[admin.Status]) error {
	s := now.said
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) // Flush tells
	}
	row("node", "%s", s.ID)
	row("version", "%s", s.Version)
	row("state", "%s", state(s))
	if s.Zone != "" {
		row("zone", "%s", s.Zone)
	}
	row("mirror", "http://%s", s.Mirror)
	for _, addr := range s.Addrs {
		row("join by", "%s", addr)
	}
	for _, line := range reachText(s.Reachability) {
		row("reached", "%s", line)
	}
	if r := s.Reachability.Relaying; r.Enabled {
		row("relays", "%s between members, %d circuits, for %d members", size(r.Bytes), r.Circuits, r.Reservations)
	}
	row("taken", "%s from registries, %s from members, %s found in the cache", size(s.Bytes.Origin), size(s.Bytes.Peers), size(s.Bytes.CacheHits))
	row("served", "%s to runtimes, %s to members", size(s.Bytes.ServedClients), size(s.Bytes.ServedPeers))
	row("cache", "%s of %s, %d blobs", size(s.Cache.Bytes), size(s.Cache.Budget), s.Cache.Blobs)
	for _, l := range s.Limits {
		if rules := strings.Join(l.Rules, ", "); rules != pace.Unlimited.String() {
			row("limit", "%s %v now, by %s", l.Name, pace.Rate(l.Rate), rules)
		}
	}
	for _, m := range s.Members {
		row("member", "%s", strings.Join(slices.DeleteFunc([]string{m.ID, m.Addr, m.Zone, unusual(m.Way)}, func(s string) bool { return s == "" }), " "))
	}
	for _, f := range sorted(s.Fills) {
		row("fill", "%s", fillText(f, earlier(f, before.said), now.at.Sub(before.at)))
	}
	return w.Flush()
}

// reachText says how others reach a node that they cannot dial.
func reachText(r admin.Reachability) []string {
	if !r.BehindNAT {
		return nil
	}
	if len(r.Relays) == 0 {
		return []string{"behind NAT, by members that it is connected to; start a node with --relay for the others"}
	}
	lines := []string{"behind NAT, by members that it is connected to and over relays"}
	return append(lines, r.Relays...)
}

// unusual is the way in which a member is reached if it is worth a word.
func unusual(way string) string {
	if way == "direct" {
		return ""
	}
	return way
}

// state says in a few words whether the node works.
func state(s admin.Status) string {
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	if s.Offline {
		ready += ", offline"
	}
	switch s.Peers {
	case 0:
		return ready + ", no members connected"
	case 1:
		return ready + ", 1 member connected"
	}
	return fmt.Sprintf("%s, %d members connected", ready, s.Peers)
}

// size formats bytes in powers of 1024, as --cache-size reads them.
func size(n int64) string { return units.BytesSize(float64(n)) }

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
	"shoal/seeder"
)

type seederCmd struct {
	Status seederStatusCmd `cmd:"" default:"withargs" help:"Show each selection: when it was looked at, what came of it, and when that is next."`
	Look   seederLookCmd   `cmd:"" help:"Look at a selection now, or at all of them."`
}

type seederStatusCmd struct {
	config.Admin
	config.Common
	JSON  bool `name:"json" env:"SHOAL_JSON" help:"Print the JSON of /api/v1/seeder: all runs with their images, sizes in bytes."`
	Watch bool `short:"w" env:"SHOAL_WATCH" help:"Show it again every second until Ctrl-C; on a terminal in place."`
}

// Help shows examples.
func (seederStatusCmd) Help() string {
	return `    $ shoal seeder
    base: 14 images, 14 here, looked at 12m ago (schedule, took 8s, fetched 2 of 91.3MiB), next in 47m
      holders: 58 blobs of 14 images, each on 3 members in 2 zones or more, checked 4m ago
      left out: 6 no version, 31 older than the newest
    $ shoal seeder --json | jq -r '.selections[].runs[0].images[] | select(.state == "failed") | .image + ": " + .error'

"shoal help seeders" shows the section of the configuration file.`
}

// Run asks the node and prints the answer.
func (c seederStatusCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{Admin: c.Admin, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	return look(env, c.Watch, c.JSON, asker(cfg.Admin, admin.FetchSeeder), func(out io.Writer, now, _ glance[seeder.Report]) error {
		return printSeeder(out, now.said, now.at)
	})
}

// printSeeder writes it for people.
func printSeeder(out io.Writer, report seeder.Report, now time.Time) error {
	if len(report.Selections) == 0 {
		_, err := fmt.Fprintln(out, "no selections: name some under seeder.select in the configuration file (shoal help seeders)")
		return err
	}
	for _, s := range report.Selections {
		if _, err := fmt.Fprintln(out, strings.Join(selectionText(s, now), "\n  ")); err != nil {
			return err
		}
	}
	return nil
}

// selectionText describes a selection: a line, and more for what is under way or
// wrong.
func selectionText(s seeder.SelectionReport, now time.Time) []string {
	text := s.Name + ": not looked at yet"
	if s.Chosen > 0 {
		text = fmt.Sprintf("%s: %s as of %s ago, not looked at yet", s.Name, count(s.Chosen, "image"), since(s.Listed, now))
	}
	var last seeder.Run
	if len(s.Runs) > 0 {
		last = s.Runs[0]
		text = fmt.Sprintf("%s: %s, %d here, looked at %s ago (%s, took %v, fetched %d of %s)", s.Name, count(last.Chosen, "image"),
			last.Unchanged+last.Fetched, since(last.Ended, now), last.Why, last.Ended.Sub(last.Began).Round(time.Millisecond), last.Fetched, size(last.Bytes))
	}
	if last.Failed > 0 {
		text += fmt.Sprintf(", %d FAILED", last.Failed)
	}
	if s.Followed.After(last.Ended) {
		text += fmt.Sprintf(", nothing new %s ago", since(s.Followed, now))
	}
	if !s.Next.IsZero() {
		text += fmt.Sprintf(", next in %s", since(now, s.Next))
	}
	lines, unlisted := []string{text}, last.Errors
	if r := s.Running; r != nil {
		if len(r.Errors) > 0 {
			unlisted = r.Errors
		}
		lines[0] += fmt.Sprintf(", running (%s): %d of %s", r.Why, r.Unchanged+r.Fetched+r.Failed, count(r.Chosen, "image"))
		for _, p := range r.Images {
			if !p.Ended() {
				lines = append(lines, progressText(p, ""))
			}
		}
	}
	for _, p := range last.Images {
		if p.State == seeder.Failed {
			lines = append(lines, p.Image+": "+p.Error)
		}
	}
	lines = append(lines, unlisted...)
	lines = append(lines, holdersText(s.Holders, now)...)
	var left []string
	for _, why := range slices.Sorted(maps.Keys(last.LeftOut)) {
		left = append(left, fmt.Sprintf("%d %s", last.LeftOut[why], why))
	}
	if len(left) > 0 {
		lines = append(lines, "left out: "+strings.Join(left, ", "))
	}
	return lines
}

// holdersText describes a check of who holds what a selection has; nil is none.
func holdersText(h *seeder.Holders, now time.Time) []string {
	if h == nil {
		return nil
	}
	want := fmt.Sprintf("%s in %s", count(h.Want, "member"), count(h.Zones, "zone"))
	text := fmt.Sprintf("holders: %s of %s, each on %s or more", count(h.Blobs, "blob"), count(h.Images, "image"), want)
	if h.ShortImages > 0 {
		text = fmt.Sprintf("holders: %d of %s, %d of %s on FEWER than %s", h.ShortImages, count(h.Images, "image"), h.Short, count(h.Blobs, "blob"), want)
	}
	text += fmt.Sprintf(", checked %s ago", since(h.Ended, now))
	if h.Done+h.Failed > 0 {
		text += fmt.Sprintf(" (%d were short: members have fetched %s, %d failed)", h.Missing, count(h.Done, "image"), h.Failed)
	}
	lines := []string{text}
	for _, i := range h.Why {
		if i.Holders == 0 {
			lines = append(lines, fmt.Sprintf("%s: who holds it is not known, as it cannot be had here: %s", i.Image, i.Error))
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: on %s in %s: %s", i.Image, count(i.Holders, "member"), count(i.Zones, "zone"), i.Error))
	}
	return lines
}

// since is the time between two others, in whole seconds.
func since(from, to time.Time) time.Duration { return max(0, to.Sub(from).Round(time.Second)) }

type seederLookCmd struct {
	Selection string `arg:"" optional:"" help:"Name of the selection; none is all."`
	config.Admin
	config.Common
}

// Help shows examples.
func (seederLookCmd) Help() string {
	return `    $ shoal seeder look base
    $ shoal seeder look

It begins, and does not wait for the end: "shoal seeder --watch" shows how far it is.`
}

// Run has the node look.
func (c seederLookCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{Admin: c.Admin, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(env.ctx, statusTimeout)
	defer cancel()
	err = admin.Look{Selection: c.Selection}.Do(ctx, cfg.Admin)
	switch {
	case errors.Is(err, admin.ErrRefused):
		return fmt.Errorf("the node at %s: %w", cfg.Admin, err)
	case err != nil:
		return askError(cfg.Admin, err)
	}
	return nil
}

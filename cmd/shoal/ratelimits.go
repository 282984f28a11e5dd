package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"shoal/blobcache/pace"
	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
)

type limitsCmd struct {
	MaxUpload   config.Words `env:"-" placeholder:"RATE" help:"Most bytes a second that go to members, all together: 50MB (50,000,000), 50MiB, 400Mbit, or 0 or unlimited. Repeat with hours for what counts then."`
	MaxDownload config.Words `env:"-" placeholder:"RATE" help:"The same for bytes that come from members and registries together."`
	MaxOrigin   config.Words `env:"-" placeholder:"RATE" help:"The same for bytes that come from registries."`
	config.Admin
	config.Common
	JSON bool `name:"json" env:"SHOAL_JSON" help:"Print the JSON of /api/v1/limits: rates in bytes a second, 0 for none."`
}

// Help shows examples.
func (limitsCmd) Help() string {
	return `    $ shoal limits
    $ shoal limits --max-upload 5MB
    $ shoal limits --max-upload 5MB --max-upload "22:00-06:00 unlimited"
    $ shoal limits --max-upload unlimited --max-origin 400Mbit

A change counts at once, for transfers that are running, too, and until the node ends or gets a SIGHUP: then its settings count again. What shall last belongs into its file. NOW is what counts at this hour, WAITED the bytes that had to wait since the node's start. "shoal help bandwidth" says more.`
}

// Run asks the node, or tells it what to change, and prints the answer.
func (c limitsCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{Admin: c.Admin, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	ask := admin.SetLimits{}
	for name, words := range map[string]config.Words{
		config.MaxUploadKey: c.MaxUpload, config.MaxDownloadKey: c.MaxDownload, config.MaxOriginKey: c.MaxOrigin,
	} {
		if len(words) == 0 {
			continue
		}
		if _, err := pace.Parse(words); err != nil {
			return &config.Error{Where: "--" + name, Err: err}
		}
		ask[name] = admin.Rules(words)
	}
	fetch := admin.FetchLimits
	if len(ask) > 0 {
		fetch = ask.Do
	}
	return look(env, false, c.JSON, asker(cfg.Admin, fetch), func(out io.Writer, now, _ glance[admin.Limits]) error {
		return printLimits(out, now.said.Limits)
	})
}

// printLimits writes a table for people.
func printLimits(out io.Writer, limits []admin.Limit) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "LIMIT\tNOW\tWAITED\tRULES") // Flush tells
	var changed []string
	for _, l := range limits {
		_, _ = fmt.Fprintf(w, "%s\t%v\t%s\t%s\n", l.Name, pace.Rate(l.Rate), size(l.Waited), strings.Join(l.Rules, ", "))
		if l.Changed {
			changed = append(changed, l.Name)
		}
	}
	err := w.Flush()
	if len(changed) > 0 {
		_, werr := fmt.Fprintf(out, "changed since the start, until the node ends or gets a SIGHUP: %s\n", strings.Join(changed, ", "))
		err = errors.Join(err, werr)
	}
	return err
}

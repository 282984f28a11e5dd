package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
	"shoal/cmd/shoal/internal/pulls"
	"shoal/cmd/shoal/internal/waterfall"
	"shoal/proxy/pull"
)

type pullsCmd struct {
	ID int `arg:"" optional:"" help:"The number of a pull: shows all of its report."`
	config.Admin
	config.Common
	JSON   bool   `name:"json" env:"SHOAL_JSON" help:"Print the JSON of /api/v1/pulls, or of the pull: sizes in bytes, times in seconds."`
	SVG    bool   `name:"svg" env:"SHOAL_SVG" help:"Draw the pull, for a browser."`
	Output string `short:"o" placeholder:"FILE" env:"SHOAL_OUTPUT" help:"Write to this file instead of standard output."`
	Limit  uint   `default:"100" placeholder:"COUNT" env:"SHOAL_LIMIT" help:"List so many pulls at most; 0 lists all. Default: 100, which are kept."`
}

// Help shows examples.
func (pullsCmd) Help() string {
	return `    $ shoal pulls
    $ shoal pulls 17
    $ shoal pulls 17 --svg -o pull.svg
    $ shoal pulls --json | jq '.pulls[] | select(.ratio > 2) | .why'

Of the last 100 pulls, also from before a restart, the last one first. TOOK is the time from the first request to the last byte, RATIO that time over the bound: what it would have taken if every source had given, and the client had taken, all the time at the rate that was seen of it. "shoal help slow-pulls" says what the reports mean and how pulls are told apart.`
}

// Run asks the node and prints the answer.
func (c pullsCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{Admin: c.Admin, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	if c.SVG && (c.ID == 0 || c.JSON) {
		return &config.Error{Where: "--svg", Err: errors.New("it draws one pull: name its number, without --json")}
	}
	if c.Output == "" {
		return c.show(env, cfg.Admin)
	}
	var text bytes.Buffer // a file is for an answer, and not for a lack of one
	env.stdout = &text
	if err := c.show(env, cfg.Admin); err != nil {
		return err
	}
	if err := os.WriteFile(c.Output, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

// show writes what the node at addr says to standard output.
func (c pullsCmd) show(env environment, addr string) error {
	if c.ID == 0 {
		return look(env, false, c.JSON, asker(addr, admin.FetchPulls), func(out io.Writer, now, _ glance[admin.Pulls]) error {
			return printPulls(out, now.said.Pulls, int(c.Limit))
		})
	}
	err := look(env, false, c.JSON, asker(addr, admin.FetchPull(c.ID)), func(out io.Writer, now, _ glance[pull.Report]) error {
		now.said.Began = now.said.Began.Local()
		if c.SVG {
			_, err := io.WriteString(out, waterfall.SVG(now.said))
			return err
		}
		return waterfall.Text(out, now.said)
	})
	if errors.Is(err, pulls.ErrNotFound) {
		return fmt.Errorf("no pull %d: the last %d are kept, \"shoal pulls\" lists them", c.ID, pulls.Kept)
	}
	return err
}

// printPulls writes a table for people, of limit pulls at most or, if it is zero,
// of all.
func printPulls(out io.Writer, list []pull.Summary, limit int) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "no pull has ended yet; one shows here some seconds after its last byte")
		return err
	}
	if limit > 0 {
		list = list[:min(limit, len(list))]
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ID\tBEGAN\tIMAGE\tPLATFORM\tTOOK\tBYTES\tREGISTRY\tMEMBERS\tCACHE\tRATIO\tWHY") // Flush tells, here and below
	for _, p := range list {
		ratio := "-"
		if p.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", p.Ratio)
		}
		_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, p.Began.Local().Format("01-02 15:04:05"), shortImage(p.Image), cmp.Or(p.Platform, "-"),
			waterfall.Seconds(p.Seconds), size(p.Bytes), part(p.FromOrigin), part(p.FromPeers), part(p.FromCache), ratio, p.Why)
	}
	return w.Flush()
}

// part is how much came from somewhere.
func part(n int64) string {
	if n == 0 {
		return "-"
	}
	return size(n)
}

// shortImage leaves out of an image's name what people leave out, and most of a
// digest.
func shortImage(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/")
	if before, digest, ok := strings.Cut(name, "@"); ok {
		name = before + "@" + digest[:min(len(digest), len("sha256:")+12)]
	}
	return name
}

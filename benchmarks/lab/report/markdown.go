package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"shoal/benchmarks/rig"
)

// Markdown writes the results for people.
func (r *Results) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Lab, %s\n\n", r.Started.UTC().Format(time.DateTime+" MST"))
	fmt.Fprintf(&b, "Commit %s; %d x %s, %.0f GB; Linux %s, %s; data on %s, where writing alone takes %.1f CPU s/GB; load before %.2f.\n",
		r.Commit, r.Machine.CPUs, r.Machine.Model, float64(r.Machine.Memory)/1e9, r.Machine.Kernel, r.Machine.Go, r.Machine.Data, r.Machine.WriteCPU, r.Machine.Load)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(&b, "%s: %s. ", name, r.Versions[name])
	}
	b.WriteString("\n\n")
	r.runTable(&b)
	r.verdictList(&b)
	r.failureList(&b)
	r.turnTable(&b)
	r.pullTable(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Results) runTable(b *strings.Builder) {
	if len(r.Runs) == 0 {
		return
	}
	b.WriteString("Medians (least-largest). *Proven* and *client* are times, as shares of the bound, until the last node\n" +
		"has the image whole and proven and until the last client has its last byte; *copies* is what left the\n" +
		"origin, *zone* what came into the zone that most came into, headers included; *later* the longest turn but the first,\n" +
		"as a share of the bound; *relayed* what the relay carried, by the image; *limit* by which share rates were off their limit;\n" +
		"*others* is the largest share of the processors that programs outside of the lab took in a run.\n\n")
	b.WriteString("| scenario | contender | runs | proven / bound | client / bound | copies | zone | CPU s/GB | later | relayed | limit | proven, s | others |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.Summaries() {
		runs := fmt.Sprint(s.Runs)
		if s.Failed > 0 {
			runs = fmt.Sprintf("%d, **%d failed**", s.Runs, s.Failed)
		}
		cells := []string{s.Scenario, s.Contender, runs}
		for _, f := range Figures() {
			cells = append(cells, s.Figures[f].String())
		}
		cells = append(cells, s.Seconds.String(), fmt.Sprintf("%.0f %%", 100*s.Others))
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
}

// verdictList says of each target whether it was reached.
func (r *Results) verdictList(b *strings.Builder) {
	var rows strings.Builder
	for _, s := range r.Summaries() {
		for _, v := range s.Verdicts {
			word, median := "**MISSED**", fmt.Sprintf("%.3f", v.Median)
			switch {
			case v.Met:
				word = "met"
			case s.Figures[v.Figure].Count == 0:
				median = "not measured"
			}
			fmt.Fprintf(&rows, "| %s | %s | %.2f | %s | %s |\n", s.Scenario, v.Figure, v.Most, median, word)
		}
	}
	if rows.Len() > 0 {
		b.WriteString("\n## Targets\n\n| scenario | target | at most | median | |\n|---|---|---|---|---|\n" + rows.String())
	}
}

// failureList names the runs that failed.
func (r *Results) failureList(b *strings.Builder) {
	var lines []string
	for _, run := range r.Runs {
		if run.Error != "" {
			lines = append(lines, fmt.Sprintf("* %s, %s, round %d: %s\n", run.Scenario, run.Contender, run.Round, oneLine(run.Error)))
		}
	}
	for _, p := range r.Pulls {
		if p.Error != "" {
			lines = append(lines, fmt.Sprintf("* docker pull, %s, round %d: %s\n", p.Way, p.Round, oneLine(p.Error)))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(b, "\n## Runs that failed\n\n%s", strings.Join(lines, ""))
	}
}

// oneLine returns the beginning of an error, which may hold a program's output.
func oneLine(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}

// pullTable tells what dockerds took.
func (r *Results) pullTable(b *strings.Builder) {
	if len(r.Pulls) == 0 {
		return
	}
	b.WriteString("\n## docker pull\n\nSeconds until the image is unpacked; medians over the rounds.\n\n")
	b.WriteString("| way | rounds | MB | first dockerd | last dockerd | copies |\n|---|---|---|---|---|---|\n")
	var ways []string
	for _, p := range r.Pulls {
		if !slices.Contains(ways, p.Way) {
			ways = append(ways, p.Way)
		}
	}
	for _, way := range ways {
		var first, last, copies []float64
		var bytes int64
		for _, p := range r.Pulls {
			if p.Way != way || p.Error != "" || len(p.Seconds) == 0 {
				continue
			}
			first, last = append(first, slices.Min(p.Seconds)), append(last, slices.Max(p.Seconds))
			copies, bytes = append(copies, p.Copies), p.Bytes
		}
		fmt.Fprintf(b, "| %s | %d | %.0f | %v | %v | %v |\n", way, len(first), float64(bytes)/1e6, rig.SpreadOf(first), rig.SpreadOf(last), rig.SpreadOf(copies))
	}
}

package waterfall

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"shoal/proxy/pull"
)

// columns is the width of a bar of text: a row fits into 120.
const columns = 60

// Text writes a report for people, the time in its own zone.
func Text(out io.Writer, r pull.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) // Flush tells
	}
	row("pull", "%d", r.ID)
	row("image", "%s", strings.TrimSpace(r.Image+" "+r.Platform))
	row("client", "%s", r.Client)
	row("began", "%s", r.Began.Format(time.DateTime))
	row("took", "%s, %s: %s", Seconds(r.Seconds), bound(r), result(r))
	row("bytes", "%s: %s from registries, %s from members, %s from the cache", size(r.Bytes), size(r.FromOrigin), size(r.FromPeers), size(r.FromCache))
	if zones := zoneText(r.Zones); zones != "" {
		row("zones", "%s", zones)
	}
	row("why", "%s", r.Why)
	for i, wait := range r.Waits {
		name := ""
		if i == 0 {
			name = "waited for"
		}
		row(name, "%8s  %5s  %s", Seconds(wait.Seconds), percent(wait.Seconds/r.Seconds), causeText(wait.For))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := textSources(out, r); err != nil || len(r.Rows) == 0 {
		return err
	}
	return textRows(out, r)
}

// zoneText is what came from the members of each zone; empty if none has a name.
func zoneText(zones []pull.Zone) string {
	var parts []string
	named := false
	for _, z := range zones {
		named = named || z.Zone != ""
		parts = append(parts, fmt.Sprintf("%s from %s", size(z.Bytes), cmp.Or(z.Zone, "members without a zone")))
	}
	if !named {
		return ""
	}
	return strings.Join(parts, ", ")
}

func result(r pull.Report) string {
	if r.Error == "" {
		return string(r.Result)
	}
	return string(r.Result) + ", " + r.Error
}

func textSources(out io.Writer, r pull.Report) error {
	if len(r.Sources) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nSOURCE\tZONE\tBYTES\tRATE\tBUSY") // Flush tells
	for _, s := range r.Sources {
		speed, busy := "-", "-"
		if s.Rate > 0 {
			speed, busy = rate(s.Rate), percent(s.Busy)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", sourceName(s), cmp.Or(s.Zone, "-"), size(s.Bytes), speed, busy)
	}
	return w.Flush()
}

func textRows(out io.Writer, r pull.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	from, to := begin(r), end(r)
	_, _ = fmt.Fprintf(w, "\nWHAT\tDIGEST\tSIZE\tSTART\tEND\t%s\n", scale(from, to))
	for _, row := range r.Rows {
		note := ""
		if row.Result != pull.OK {
			note = " " + string(row.Result)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t|%s|%s\n", row.Kind, short(row.Digest), size(row.Size), Seconds(row.Start), Seconds(row.End), bar(r, row, from, to), note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "\no from the registry, m from members, c from the cache, . waiting, p being proven, > on its way to the client")
	return err
}

// scale is the axis above the bars.
func scale(from, to float64) string {
	left, right := Seconds(from), Seconds(to)
	return "|" + left + strings.Repeat(" ", max(1, columns-len(left)-len(right))) + right + "|"
}

// bar draws a row between two times.
func bar(r pull.Report, row pull.Row, from, to float64) string {
	line := []byte(strings.Repeat(" ", columns))
	width := (to - from) / columns
	for i := range line {
		a := from + float64(i)*width
		line[i] = mark(r, row, a, a+width)
	}
	return string(line)
}

// mark is the letter of a row between two times.
func mark(r pull.Report, row pull.Row, from, to float64) byte {
	if n := most(row, from, to); n >= 0 {
		return letter(r.Sources[n].Kind)
	}
	first := row.End
	if row.First != nil {
		first = *row.First
	}
	switch cached := row.Fetched == nil && len(row.From) > 0; {
	case to <= row.Start && (row.Fetched == nil || to <= *row.Fetched), from > row.End && (row.Proven == nil || from > *row.Proven):
		return ' '
	case cached && to > first && row.Sent > 0:
		return letter(r.Sources[row.From[0].Source].Kind)
	case from > row.End:
		return 'p'
	case row.Proven != nil && from >= *row.Proven:
		return '>'
	}
	return '.'
}

func letter(k pull.SourceKind) byte {
	switch k {
	case pull.OriginSource:
		return 'o'
	case pull.PeerSource:
		return 'm'
	}
	return 'c'
}

// most returns the source that gave most of a row between two times; -1 if none
// gave anything.
func most(row pull.Row, from, to float64) int {
	best, top := -1, 0.0
	for k, came := range row.Flow.Came {
		sum := 0.0
		for i, n := range came {
			a := *row.Fetched + float64(i)*row.Flow.Step
			if part := min(to, a+row.Flow.Step) - max(from, a); part > 0 {
				sum += float64(n) * part
			}
		}
		if sum > top {
			best, top = row.From[k].Source, sum
		}
	}
	return best
}

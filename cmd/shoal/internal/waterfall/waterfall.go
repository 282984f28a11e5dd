// Package waterfall draws the report of a pull: as text for a terminal, and as an
// SVG. Both show what was waited for, what came from where, and a row for each
// manifest and blob on one axis of time. It is pure: a report in, text out. Names
// in a report come from the network; in the SVG they are escaped, and it runs
// nothing and loads nothing.
package waterfall

import (
	"fmt"
	"math"
	"strings"

	"github.com/docker/go-units"

	"shoal/proxy/pull"
)

// size formats bytes in powers of 1024, as the program's settings do.
func size(n int64) string { return units.BytesSize(float64(n)) }

func rate(n float64) string { return units.BytesSize(n) + "/s" }

// Seconds formats a span of time for people: three digits and a unit.
func Seconds(s float64) string {
	switch {
	case s == 0:
		return "0 s"
	case math.Abs(s) < 0.01:
		return fmt.Sprintf("%.1f ms", 1000*s)
	case math.Abs(s) < 1:
		return fmt.Sprintf("%.0f ms", 1000*s)
	case math.Abs(s) < 10:
		return fmt.Sprintf("%.2f s", s)
	case math.Abs(s) < 100:
		return fmt.Sprintf("%.1f s", s)
	}
	return fmt.Sprintf("%.0f s", s)
}

// percent formats a share of 1.
func percent(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) }

// sourceName is what a source is called: a member by the end of its ID, as all
// begin alike.
func sourceName(s pull.Source) string {
	switch {
	case s.Kind == pull.CacheSource:
		return "cache"
	case s.Kind == pull.OriginSource:
		host, _, _ := strings.Cut(s.Name, "/")
		return host
	case s.Name == "others":
		return "other members"
	}
	return "member " + s.Name[max(0, len(s.Name)-8):]
}

// short is the beginning of a digest, enough to find it.
func short(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}

// end is when the last row ends: also what was proven after the client had it all.
func end(r pull.Report) float64 {
	last := r.Seconds
	for _, w := range r.Rows {
		if w.Proven != nil {
			last = max(last, *w.Proven)
		}
	}
	return last
}

// begin is when the first row begins, at most so much before the pull.
func begin(r pull.Report) float64 {
	first := 0.0
	for _, w := range r.Rows {
		if w.Fetched != nil {
			first = min(first, *w.Fetched)
		}
	}
	return max(first, -r.Seconds/10)
}

// bound says how far from its bound a pull was.
func bound(r pull.Report) string {
	if r.Bound == 0 || r.Result != pull.OK {
		return "of which no bound is known"
	}
	return fmt.Sprintf("%.2f times the bound of %s", r.Ratio, Seconds(r.Bound))
}

// causeText says in words what was waited for.
func causeText(c pull.Cause) string {
	switch c {
	case pull.Lookup:
		return "finding who has it"
	case pull.Connect:
		return "first bytes"
	case pull.Registry:
		return "the registry"
	case pull.Peers:
		return "members"
	case pull.Proof:
		return "proof"
	case pull.Disk:
		return "disk"
	case pull.Client:
		return "the client to take it"
	}
	return "the client to ask"
}

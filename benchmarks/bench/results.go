//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"shoal/benchmarks/rig"
)

// results are all figures of a round of measurements.
type results struct {
	Started      time.Time         `json:"started"`
	Commit       string            `json:"commit"` // of the tree that was measured
	Machine      rig.Machine       `json:"machine"`
	Versions     map[string]string `json:"versions"` // of the other programs, by name
	Measurements []*findings       `json:"measurements"`
}

// findings are what one measurement gave.
type findings struct {
	Name    string   `json:"name"`
	Seconds float64  `json:"seconds"` // that all of it took
	Load    rig.Load `json:"load"`    // meanwhile
	Error   string   `json:"error,omitempty"`
	Figures []figure `json:"figures"`
}

// figure is what was measured of one thing, in all runs.
type figure struct {
	Name string    `json:"name"`
	Unit string    `json:"unit,omitempty"` // none: a ratio
	Runs []float64 `json:"runs"`
	// What is asked for of the median; nil: nothing.
	Least *float64 `json:"least,omitempty"`
	Most  *float64 `json:"most,omitempty"`
}

// bound is what is asked for of a figure.
type bound func(*figure)

func atLeast(x float64) bound { return func(f *figure) { f.Least = &x } }

func atMost(x float64) bound { return func(f *figure) { f.Most = &x } }

// add adds a figure.
func (f *findings) add(name, unit string, runs []float64, bounds ...bound) {
	added := figure{Name: name, Unit: unit, Runs: runs}
	for _, set := range bounds {
		set(&added)
	}
	f.Figures = append(f.Figures, added)
}

// verdict tells whether the median is as it should be; a figure of which
// nothing is asked for has none.
func (f figure) verdict() string {
	median := rig.SpreadOf(f.Runs).Median
	switch {
	case f.Least == nil && f.Most == nil:
		return ""
	case len(f.Runs) == 0:
		return "**NOT MEASURED**"
	case f.Least != nil && median < *f.Least, f.Most != nil && median > *f.Most:
		return "**MISSED**"
	}
	return "met"
}

// asked says what is asked for.
func (f figure) asked() string {
	var words []string
	if f.Least != nil {
		words = append(words, fmt.Sprintf("at least %g", *f.Least))
	}
	if f.Most != nil {
		words = append(words, fmt.Sprintf("at most %g", *f.Most))
	}
	return strings.Join(words, ", ")
}

// value returns the median, with the least and the largest run.
func (f figure) value() string {
	s := rig.SpreadOf(f.Runs)
	if s.Count <= 1 {
		return digits(s.Median)
	}
	return fmt.Sprintf("%s (%s to %s)", digits(s.Median), digits(s.Min), digits(s.Max))
}

// digits prints a number with three digits that count.
func digits(x float64) string {
	switch {
	case x >= 100 || x <= -100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10 || x <= -10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

// markdown writes the results for people.
func (r *results) markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Bench, %s\n\n", r.Started.UTC().Format(time.DateTime+" MST"))
	m := r.Machine
	fmt.Fprintf(&b, "Commit %s; %d x %s, %.0f GB; Linux %s, %s; data on %s; load before %.2f; %s.\n\n",
		r.Commit, m.CPUs, m.Model, float64(m.Memory)/1e9, m.Kernel, m.Go, m.Data, m.Load, strings.Join(r.versions(), ", "))
	b.WriteString("Medians of the runs (least to largest); a ratio is the median of those of interleaved pairs.\n")
	for _, f := range r.Measurements {
		fmt.Fprintf(&b, "\n## %s\n\nTook %.0f s, meanwhile others used %.0f %% of the processors.\n\n", f.Name, f.Seconds, 100*f.Load.Others)
		if f.Error != "" {
			fmt.Fprintf(&b, "**FAILED**: %s\n\n", strings.Join(strings.Fields(f.Error), " "))
		}
		b.WriteString("| figure | median | | asked for | |\n|---|---|---|---|---|\n")
		for _, g := range f.Figures {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", g.Name, g.value(), g.Unit, g.asked(), g.verdict())
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// versions returns those of the other programs, in the order of their names.
func (r *results) versions() []string {
	var all []string
	for _, name := range others() {
		all = append(all, fmt.Sprintf("%s: %s", name, r.Versions[name]))
	}
	return all
}

// save writes raw figures and table into a folder, over what an earlier call
// wrote, and returns the name of the table.
func (r *results) save(folder string) (string, error) {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	base := filepath.Join(folder, "bench-"+r.Started.UTC().Format("20060102T150405Z"))
	if err := os.WriteFile(base+".json", append(text, '\n'), 0o644); err != nil {
		return "", err
	}
	var table strings.Builder
	if err := r.markdown(&table); err != nil {
		return "", err
	}
	return base + ".md", os.WriteFile(base+".md", []byte(table.String()), 0o644)
}

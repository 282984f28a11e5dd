package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"shoal/benchmarks/scenario"
	"shoal/benchmarks/sim/crowd"
)

// report collects runs.
type report struct {
	Date   string     `json:"date"`
	Commit string     `json:"commit"` // of the working directory
	Go     string     `json:"go"`
	CPUs   int        `json:"cpus"`
	Runs   []*outcome `json:"runs"`
}

// outcome is a run. Durations in it are in nanoseconds.
type outcome struct {
	Scenario scenario.Scenario `json:"scenario"`
	Seed     uint64            `json:"seed"`
	Set      map[string]string `json:"set,omitempty"`
	Result   crowd.Result      `json:"result"`
	Took     float64           `json:"took_seconds"`
	Memory   int64             `json:"peak_memory_bytes"` // of the process so far
}

func newReport(ctx context.Context) *report {
	return &report{
		Date: time.Now().UTC().Format(time.RFC3339), Commit: commit(ctx), Go: runtime.Version(), CPUs: runtime.GOMAXPROCS(0),
	}
}

// commit returns what the working directory holds, or what went wrong.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// peak returns the most memory that this process has had, in bytes.
func peak() int64 {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return used.Maxrss << 10
}

const row = "%-20s %4s %8s %8s %6s %6s %6s %8s | %7s %7s %7s %7s %7s | %7s %7s %7s %5s | %7s\n"

// heading begins the table. Times are in seconds; README.md explains them.
func (r *report) heading(w io.Writer) {
	fmt.Fprintf(w, row, "crowd", "seed", "bound", "makespan", "ratio", "copies", "zone", "median",
		"lead", "out", "oidle", "otwice", "tail", "head", "middle", "last", "up", "took")
}

// add takes in a run and prints its line.
func (r *report) add(w io.Writer, o *outcome) {
	r.Runs = append(r.Runs, o)
	x := &o.Result
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
	two := func(f float64) string { return fmt.Sprintf("%.3f", f) }
	s := &x.Spent
	fmt.Fprintf(w, row, o.Scenario.Name, fmt.Sprint(o.Seed), seconds(x.Bound), seconds(x.Makespan), two(x.Ratio), two(x.Copies), two(x.Inbound), seconds(x.Median),
		seconds(s.Lead), seconds(s.Out), seconds(s.OriginIdle), seconds(s.OriginTwice), seconds(s.Tail),
		seconds(s.Head), seconds(s.Middle), seconds(s.Last), fmt.Sprintf("%.2f", s.Uplinks), fmt.Sprintf("%.1f", o.Took))
}

// write writes everything to a file.
func (r *report) write(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

//go:build linux

// Command bench measures what one node is good for beside something else that
// does the same, in the same run: how fast it serves what it has beside nginx
// and docker-registry, what a piece costs on its way between two nodes beside
// plain HTTP, what a proof costs beside SHA-256, and how much memory, processor
// time and traffic a node takes. Crowds are the lab's.
//
// It is no test: it says what it measured and what was asked for, and fails only
// when something could not be measured. The raw figures of all runs go to a
// JSON file, a table to a Markdown file beside it. benchmarks/README.md tells
// more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
)

// commitEnv tells the isolated copy of the program which tree it measures.
const commitEnv = "SHOAL_BENCH_COMMIT"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if err != nil {
		os.Exit(2) // flag has said why
	}
	code, err := o.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		code = 1
	}
	os.Exit(code)
}

// options are the flags.
type options struct {
	runs int
	only []measurement
	out  string
}

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.runs, "runs", 7, "interleaved runs of each contender")
	only := flags.String("only", "", "measure only these, of "+strings.Join(names(measurements()), ", ")+" (with commas between; default: all)")
	flags.StringVar(&o.out, "out", filepath.Join("benchmarks", "results"), "folder for the results")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if o.only, err = pick(measurements(), *only); err != nil {
		fmt.Fprintln(stderr, err)
		return nil, err
	}
	if flags.NArg() > 0 || o.runs < 1 {
		flags.Usage()
		return nil, errors.New("usage")
	}
	return o, nil
}

// run measures, and returns the exit code if there is no error.
func (o *options) run(ctx context.Context) (int, error) {
	if os.Getuid() != 0 {
		return 0, errors.New("needs root, for network namespaces")
	}
	if os.Getenv(commitEnv) == "" {
		if err := os.Setenv(commitEnv, rig.Output(ctx, "git", "describe", "--always", "--dirty")); err != nil {
			return 0, err
		}
	}
	return program.Isolated(ctx, needed(), func(ctx context.Context, dir string) (int, error) {
		return 0, measure(ctx, dir, o)
	})
}

func needed() []string {
	return []string{"docker-registry", "dockerd", "docker", "containerd", "ctr", "podman", "runc", "skopeo", "nginx", "curl", "busybox", "ip", "tc", "nsenter", "unshare", "mount"}
}

// measurement is one of the things that are measured.
type measurement struct {
	name string
	run  func(ctx context.Context, b *bench) error
}

// measurements are all of them. Those that last longest come last.
func measurements() []measurement {
	return []measurement{
		{"blob", measureBlob},
		{"heads", measureHeads},
		{"channel", measureChannel},
		{"reports", measureReports},
		{"proof", measureProof},
		{"link", measureLink},
		{"trust", measureTrust},
		{"start", measureStart},
		{"failover", measureFailover},
		{"tag", measureTag},
		{"limits", measureLimits},
		{"warm", measureWarm},
		{"seed", measureSeed},
		{"alone", measureAlone},
		{"site", measureSite},
		{"memory", measureMemory},
		{"idle", measureIdle},
	}
}

func names(of []measurement) []string {
	var all []string
	for _, m := range of {
		all = append(all, m.name)
	}
	return all
}

// pick returns those of all that are named, with commas between; all if none
// is.
func pick(all []measurement, only string) ([]measurement, error) {
	if only == "" {
		return all, nil
	}
	var picked []measurement
	for name := range strings.SplitSeq(only, ",") {
		i := slices.Index(names(all), name)
		if i < 0 {
			return nil, fmt.Errorf("no measurement %q: there are %s", name, strings.Join(names(all), ", "))
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}

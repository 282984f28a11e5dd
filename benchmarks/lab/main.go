//go:build linux

// Command lab measures how soon crowds of real nodes have an image, and how
// much of it leaves the origin: shoal, beside plain downloads, docker-registry
// as a pull-through cache, aria2 as a BitTorrent swarm, and any other program
// that a command starts (-adapter). What is played are files of package
// scenario, on machines made of network namespaces with links shaped by tc.
//
// It is no test: it says what it measured and which targets were missed, and
// fails only when it could not measure. After each run the results so far are
// written to a JSON file; at the end, also of one that was interrupted, a table
// and plots are made of it. benchmarks/README.md tells more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"shoal/benchmarks/lab/report"
	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/program"
)

// fileEnv tells the isolated copy of the program where results go.
const fileEnv = "SHOAL_LAB_FILE"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		os.Exit(2) // flag has said why
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// parse returns what the arguments ask for.
func parse(args []string, stderr io.Writer) (run func(context.Context) error, err error) {
	if len(args) > 0 && args[0] == liarCommand {
		return func(ctx context.Context) error { return runLiar(ctx, args[1:], stderr) }, nil
	}
	if len(args) > 0 && args[0] == matrixCommand {
		o, err := parseMatrixOptions(args[1:], stderr)
		if err != nil {
			return nil, err
		}
		return o.run, nil
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return nil, err
	}
	return o.run, nil
}

// options are the flags.
type options struct {
	folder     string
	only       list
	contenders list
	adapters   list
	runs       int
	budget     time.Duration
	disk       bool
	out        string
	resume     string
	report     string
	compare    bool
}

// list is a flag with commas between its words.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(text string) error {
	*l = append(*l, strings.Split(text, ",")...)
	return nil
}

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.folder, "scenarios", ownScenarios(), "folder of scenarios; they are played in the order of the file names")
	flags.Var(&o.only, "only", "play only these scenarios (names, with commas between); "+dockerdsName+" is docker pull")
	flags.Var(&o.contenders, "contenders", "let these play every scenario (default: shoal, and the rivals that the scenario names): shoal, preheat, aria2, direct, docker-registry, and those of -adapter")
	flags.Var(&o.adapters, "adapter", "YAML file that describes another contender, which a command starts (see benchmarks/lab/docker-registry.yaml)")
	flags.IntVar(&o.runs, "runs", 7, "interleaved runs of each contender on each scenario")
	flags.DurationVar(&o.budget, "budget", 4*time.Minute, "time of one contender on one scenario, after which it has no more runs")
	flags.BoolVar(&o.disk, "disk", false, "keep the data of origin and nodes on disk (TMPDIR), not in memory")
	flags.StringVar(&o.out, "out", filepath.Join("benchmarks", "results"), "folder for the results")
	flags.StringVar(&o.resume, "resume", "", "add the runs that are missing to this file of results")
	flags.StringVar(&o.report, "report", "", "measure nothing, but make the table and plots of this file of results")
	flags.BoolVar(&o.compare, "compare", false, "let the simulator play the scenarios, too (go run ./benchmarks/sim), and print both makespans")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || o.runs < 1 {
		flags.Usage()
		return nil, errors.New("usage")
	}
	return o, nil
}

// ownScenarios is the folder of those that say what shoal must reach.
func ownScenarios() string { return filepath.Join("benchmarks", "scenarios") }

// run measures and reports.
func (o *options) run(ctx context.Context) error {
	if o.report != "" {
		return o.render(ctx, o.report)
	}
	p, err := o.plan(ctx)
	if err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return errors.New("needs root, for network namespaces")
	}
	if err := installed(p.needs()); err != nil {
		return err
	}
	file := os.Getenv(fileEnv)
	if file == "" {
		file = o.file()
		if err := errors.Join(os.MkdirAll(o.out, 0o755), os.Setenv(fileEnv, file)); err != nil {
			return err
		}
	}
	inside := false
	code, err := program.Isolated(ctx, nil, func(ctx context.Context, dir string) (int, error) {
		inside = true
		return 0, measure(ctx, *p, dir, file, os.Stdout)
	})
	if inside {
		return err
	}
	if err == nil && code != 0 {
		err = errors.New("ended before everything was measured; -resume " + file + " goes on")
	}
	if _, statErr := os.Stat(file); statErr != nil {
		return err // nothing was measured
	}
	// What was measured before an interruption is worth a table, too.
	return errors.Join(err, o.render(context.WithoutCancel(ctx), file))
}

// file returns where the results go.
func (o *options) file() string {
	if o.resume != "" {
		return o.resume
	}
	return filepath.Join(o.out, "lab-"+time.Now().UTC().Format("20060102T150405Z")+".json")
}

// plan reads what is to be played, and by whom.
func (o *options) plan(ctx context.Context) (*plan, error) {
	p := &plan{named: len(o.contenders) > 0, runs: o.runs, budget: o.budget, disk: o.disk}
	p.commit = rig.Output(ctx, "git", "describe", "--always", "--dirty")
	all, err := scenario.LoadFolder(o.folder)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(slices.Clone(o.only), func(name string) bool { return name == dockerdsName })
	p.dockerds = len(names) < len(o.only) || len(o.only) == 0 && o.folder == ownScenarios()
	if len(names) > 0 || len(o.only) == 0 {
		if p.scenarios, err = pick(all, names); err != nil {
			return nil, err
		}
	}
	for _, s := range p.scenarios {
		if why := s.SimulatorOnly(); why != "" {
			return nil, fmt.Errorf("%s cannot be played here: %s", s.Name, why)
		}
	}
	if p.contenders, err = o.allContenders(p); err != nil {
		return nil, err
	}
	if o.resume != "" {
		p.resumed, err = report.LoadFile(o.resume)
	}
	return p, err
}

// allContenders returns those of a plan, of all that there are.
func (o *options) allContenders(p *plan) ([]contender, error) {
	cache, err := registryCache()
	if err != nil {
		return nil, err
	}
	all := []contender{shoal{commit: p.commit}, preheat{shoal{commit: p.commit}}, &aria2{torrents: map[string]string{}}, direct{}, cache}
	wanted := slices.Clone(o.contenders)
	for _, file := range o.adapters {
		c, err := loadAdapter(file)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return choose(all, wanted, p.scenarios)
}

// render writes the table to standard output and to a file, and the plots.
func (o *options) render(ctx context.Context, file string) error {
	results, err := report.LoadFile(file)
	if err != nil {
		return err
	}
	base := strings.TrimSuffix(file, ".json")
	plots, err := results.Plots(base)
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := results.Markdown(&text); err != nil {
		return err
	}
	if o.compare {
		simulated, err := o.simulate(ctx, results)
		if err != nil {
			return err
		}
		text.WriteString("\n")
		if err := results.Compare(&text, simulated); err != nil {
			return err
		}
	}
	fmt.Println(text.String())
	fmt.Println("written:", file, base+".md", strings.Join(plots, " "))
	return os.WriteFile(base+".md", []byte(text.String()), 0o644)
}

// simulate lets the simulator play the scenarios of the results that are in
// the folder, three times each.
func (o *options) simulate(ctx context.Context, results *report.Results) (report.Simulated, error) {
	dir, err := os.MkdirTemp("", "shoal-lab-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "sim.json")
	args := []string{"run", "shoal/benchmarks/sim", "--runs=3", "--out=" + out}
	files, err := filepath.Glob(filepath.Join(o.folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		s, err := scenario.Load(file)
		if err != nil {
			return nil, err
		}
		if results.Scenario(s.Name) != nil && s.LabOnly() == "" {
			args = append(args, "--scenario="+file)
		}
	}
	if said, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("simulator: %w: %s", err, said)
	}
	return report.LoadSimulated(out)
}

//go:build linux

// Command first measures the promises that the first version of Shoal makes:
// how fast one node serves another beside nginx on the same link, what the
// first node costs beside a pull without it, how much memory a large fill
// takes, and how soon a node is ready and its blobs are found.
//
// It is no test: it says what it measured and what was promised, and fails only
// when something could not be measured. The raw figures of all runs go to a
// JSON file. benchmarks/README.md tells more.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

func main() {
	pairs := flag.Int("pairs", 7, "interleaved pairs of runs of each comparison")
	only := flag.String("only", "", "measure only these, of "+strings.Join(names(), ", ")+" (with commas between; default: all)")
	out := flag.String("out", filepath.Join("benchmarks", "results"), "folder for the JSON file with the raw figures")
	flag.Parse()
	if *pairs < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "first: needs root, for network namespaces")
		os.Exit(2)
	}
	code, err := program.Isolated(context.Background(), needed(), func(ctx context.Context, dir string) (int, error) {
		return 0, measure(ctx, dir, *pairs, *only, *out)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "first:", err)
		code = 1
	}
	os.Exit(code)
}

func needed() []string {
	return []string{"docker-registry", "dockerd", "docker", "containerd", "runc", "nginx", "curl", "busybox", "ip", "tc", "nsenter", "unshare", "mount"}
}

// measurement is one of the things that are measured.
type measurement struct {
	name string
	run  func(ctx context.Context, l *lab) error
}

func measurements() []measurement {
	return []measurement{
		{"start", measureStart},
		{"link", measureLink},
		{"alone", measureAlone},
		{"memory", measureMemory},
	}
}

func names() []string {
	var all []string
	for _, m := range measurements() {
		all = append(all, m.name)
	}
	return all
}

// lab is the network on which everything is measured: an origin and machines
// that get their programs as they are needed.
type lab struct {
	network  *testhost.Network
	origin   *program.Origin
	machines []*testhost.Host
	dir      string
	key      string // file with a swarm key
	pairs    int
	nodes    int // how many were started, for names
	report   *report
}

// The links.
const (
	originLink  = 200 * testhost.Mbit
	machineLink = testhost.Gbit
)

func measure(ctx context.Context, dir string, pairs int, only, out string) error {
	r := newReport(ctx)
	network, err := testhost.NewNetwork(dir)
	if err != nil {
		return err
	}
	defer network.Close()
	l := &lab{network: network, dir: dir, key: filepath.Join(dir, "swarm.key"), pairs: pairs, report: r}
	if err := l.build(ctx); err != nil {
		return err
	}
	for _, m := range measurements() {
		if only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		if err := m.run(ctx, l); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", m.name, err), network.DumpLogs(os.Stderr, time.Time{}))
		}
	}
	return r.write(os.Stdout, out)
}

// build makes the origin, two machines and the swarm key.
func (l *lab) build(ctx context.Context) error {
	host, err := l.network.AddHost("origin", originLink)
	if err != nil {
		return err
	}
	if l.origin, err = program.StartOrigin(ctx, host); err != nil {
		return err
	}
	for _, name := range []string{"m1", "m2"} {
		m, err := l.network.AddHost(name, machineLink)
		if err != nil {
			return err
		}
		l.machines = append(l.machines, m)
	}
	key, err := l.machines[0].Run(ctx, testhost.Command{Path: program.Shoal(l.dir), Args: []string{"swarm-key", "new"}})
	if err != nil {
		return err
	}
	return os.WriteFile(l.key, []byte(key), 0o600)
}

// node starts a node with nothing on its disk on machine number i, and waits
// until it and those that it joins are one swarm.
func (l *lab) node(ctx context.Context, i int, upstream string, join ...*program.Node) (*program.Node, error) {
	l.nodes++
	n, err := program.StartNode(ctx, l.machines[i], program.NodeConfig{
		Shoal: program.Shoal(l.dir), Name: fmt.Sprintf("shoal%d", l.nodes), SwarmKey: l.key, Upstream: upstream,
		Join: join, Args: []string{"--no-mdns"},
	})
	if err != nil {
		return nil, err
	}
	if len(join) > 0 {
		join = append(join, n)
	}
	for _, member := range join {
		if err := awaitJoined(ctx, member); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// awaitJoined waits until the node can look things up in its swarm.
func awaitJoined(ctx context.Context, n *program.Node) error {
	return testhost.Until(ctx, 10*time.Second, func(ctx context.Context) error {
		s, err := n.Status(ctx)
		if err == nil && !s.Joined {
			err = errors.New("not joined")
		}
		return err
	})
}

// drop ends a node and removes its data.
func (l *lab) drop(n *program.Node) error {
	if err := n.Stop(); err != nil {
		return err
	}
	return os.RemoveAll(n.DataDir)
}

// fast runs f while the origin's link has no limit, to prepare things.
func (l *lab) fast(f func() error) error {
	if err := l.origin.Host.Shape(0); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return l.origin.Host.Shape(originLink)
}

// report collects figures.
type report struct {
	Date    string   `json:"date"`
	Commit  string   `json:"commit"`
	Go      string   `json:"go"`
	Kernel  string   `json:"kernel"`
	CPUs    int      `json:"cpus"`
	Figures []figure `json:"figures"`
}

// figure is what was measured of one thing, in all runs.
type figure struct {
	Name    string    `json:"name"`
	Unit    string    `json:"unit"`
	Runs    []float64 `json:"runs"`
	Median  float64   `json:"median"`
	Promise string    `json:"promise,omitempty"`
}

func newReport(ctx context.Context) *report {
	return &report{
		Date: time.Now().UTC().Format(time.RFC3339), Commit: output(ctx, "git", "describe", "--always", "--dirty"),
		Go: runtime.Version(), Kernel: output(ctx, "uname", "-rm"), CPUs: runtime.NumCPU(),
	}
}

// output returns what a program prints, or what went wrong with it.
func output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// add adds a figure. promise is what it should be, in words; it may be empty.
func (r *report) add(name, unit, promise string, runs []float64) {
	f := figure{Name: name, Unit: unit, Promise: promise, Runs: runs, Median: median(runs)}
	r.Figures = append(r.Figures, f)
	fmt.Fprintln(os.Stderr, f)
}

// String returns the figure in one line.
func (f figure) String() string {
	return fmt.Sprintf("%-58s %10.3f %-8s %s", f.Name, f.Median, f.Unit, f.Promise)
}

func median(runs []float64) float64 {
	sorted := slices.Sorted(slices.Values(runs))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// write prints the medians to w and writes everything to a new file in folder.
func (r *report) write(w *os.File, folder string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	file := filepath.Join(folder, "first-"+strings.NewReplacer(":", "", "-", "").Replace(r.Date)+".json")
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return err
	}
	for _, f := range r.Figures {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "medians; all runs are in %s\n", file)
	return err
}

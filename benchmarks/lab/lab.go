//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"shoal/benchmarks/lab/report"
	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	"golang.org/x/sys/unix"
)

// lab is the network on which scenarios are played, and what was measured.
type lab struct {
	plan
	network *testhost.Network
	origin  *testhost.Host
	center  *testhost.Host
	nodes   []*testhost.Host
	zones   []*testhost.Zone
	behind  map[scenario.NAT][]*testhost.Host // nodes behind routers
	store   *store
	data    string // folder of everything
	shoal   string // path of the program
	key     string // file with a swarm key
	results *report.Results
	file    string // of the results
	say     io.Writer
	began   time.Time
	left    time.Duration // estimate of what is still to do
}

// measure builds the lab in dir, which goes away with it, and plays the plan.
// The results are written to file after each run.
func measure(ctx context.Context, p plan, dir, file string, say io.Writer) error {
	l := &lab{plan: p, data: filepath.Join(dir, "lab"), shoal: program.Shoal(dir), file: file, say: say, began: time.Now()}
	if err := l.build(ctx); err != nil {
		return err
	}
	defer l.network.Close()
	for i, s := range l.scenarios {
		l.left = l.estimateFrom(i)
		if err := l.playAll(ctx, s); err != nil {
			return err
		}
	}
	if l.dockerds {
		return l.pullAll(ctx)
	}
	return nil
}

// build makes the hosts and folders.
func (l *lab) build(ctx context.Context) error {
	if err := os.MkdirAll(l.data, 0o755); err != nil {
		return err
	}
	if !l.disk {
		// Ends with the mount namespace.
		if err := unix.Mount("tmpfs", l.data, "tmpfs", 0, "mode=755,size=75%"); err != nil {
			return fmt.Errorf("mount %s: %w", l.data, err)
		}
	}
	if err := l.describe(ctx); err != nil {
		return err
	}
	blobs := filepath.Join(l.data, "blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	l.store = &store{dir: blobs, made: map[layerKey]blobFile{}}
	var err error
	if l.network, err = testhost.NewNetwork(filepath.Join(l.data, "hosts")); err != nil {
		return err
	}
	if l.origin, err = l.network.AddHost("origin", 0); err != nil {
		return err
	}
	if l.center, err = l.network.AddHost("center", 0); err != nil {
		return err
	}
	for i := range l.hosts() {
		host, err := l.network.AddHost(fmt.Sprintf("n%d", i), 0)
		if err != nil {
			return err
		}
		l.nodes = append(l.nodes, host)
	}
	for i := range l.zoneCount() {
		zone, err := l.network.AddZone(i, 0)
		if err != nil {
			return err
		}
		l.zones = append(l.zones, zone)
	}
	if err := l.addBehind(ctx); err != nil {
		return err
	}
	key, err := l.center.Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"swarm-key", "new"}})
	if err != nil {
		return err
	}
	l.key = filepath.Join(l.data, "swarm.key")
	return os.WriteFile(l.key, []byte(key), 0o600)
}

// addBehind adds the hosts that are behind routers.
func (l *lab) addBehind(ctx context.Context) error {
	l.behind = map[scenario.NAT][]*testhost.Host{}
	kinds := map[scenario.NAT]testhost.NAT{scenario.KeepsPorts: testhost.KeepsPorts, scenario.ChangesPorts: testhost.ChangesPorts}
	for _, s := range l.scenarios {
		nat := s.Nodes.NAT
		for i := len(l.behind[nat]); nat != "" && i < s.Nodes.Count; i++ {
			host, err := l.network.AddBehind(ctx, fmt.Sprintf("%s%d", nat, i), kinds[nat], 0)
			if err != nil {
				return err
			}
			l.behind[nat] = append(l.behind[nat], host)
		}
	}
	return nil
}

// nodesOf returns the hosts on which a scenario is played.
func (l *lab) nodesOf(s *scenario.Scenario) []*testhost.Host {
	if behind := l.behind[s.Nodes.NAT]; len(behind) > 0 {
		return behind[:s.Nodes.Count]
	}
	return l.nodes[:s.Nodes.Count]
}

// describe begins the results, or goes on with those of a file.
func (l *lab) describe(ctx context.Context) error {
	l.results = l.resumed
	if l.results == nil {
		l.results = &report.Results{Started: time.Now().UTC(), Commit: l.commit, Versions: map[string]string{}}
	}
	var err error
	if l.results.Machine, err = rig.Describe(ctx, l.data); err != nil {
		return err
	}
	l.results.Versions["nginx"] = rig.FirstLine(ctx, "nginx", "-v")
	for _, c := range l.contenders {
		for name, version := range c.versions(ctx) {
			l.results.Versions[name] = version
		}
	}
	for _, s := range l.scenarios {
		if l.results.Scenario(s.Name) == nil {
			l.results.Scenarios = append(l.results.Scenarios, s)
		}
	}
	m := l.results.Machine
	fmt.Fprintf(l.say, "%d x %s, %.0f GB, Linux %s, %s, load %.2f, data on %s, where writing takes %.1f CPU s/GB\n", m.CPUs, m.Model, float64(m.Memory)/1e9, m.Kernel, m.Go, m.Load, m.Data, m.WriteCPU)
	for name, version := range l.results.Versions {
		fmt.Fprintf(l.say, "%s: %s\n", name, version)
	}
	fmt.Fprintf(l.say, "about %v\n", l.estimateFrom(0).Round(time.Minute))
	return nil
}

// playAll plays a scenario in rounds, in each of which every contender plays
// once; who begins changes from round to round. A contender that has used up
// its time plays no more rounds.
func (l *lab) playAll(ctx context.Context, s *scenario.Scenario) error {
	players := l.playersOf(s)
	used := map[string]time.Duration{}
	for round := 1; round <= l.runs; round++ {
		for _, c := range rig.Turns(players, round) {
			expected := estimate(s, c)
			last := used[c.name()] / time.Duration(max(1, round-1))
			if l.has(s.Name, c.name(), round) || round > 1 && used[c.name()]+last > l.budget {
				continue
			}
			if err := rig.Calm(ctx); err != nil {
				return err
			}
			run := l.play(ctx, s, c, round)
			if ctx.Err() != nil {
				return ctx.Err() // what it was interrupted by is no result
			}
			used[c.name()] += time.Duration(run.Seconds * float64(time.Second))
			l.left = max(0, l.left-expected)
			l.results.Runs = append(l.results.Runs, run)
			l.tell(run)
			if err := l.results.Save(l.file); err != nil {
				return err
			}
		}
	}
	return nil
}

// has tells whether the results have that run already.
func (l *lab) has(scenarioName, contender string, round int) bool {
	for _, r := range l.results.Runs {
		if r.Scenario == scenarioName && r.Contender == contender && r.Round == round && r.Error == "" {
			return true
		}
	}
	return false
}

// tell writes a line about a run.
func (l *lab) tell(run report.Run) {
	line := fmt.Sprintf("%-20s %-16s %d/%d ", run.Scenario, run.Contender, run.Round, l.runs)
	if run.Error != "" {
		line += " FAILED: " + run.Error
	}
	for _, f := range report.Figures() {
		if value, ok := run.Figure(f); ok {
			line += fmt.Sprintf(" %s %5.2f ", f, value)
		}
	}
	fmt.Fprintf(l.say, "%s (bound %.1f s; busy %.0f %%, others %.0f %%; run took %.0f s; %v gone, about %v left)\n", line, run.Bound(),
		100*run.Load.Busy, 100*run.Load.Others, run.Seconds, time.Since(l.began).Round(time.Second), l.left.Round(time.Minute))
}

// killNodes ends all programs but the origin, and plugs all machines in, so
// that the ends of their connections get through.
func (l *lab) killNodes() {
	for _, h := range l.network.Hosts() {
		if h != l.origin {
			_ = h.Plug() // a link that is up stays so
			h.KillAll()
		}
	}
}

// keepLogs adds the ends of all programs' logs to a file beside the results.
func (l *lab) keepLogs(of string) error {
	file, err := os.OpenFile(strings.TrimSuffix(l.file, ".json")+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	fmt.Fprintf(file, "=== %s\n", of)
	return errors.Join(l.network.DumpLogs(file, time.Time{}), file.Close())
}

// clean ends what is left of a run and removes its data. dir is the run's.
func (l *lab) clean(dir string) error {
	l.killNodes()
	l.origin.KillAll()
	errs := []error{os.RemoveAll(dir)}
	for _, h := range l.network.Hosts() {
		entries, err := os.ReadDir(h.Dir)
		errs = append(errs, err)
		for _, e := range entries {
			errs = append(errs, os.RemoveAll(filepath.Join(h.Dir, e.Name())))
		}
	}
	if l.disk {
		unix.Sync() // or the next run would write for this one
	}
	return errors.Join(errs...)
}

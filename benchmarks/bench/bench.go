//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// bench is the network on which everything is measured: an origin and machines
// that get their programs as they are needed.
type bench struct {
	network  *testhost.Network
	origin   *program.Origin
	machines []*testhost.Host
	dir      string
	key      string // file with a swarm key
	runs     int
	nodes    int // how many were started, for names

	// Of the measurement that runs.
	*findings
	nginx *testhost.Process // nil: it has none
}

// The links.
const (
	originLink  = 200 * testhost.Mbit
	machineLink = testhost.Gbit
)

// others are the programs beside shoal whose versions matter.
func others() []string {
	return []string{"containerd", "curl", "docker-registry", "dockerd", "nginx", "podman", "skopeo"}
}

// measure measures what the options name. What could not be measured is in the
// results, and an error at the end.
func measure(ctx context.Context, dir string, o *options) error {
	network, err := testhost.NewNetwork(filepath.Join(dir, "hosts"))
	if err != nil {
		return err
	}
	defer network.Close()
	b := &bench{network: network, dir: dir, key: filepath.Join(dir, "swarm.key"), runs: o.runs}
	if err := b.build(ctx); err != nil {
		return err
	}
	r := &results{Started: time.Now().UTC(), Commit: os.Getenv(commitEnv), Versions: map[string]string{}}
	for _, name := range others() {
		version := "--version"
		if name == "nginx" {
			version = "-v"
		}
		r.Versions[name] = rig.FirstLine(ctx, name, version)
	}
	if r.Machine, err = rig.Describe(ctx, dir); err != nil {
		return err
	}
	var failed []error
	table := ""
	for _, m := range o.only {
		b.findings = &findings{Name: m.name}
		r.Measurements = append(r.Measurements, b.findings)
		if err := b.measure(ctx, m); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err), network.DumpLogs(os.Stderr, r.Started))
		}
		if table, err = r.save(o.out); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	text, err := os.ReadFile(table)
	if err != nil {
		return err
	}
	fmt.Printf("%s\nwritten: %s, with all runs in the .json beside it\n", text, table)
	return errors.Join(failed...)
}

// measure runs one measurement.
func (b *bench) measure(ctx context.Context, m measurement) error {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format(time.TimeOnly), m.name)
	meter, err := rig.StartMeter()
	if err != nil {
		return err
	}
	started := time.Now()
	err = errors.Join(m.run(ctx, b), b.stopNginx())
	b.Seconds, b.Load = time.Since(started).Seconds(), meter.Load()
	if err != nil {
		b.Error = err.Error()
		for _, m := range b.machines { // the next one starts its own
			m.KillAll()
		}
	}
	for _, f := range b.Figures {
		fmt.Fprintf(os.Stderr, "  %-75s %s %s %s %s\n", f.Name, f.value(), f.Unit, f.asked(), f.verdict())
	}
	return err
}

// stopNginx ends nginx as its operator does: killed, it would leave workers
// behind.
func (b *bench) stopNginx() error {
	if b.nginx == nil {
		return nil
	}
	defer func() { b.nginx = nil }()
	return b.nginx.Stop(5 * time.Second)
}

// build makes the origin, two machines and the swarm key.
func (b *bench) build(ctx context.Context) error {
	host, err := b.network.AddHost("origin", originLink)
	if err != nil {
		return err
	}
	if b.origin, err = program.StartOrigin(ctx, host); err != nil {
		return err
	}
	if err := b.haveMachines(2); err != nil {
		return err
	}
	key, err := b.machines[0].Run(ctx, testhost.Command{Path: program.Shoal(b.dir), Args: []string{"swarm-key", "new"}})
	if err != nil {
		return err
	}
	return os.WriteFile(b.key, []byte(key), 0o600)
}

// haveMachines adds machines until there are n.
func (b *bench) haveMachines(n int) error {
	for i := len(b.machines); i < n; i++ {
		m, err := b.network.AddHost(fmt.Sprintf("m%d", i+1), machineLink)
		if err != nil {
			return err
		}
		b.machines = append(b.machines, m)
	}
	return nil
}

// node starts a node with nothing on its disk on machine number i, and waits
// until it and those that it joins are one swarm.
func (b *bench) node(ctx context.Context, i int, upstream string, join ...*program.Node) (*program.Node, error) {
	return b.nodeWith(ctx, i, upstream, nil, join...)
}

// nodeWith is node with further arguments.
func (b *bench) nodeWith(ctx context.Context, i int, upstream string, args []string, join ...*program.Node) (*program.Node, error) {
	b.nodes++
	n, err := program.StartNode(ctx, b.machines[i], program.NodeConfig{
		Shoal: program.Shoal(b.dir), Name: fmt.Sprintf("shoal%d", b.nodes), SwarmKey: b.key, Upstream: upstream,
		Join: join, Args: append([]string{"--no-mdns"}, args...),
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
func (b *bench) drop(n *program.Node) error {
	if err := n.Stop(); err != nil {
		return err
	}
	return os.RemoveAll(n.DataDir)
}

// fast runs f while the origin's link has no limit, to prepare things.
func (b *bench) fast(f func() error) error {
	if err := b.origin.Host.Shape(0); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return b.origin.Host.Shape(originLink)
}

//go:build linux

package main

import (
	"context"
	_ "embed" // of what comes with the lab
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// adapter is a contender that a command starts, as a YAML file describes it.
// In all of its texts words in braces stand for what differs from node to node
// (vars).
type adapter struct {
	Name string `yaml:"name"`
	// Needs are programs that must be installed, by their names.
	Needs []string `yaml:"needs"`
	// Version is a command that prints the program's version in its first line.
	Version []string `yaml:"version"`
	// Node is what runs on each node.
	Node task `yaml:"node"`
	// Center is what runs once, on a machine of its own, before any node: a
	// tracker, say.
	Center task `yaml:"center"`
	// Pull is the URL of the registry on a node, for its client.
	Pull string `yaml:"pull"`
	// Stored is the file in which a node has a blob once it is whole and
	// proven; {hex} and {hex2} are its digest and the first two digits of it.
	// Without it a node is taken to be done when its client is.
	Stored string `yaml:"stored"`
	// Idle is how long nodes run before the first client asks.
	Idle time.Duration `yaml:"idle"`
	// Slowness is a guess of makespan by the bound and node, for estimates.
	Slowness float64 `yaml:"slowness"`
}

// task is a program on a machine.
type task struct {
	Command []string          `yaml:"command"`
	Env     map[string]string `yaml:"env"`
	// Files are written before it starts: name in {dir} -> content.
	Files map[string]string `yaml:"files"`
	// Ready is a URL that answers 200 once it can be asked.
	Ready string `yaml:"ready"`
}

//go:embed docker-registry.yaml
var dockerRegistry []byte

// registryCache returns docker-registry as a pull-through cache.
func registryCache() (contender, error) { return parseAdapter("docker-registry.yaml", dockerRegistry) }

// loadAdapter reads an adapter from a file.
func loadAdapter(file string) (contender, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseAdapter(file, text)
}

func parseAdapter(file string, text []byte) (contender, error) {
	a := adapter{Slowness: 1}
	if err := scenario.Decode(file, text, &a); err != nil {
		return nil, err
	}
	if a.Name == "" || a.Pull == "" || len(a.Node.Command) == 0 {
		return nil, fmt.Errorf("%s: name, pull and node.command are needed", file)
	}
	return commands{a}, nil
}

// commands is a contender by an adapter.
type commands struct{ adapter }

func (c commands) name() string        { return c.Name }
func (c commands) needs() []string     { return c.Needs }
func (c commands) idle() time.Duration { return c.Idle }

func (c commands) expect(s *scenario.Scenario) float64 { return c.Slowness * float64(s.Cold()) }

func (c commands) versions(ctx context.Context) map[string]string {
	if len(c.Version) == 0 {
		return nil
	}
	return map[string]string{c.Name: rig.FirstLine(ctx, c.Version[0], c.Version[1:]...)}
}

func (c commands) crew(ctx context.Context, st *stage) (crew, error) {
	crew := &commandCrew{stage: st, adapter: c.adapter, processes: make([]*testhost.Process, len(st.nodes))}
	if len(c.Center.Command) == 0 {
		return crew, nil
	}
	_, err := crew.launch(ctx, st.center, c.Center, st.vars(0, filepath.Join(st.dir, "center")))
	return crew, err
}

// commandCrew is a command on every machine.
type commandCrew struct {
	*stage
	adapter   adapter
	processes []*testhost.Process // each is set by start of its node
}

// vars returns what the words in braces stand for on a node.
func (st *stage) vars(node int, dir string) *strings.Replacer {
	var all, others []string
	for i, n := range st.nodes {
		all = append(all, n.Addr.String())
		if i != node {
			others = append(others, n.Addr.String())
		}
	}
	return strings.NewReplacer(
		"{dir}", dir, // a folder of its own
		"{node}", strconv.Itoa(node), // its number, from 0
		"{addr}", all[node], // its IP address
		"{first}", all[0], // that of node 0
		"{nodes}", strings.Join(all, ","), // those of all nodes
		"{others}", strings.Join(others, ","), // and without this one
		"{center}", st.center.Addr.String(), // that of the center
		"{origin}", st.upstream, // URL of the registry to mirror
		"{origin-host}", strings.TrimPrefix(st.upstream, "http://"),
		"{repository}", st.image.repository,
		"{tag}", tag,
	)
}

func (c *commandCrew) nodeDir(node int) string { return filepath.Join(c.dir, strconv.Itoa(node)) }

func (c *commandCrew) start(ctx context.Context, node int) (err error) {
	c.processes[node], err = c.launch(ctx, c.nodes[node], c.adapter.Node, c.vars(node, c.nodeDir(node)))
	return err
}

// launch starts a task on a host and waits until it is ready. dir is what vars
// have as {dir}.
func (c *commandCrew) launch(ctx context.Context, h *testhost.Host, t task, vars *strings.Replacer) (*testhost.Process, error) {
	dir := vars.Replace("{dir}")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for name, content := range t.Files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(vars.Replace(content)), 0o644); err != nil {
			return nil, err
		}
	}
	command := testhost.Command{}
	for _, arg := range t.Command {
		command.Args = append(command.Args, vars.Replace(arg))
	}
	for name, value := range t.Env {
		command.Env = append(command.Env, name+"="+vars.Replace(value))
	}
	path, err := testhost.Program(command.Args[0])
	if err != nil {
		return nil, err
	}
	command.Path, command.Args = path, slices.Delete(command.Args, 0, 1)
	p, err := h.Start(c.adapter.Name, command)
	if err != nil || t.Ready == "" {
		return p, err
	}
	return p, program.AwaitOK(ctx, h, p, vars.Replace(t.Ready), readyTime)
}

func (c *commandCrew) connected(context.Context) error { return nil }

func (c *commandCrew) client(node int) rig.Client {
	return rig.Client{Dial: c.nodes[node].DialContext, Base: c.vars(node, c.nodeDir(node)).Replace(c.adapter.Pull)}
}

func (c *commandCrew) pull(ctx context.Context, node int) error {
	return pull(ctx, c.client(node), c.image)
}

func (c *commandCrew) stored(node int, b blobFile) (string, bool) {
	if c.adapter.Stored == "" {
		return "", false
	}
	file := c.vars(node, c.nodeDir(node)).Replace(c.adapter.Stored)
	return strings.NewReplacer("{hex}", b.hex, "{hex2}", b.hex[:2]).Replace(file), true
}

// verify hashes what the node has stored. Where that is not known, the image
// is asked for once more.
func (c *commandCrew) verify(ctx context.Context, node int) error {
	if c.adapter.Stored != "" {
		return verifyFiles(c, c.image, node)
	}
	for _, b := range c.image.blobs {
		if err := c.client(node).Hash(ctx, c.image.path("blobs", b.digest()), b.hex); err != nil {
			return err
		}
	}
	return nil
}

func (c *commandCrew) process(node int) *testhost.Process { return c.processes[node] }

// Command sim simulates crowds: 10 to 10,000 nodes that fill the same blob at
// the same moment, each with the planner of the real node (p2p/plan), on a
// model of their network and on virtual time (benchmarks/sim/crowd). It prints
// a table of what came out beside what the theory allows, and writes all runs
// to a JSON file and a plot. benchmarks/README.md tells more.
//
// It is no test: it says what it measured, and fails only if a fill does not
// end.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"shoal/benchmarks/scenario"
)

// cli is the command line. The crowd is described by flags or by scenarios.
type cli struct {
	Nodes   []int         `default:"10,30,100,300,1000" help:"Sizes of the crowd."`
	Pieces  int           `default:"1000" help:"Pieces of 1 MiB that the blob has."`
	Origin  int64         `default:"1000" help:"Rate of the origin, in Mbit/s."`
	Link    int64         `default:"1000" help:"Rate of a node's link in each direction, in Mbit/s."`
	Latency time.Duration `default:"2ms" help:"Latency between any two machines, one way."`
	Spread  time.Duration `help:"Time over which the nodes start."`
	Seeded  int           `help:"Nodes that have the blob already."`
	NoRange bool          `help:"The origin ignores Range."`
	Cold    bool          `help:"The processes start at that moment and know nobody."`
	Slow    float64       `help:"Share of the nodes that have a tenth of the rate."`
	Churn   float64       `help:"Share that dies at any time before the bound, half of them silently." xor:"deaths"`
	Kill    float64       `help:"Share that dies in the middle of the bound." xor:"deaths"`
	Liars   float64       `help:"Share that answers with wrong bytes."`

	Scenario []string `type:"existingfile" help:"Simulate these scenarios (benchmarks/scenarios) instead; --nodes and what follows it, up to here, is not used."`

	Set  map[string]string `placeholder:"NAME=VALUE" help:"Change a number of the planner's Tuning or of the model's Costs."`
	Seed uint64            `default:"1" help:"Seed of the first run; each further one has the next."`
	Runs int               `default:"1" help:"Runs of each crowd."`
	Out  string            `short:"o" type:"path" help:"Write all runs to this JSON file."`
	Plot string            `type:"path" help:"Draw makespan and copies over the size of the crowd to this SVG file."`
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes a command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	var c cli
	parser, err := kong.New(&c, kong.Name("sim"), kong.Writers(stdout, stderr),
		kong.Description("Simulate crowds of nodes that fill the same blob."))
	if err != nil {
		fmt.Fprintln(stderr, "sim:", err)
		return 1
	}
	if _, err := parser.Parse(args); err != nil {
		fmt.Fprintln(stderr, "sim:", err)
		return 2
	}
	if err := c.simulate(context.Background(), stdout); err != nil {
		fmt.Fprintln(stderr, "sim:", err)
		return 1
	}
	return 0
}

// scenarios returns what is to be simulated.
func (c *cli) scenarios() ([]*scenario.Scenario, error) {
	var all []*scenario.Scenario
	for _, file := range c.Scenario {
		s, err := scenario.Load(file)
		if err != nil {
			return nil, err
		}
		if why := s.LabOnly(); why != "" {
			return nil, fmt.Errorf("%s cannot be simulated: %s", file, why)
		}
		all = append(all, s)
	}
	if len(all) > 0 {
		return all, nil
	}
	for _, n := range c.Nodes {
		s, err := c.flags(n)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// flags returns the scenario that the flags describe, for n nodes.
func (c *cli) flags(n int) (*scenario.Scenario, error) {
	mbit := scenario.Rate(1e6)
	s := &scenario.Scenario{
		Name: fmt.Sprintf("%d nodes", n), Purpose: "as the flags say",
		Nodes: scenario.Nodes{
			Count: n, Seeded: c.Seeded, Link: scenario.Rate(c.Link) * mbit,
			Slow: scenario.Slow{Share: c.Slow, Link: scenario.Rate(c.Link) * mbit / 10},
		},
		Origin:   scenario.Origin{Link: scenario.Rate(c.Origin) * mbit, IgnoresRange: c.NoRange},
		Image:    scenario.Image{Layers: []scenario.Size{scenario.Size(c.Pieces) << 20}},
		Latency:  c.Latency,
		Arrivals: scenario.Arrivals{Over: c.Spread, StartsNode: c.Cold},
		Faults:   scenario.Faults{Lie: c.Liars},
	}
	switch {
	case c.Churn > 0:
		s.Faults.Kill = scenario.Fault{Share: c.Churn / 2, Until: 1}
		s.Faults.Unplug = s.Faults.Kill
	case c.Kill > 0:
		s.Faults.Kill = scenario.Fault{Share: c.Kill, From: 0.5}
	}
	for node := range n {
		if s.Counts(node) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%d nodes leave none that is neither seeded, slow, lying nor dying", n)
}

// simulate runs everything and reports.
func (c *cli) simulate(ctx context.Context, stdout io.Writer) error {
	all, err := c.scenarios()
	if err != nil {
		return err
	}
	r := newReport(ctx)
	r.heading(stdout)
	for _, s := range all {
		for k := range c.Runs {
			one, err := c.once(s, c.Seed+uint64(k))
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			r.add(stdout, one)
			if err := c.keep(r); err != nil { // a long run may be broken off
				return err
			}
		}
	}
	return nil
}

// keep writes what there is so far.
func (c *cli) keep(r *report) error {
	if c.Out != "" {
		if err := r.write(c.Out); err != nil {
			return err
		}
	}
	if c.Plot != "" {
		return r.draw(c.Plot)
	}
	return nil
}

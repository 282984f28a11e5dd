//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// shoal is the program of this tree.
type shoal struct{ commit string }

func (shoal) name() string    { return shoalName }
func (shoal) needs() []string { return nil }
func (s shoal) versions(context.Context) map[string]string {
	return map[string]string{shoalName: s.commit}
}
func (shoal) expect(*scenario.Scenario) float64 { return 1.2 }

// idle is what issue 3 asks for: connections that were made are used by then.
func (shoal) idle() time.Duration { return 10 * time.Second }

// crew prepares a node on every machine.
func (shoal) crew(ctx context.Context, st *stage) (crew, error) {
	relay, members, err := st.shoals(ctx)
	return &shoalCrew{stage: st, relay: relay, members: members}, err
}

// shoals prepares a node on every machine: an identity, and whom to join. Behind
// NAT that is a relay, which runs then; it is nil otherwise.
func (st *stage) shoals(ctx context.Context, args ...string) (relay *program.Node, members []*program.Node, err error) {
	prepare := func(host *testhost.Host, join []*program.Node, args ...string) (*program.Node, error) {
		return program.NewNode(ctx, host, program.NodeConfig{
			Shoal: st.shoal, Name: "shoal", SwarmKey: st.key, Upstream: st.upstream, Join: join, Args: append(args, "--no-mdns"),
		})
	}
	if st.scenario.Nodes.NAT != "" {
		if relay, err = prepare(st.center, nil, "--relay"); err != nil {
			return nil, nil, err
		}
		if err := relay.Start(ctx); err != nil {
			return nil, nil, err
		}
	}
	for i, host := range st.nodes {
		join := members[:min(i, 3)] // what a cluster has as its addresses to join
		if relay != nil {
			join = []*program.Node{relay}
		}
		n, err := prepare(host, join, slices.Concat(st.zone(i), st.limits(), args)...)
		if err != nil {
			return nil, nil, err
		}
		members = append(members, n)
	}
	return relay, members, nil
}

// limits returns the arguments that tell a node its limits.
func (st *stage) limits() (args []string) {
	limits := st.scenario.Nodes.Limits
	for _, l := range []struct {
		flag string
		rate scenario.Rate
	}{{"--max-upload", limits.MaxUpload}, {"--max-origin", limits.MaxOrigin}} {
		if l.rate > 0 {
			args = append(args, l.flag, fmt.Sprintf("%dkbit", l.rate/1000))
		}
	}
	return args
}

// shoalCrew is a node on every machine.
type shoalCrew struct {
	*stage
	relay   *program.Node // nil: none is needed
	members []*program.Node
}

// zone returns the arguments that tell a node its zone.
func (st *stage) zone(node int) []string {
	if len(st.zones) == 0 {
		return nil
	}
	return []string{"--zone", fmt.Sprintf("site-%d", node%len(st.zones))}
}

func (c *shoalCrew) start(ctx context.Context, node int) error { return c.members[node].Start(ctx) }

// connected waits until each node is connected to all others.
func (c *shoalCrew) connected(ctx context.Context) error {
	if c.relay != nil {
		return c.connectedOver(ctx)
	}
	others := len(c.members) - 1
	if zones := c.scenario.Nodes.Zones; zones.Apart {
		others = len(c.members)/zones.Count - 1
	}
	for _, n := range c.members {
		err := testhost.Until(ctx, readyTime, func(ctx context.Context) error {
			s, err := n.Status(ctx)
			if err == nil && s.Peers < others {
				err = fmt.Errorf("%s is connected to %d of %d others", n.Host.Name, s.Peers, others)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *shoalCrew) pull(ctx context.Context, node int) error {
	return pull(ctx, rig.Client{Dial: c.nodes[node].DialContext, Base: program.MirrorURL}, c.image)
}

func (c *shoalCrew) stored(node int, b blobFile) (string, bool) {
	return c.members[node].BlobFile(b.hex), true
}

func (c *shoalCrew) verify(_ context.Context, node int) error { return verifyFiles(c, c.image, node) }

func (c *shoalCrew) process(node int) *testhost.Process { return c.members[node].Process }

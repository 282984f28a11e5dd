//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

const (
	idlePeers = 20
	idleBlobs = 1000
	// settleTime is within what a swarm takes until everything is announced.
	settleTime = 30 * time.Second
	// renewCycle is how often a node renews its announcements: a third of the
	// 20 minutes for which they count (package p2p).
	renewCycle = 20 * time.Minute / 3
)

// measureIdle measures what nodes of a swarm cost that do nothing: one that has
// many small blobs, beside one that has none.
func measureIdle(ctx context.Context, b *bench) error {
	if err := b.haveMachines(idlePeers + 1); err != nil {
		return err
	}
	swarm, err := b.idleSwarm(ctx)
	if err != nil {
		return err
	}
	full, empty := swarm[0], swarm[1]
	err = testhost.Until(ctx, time.Minute, func(ctx context.Context) error { return hasPeers(ctx, empty, full) })
	if err != nil {
		return err
	}
	if err := rig.Sleep(ctx, settleTime); err != nil {
		return err
	}
	before, err := costs(ctx, full, empty)
	if err != nil {
		return err
	}
	if err := rig.Sleep(ctx, renewCycle); err != nil {
		return err
	}
	after, err := costs(ctx, full, empty)
	if err != nil {
		return err
	}
	who := []string{fmt.Sprintf("with %d blobs", idleBlobs), "with none"}
	for _, what := range []string{"CPU ms/min", "kB/min"} {
		var spent []float64
		for i := range who {
			spent = append(spent, (after[i][what]-before[i][what])/renewCycle.Minutes())
			b.add(fmt.Sprintf("idle node with %d peers, %s", idlePeers, who[i]), what, spent[i:i+1])
		}
		b.add("1,000 idle blobs announced", what, []float64{spent[0] - spent[1]})
	}
	errs := []error{
		b.addPeak(fmt.Sprintf("idle with %d peers", idlePeers), empty, atMost(80)),
		b.addPeak(fmt.Sprintf("idle with %d peers and %d blobs", idlePeers, idleBlobs), full, atMost(80)),
	}
	for _, n := range swarm {
		errs = append(errs, b.drop(n))
	}
	return errors.Join(errs...)
}

// idleSwarm starts a node on every machine, the first of which has blobs.
func (b *bench) idleSwarm(ctx context.Context) ([]*program.Node, error) {
	var swarm []*program.Node
	for i := range idlePeers + 1 {
		n, err := program.NewNode(ctx, b.machines[i], program.NodeConfig{
			Shoal: program.Shoal(b.dir), Name: "idle", SwarmKey: b.key, Upstream: b.origin.URL(),
			Join: swarm[:min(i, 3)], Args: []string{"--no-mdns"},
		})
		if err != nil {
			return nil, err
		}
		if i == 0 {
			if err := putBlobs(n.BlobFile(""), idleBlobs); err != nil {
				return nil, err
			}
		}
		if err := n.Start(ctx); err != nil {
			return nil, err
		}
		swarm = append(swarm, n)
	}
	return swarm, nil
}

// putBlobs writes small blobs into the folder of a node that does not run: it
// finds and proves them when it starts.
func putBlobs(dir string, n int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := range n {
		content := fmt.Appendf(nil, "blob %d", i)
		sum := sha256.Sum256(content)
		if err := os.WriteFile(filepath.Join(dir, hex.EncodeToString(sum[:])), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// hasPeers tells whether the nodes are connected to all others.
func hasPeers(ctx context.Context, nodes ...*program.Node) error {
	for _, n := range nodes {
		s, err := n.Status(ctx)
		if err != nil {
			return err
		}
		if s.Peers < idlePeers {
			return fmt.Errorf("%s is connected to %d of %d", n.Host.Name, s.Peers, idlePeers)
		}
	}
	return nil
}

// costs returns what the nodes have used so far.
func costs(ctx context.Context, nodes ...*program.Node) ([]sample, error) {
	var all []sample
	for _, n := range nodes {
		cpu, err := n.Process.CPU()
		if err != nil {
			return nil, err
		}
		bytes, err := n.Host.Traffic(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, sample{"CPU ms/min": float64(cpu.Milliseconds()), "kB/min": float64(bytes) / 1e3})
	}
	return all, nil
}

//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// measureLink compares what curl gets through one cold node from one that holds
// the blob with what it gets from nginx over the same link: when the node knows
// nothing of the blob, so that the proof closes at the end, and when it had the
// blob before and still knows its chain.
func measureLink(ctx context.Context, b *bench) error {
	const size = 512 << 20
	holder, blob, err := b.hold(ctx, 1, size)
	if err != nil {
		return err
	}
	nginx, err := b.serve(ctx, holder.Host, holder.Host.Addr, holder.BlobFile(blob.Digest.Hex))
	if err != nil {
		return err
	}
	got, err := b.compare(ctx,
		contender{"nginx", func(ctx context.Context) (sample, error) {
			took, err := curl(ctx, b.machines[1], nginx+nginxPath, size)
			return sample{"MB/s": size / 1e6 / took.Seconds()}, err
		}},
		contender{"shoal", func(ctx context.Context) (sample, error) { return b.throughSwarm(ctx, holder, blob) }},
	)
	if err != nil {
		return err
	}
	const what = "512 MiB at 1 Gbit/s: "
	b.add(what+"curl from nginx", "MB/s", got["nginx"]["MB/s"])
	for _, leg := range []struct {
		name string
		asks float64
	}{{closesAtTheEnd, 0.85}, {chainKnown, 0.9}} {
		name := what + "curl from a cold node, one holder, " + leg.name
		b.add(name, "MB/s", got["shoal"]["MB/s, "+leg.name])
		b.add(name+", by nginx", "", ratios(got["shoal"]["MB/s, "+leg.name], got["nginx"]["MB/s"]), atLeast(leg.asks))
		b.add(name+", both nodes", "CPU s/GB", got["shoal"]["CPU s/GB, "+leg.name])
	}
	return b.drop(holder)
}

// What the puller knows of the blob.
const (
	closesAtTheEnd = "proof closes at the end"
	chainKnown     = "chain known"
)

// throughSwarm gets the blob through a new node, and again after its file has
// gone as by an eviction, which leaves the chain.
func (b *bench) throughSwarm(ctx context.Context, holder *program.Node, blob v1.Descriptor) (sample, error) {
	before := len(b.origin.Accesses().Blobs())
	puller, err := b.node(ctx, 1, b.origin.URL(), holder)
	if err != nil {
		return nil, err
	}
	all := sample{}
	for _, leg := range []string{closesAtTheEnd, chainKnown} {
		took, cpu, err := b.throughNode(ctx, holder, puller, blob)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", leg, err)
		}
		all["MB/s, "+leg] = float64(blob.Size) / 1e6 / took.Seconds()
		all["CPU s/GB, "+leg] = cpu.Seconds() / (float64(blob.Size) / 1e9)
		if err := os.Remove(puller.BlobFile(blob.Digest.Hex)); err != nil {
			return nil, err
		}
	}
	if asked := len(b.origin.Accesses().Blobs()) - before; asked > 0 {
		return nil, fmt.Errorf("the origin was asked for the blob %d times", asked)
	}
	return all, b.drop(puller)
}

// throughNode gets the blob through the node, and returns how long that took
// and the processor time that it and the holder used until it was stored.
func (b *bench) throughNode(ctx context.Context, holder, puller *program.Node, blob v1.Descriptor) (took, cpu time.Duration, err error) {
	if err := rig.WarmMemory(ctx, blob.Size+128<<20); err != nil {
		return 0, 0, err
	}
	nodes := []*testhost.Process{holder.Process, puller.Process}
	used, err := sumCPU(nodes)
	if err != nil {
		return 0, 0, err
	}
	if took, err = curl(ctx, puller.Host, blobURL(blob), blob.Size); err != nil {
		return 0, 0, err
	}
	if err := whole(ctx, puller, blob); err != nil {
		return 0, 0, err
	}
	after, err := sumCPU(nodes)
	return took, after - used, err
}

func sumCPU(of []*testhost.Process) (sum time.Duration, err error) {
	for _, p := range of {
		used, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

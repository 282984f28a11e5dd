//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"

	"golang.org/x/sync/errgroup"
)

// measureBlob lets local clients get a cached blob from a node, from nginx and
// from docker-registry, all of which have it in the page cache.
func measureBlob(ctx context.Context, b *bench) error {
	const size = 64 << 20
	n, blob, err := b.hold(ctx, 3, size)
	if err != nil {
		return err
	}
	nginx, err := b.serve(ctx, n.Host, loopback(), n.BlobFile(blob.Digest.Hex))
	if err != nil {
		return err
	}
	local := n.Host.DialContext
	servers := []download{
		{"shoal", rig.Client{Dial: local, Base: program.MirrorURL}, path(blob), size},
		{"nginx", rig.Client{Dial: local, Base: nginx}, nginxPath, size},
		{"docker-registry", rig.Client{Dial: b.origin.Host.DialContext, Base: b.origin.Backend()}, path(blob), size},
	}
	for _, s := range servers { // what only the first request costs
		if _, err := s.get(ctx, 1, 1); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for _, load := range []struct{ connections, requests int }{{1, 60}, {16, 400}} {
		var contenders []contender
		for _, s := range servers {
			contenders = append(contenders, contender{s.name, func(ctx context.Context) (sample, error) {
				return s.get(ctx, load.connections, load.requests)
			}})
		}
		got, err := b.compare(ctx, contenders...)
		if err != nil {
			return err
		}
		b.reportBlob(got, load.connections)
	}
	return b.drop(n)
}

func (b *bench) reportBlob(got map[string]series, connections int) {
	what := fmt.Sprintf("64 MiB to local clients, %d at once", connections)
	for _, name := range []string{"shoal", "nginx", "docker-registry"} {
		b.add(what+": "+name, "MB/s", got[name]["MB/s"])
	}
	b.add(what+": shoal by nginx", "", ratios(got["shoal"]["MB/s"], got["nginx"]["MB/s"]), atLeast(0.95))
	b.add(what+": docker-registry by nginx", "", ratios(got["docker-registry"]["MB/s"], got["nginx"]["MB/s"]))
	if connections == 1 {
		return
	}
	for _, quantity := range []string{"first byte, p50", "first byte, p99"} {
		for _, name := range []string{"shoal", "nginx", "docker-registry"} {
			b.add(what+", "+quantity+": "+name, "ms", got[name][quantity])
		}
	}
	const p99 = "first byte, p99"
	b.add(what+", "+p99+": shoal by nginx", "", ratios(got["shoal"][p99], got["nginx"][p99]), atMost(1.5))
}

// download is a file to get from a server.
type download struct {
	name   string
	client rig.Client
	path   string
	size   int64
}

// get asks for the file as often as requests says, over so many connections.
func (d download) get(ctx context.Context, connections, requests int) (sample, error) {
	var (
		left   atomic.Int64
		mu     sync.Mutex
		firsts []time.Duration
	)
	left.Store(int64(requests))
	group, ctx := errgroup.WithContext(ctx)
	started := time.Now()
	for range connections {
		group.Go(func() error {
			conn, err := d.client.Connect(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			for left.Add(-1) >= 0 {
				if err := conn.Discard(http.MethodGet, d.path, d.size); err != nil {
					return err
				}
				mu.Lock()
				firsts = append(firsts, conn.First())
				mu.Unlock()
			}
			return nil
		})
	}
	err := group.Wait()
	if err != nil {
		return nil, err
	}
	slices.Sort(firsts)
	return sample{
		"MB/s":            float64(d.size) * float64(requests) / 1e6 / time.Since(started).Seconds(),
		"first byte, p50": percentile(firsts, 50).Seconds() * 1e3,
		"first byte, p99": percentile(firsts, 99).Seconds() * 1e3,
	}, nil
}

// percentile returns the least value that p per cent of all do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

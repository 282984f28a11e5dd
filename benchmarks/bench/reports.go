//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"shoal/benchmarks/rig"
	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/trace"
	"shoal/cmd/shoal/e2e/testhost"
	"shoal/p2p"
	"shoal/p2p/swarmkey"
	"shoal/proxy"
	"shoal/proxy/origin"
	"shoal/proxy/pull"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
)

// recordings is how many pairs are compared for each run that is asked for: what
// the records of pulls cost is less than two runs differ by.
const recordings = 4

// measureReports measures what it costs that pulls are recorded for reports: of
// blobs from the cache, and of fills from a member. Both kinds of node, which
// differ in nothing else, are in this process.
func measureReports(ctx context.Context, b *bench) error {
	c, err := blobcache.Open(filepath.Join(b.dir, "reports"), blobcache.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	group, running := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(running)
	defer stop()
	recorder := pull.NewRecorder(func(pull.Report) {})
	group.Go(func() error {
		_ = recorder.Run(running) // its end is that of running
		return nil
	})
	err = errors.Join(b.recordBlobs(running, group, c, recorder), b.recordFills(running, group, c, recorder))
	stop()
	return errors.Join(err, group.Wait())
}

// recordBlobs compares proxies of one cache with and without the recorder.
func (b *bench) recordBlobs(ctx context.Context, group *errgroup.Group, c *blobcache.Cache, recorder *pull.Recorder) error {
	on, err := serveProxy(ctx, group, c, recorder)
	if err != nil {
		return err
	}
	off, err := serveProxy(ctx, group, c, nil)
	if err != nil {
		return err
	}
	for _, load := range []struct {
		size     int64
		requests int
	}{{64 << 20, 80}, {1 << 20, 3000}} {
		d, err := putRandom(ctx, c, load.size)
		if err != nil {
			return err
		}
		const clients = 16
		path := "/v2/" + blobRepository + "/blobs/" + d.Digest.String()
		ask := func(base string) func(context.Context) (sample, error) {
			from := download{"", rig.Client{Dial: new(net.Dialer).DialContext, Base: base}, path, load.size}
			return func(ctx context.Context) (sample, error) { return from.get(ctx, clients, load.requests) }
		}
		if err := b.compareRecorded(ctx, fmt.Sprintf("cached blobs of %d MiB to %d clients", load.size>>20, clients), ask(on), ask(off)); err != nil {
			return err
		}
	}
	return nil
}

// compareRecorded reports the rate with the recorder by that without it.
func (b *bench) compareRecorded(ctx context.Context, what string, on, off func(context.Context) (sample, error)) error {
	got, err := takeTurns(ctx, recordings*b.runs, contender{"on", on}, contender{"off", off})
	if err != nil {
		return err
	}
	b.add(what+", recorded", "MB/s", got["on"]["MB/s"])
	b.add(what+", not recorded", "MB/s", got["off"]["MB/s"])
	b.add(what+", recorded by not recorded", "", ratios(got["on"]["MB/s"], got["off"]["MB/s"]), atLeast(0.99))
	if cpu := got["on"]["CPU s"]; cpu != nil {
		b.add(what+", processor time of the same", "", ratios(cpu, got["off"]["CPU s"]), atMost(1.01))
	}
	return nil
}

// serveProxy serves the cache on loopback in group, until ctx ends, and returns
// the URL.
func serveProxy(ctx context.Context, group *errgroup.Group, c *blobcache.Cache, recorder *pull.Recorder) (string, error) {
	upstream, err := origin.New(origin.Options{Registries: origin.Registries{"docker.io": {Upstreams: []string{"http://127.0.0.1:1"}}}})
	if err != nil {
		return "", err
	}
	p, err := proxy.New(proxy.Options{Cache: c, Origin: upstream, Pulls: recorder})
	if err != nil {
		return "", err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := p.Server()
	context.AfterFunc(ctx, func() {
		_ = server.Close()
		upstream.Close()
	})
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return "http://" + l.Addr().String(), nil
}

// recordFills compares fills from one holder by new nodes with and without the
// recorder.
func (b *bench) recordFills(ctx context.Context, group *errgroup.Group, c *blobcache.Cache, recorder *pull.Recorder) error {
	d, err := putRandom(ctx, c, 256<<20)
	if err != nil {
		return err
	}
	s := &fillSwarm{key: swarmkey.New(), dir: filepath.Join(b.dir, "fills")}
	if s.holder, err = s.node(c, nil); err != nil {
		return err
	}
	group.Go(func() error { return s.holder.Run(ctx) })
	with := func(observe func(*trace.Live)) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) { return s.fill(ctx, d, observe) }
	}
	return b.compareRecorded(ctx, fmt.Sprintf("a fill of %d MiB from a member", d.Size>>20), with(recorder.Fill), with(nil))
}

// fillSwarm is a holder, and one new member after the other.
type fillSwarm struct {
	key    *swarmkey.Key
	dir    string // of the new one
	holder *p2p.Node
}

// node makes a member on loopback.
func (s *fillSwarm) node(c *blobcache.Cache, observe func(*trace.Live)) (*p2p.Node, error) {
	id, err := newIdentity()
	if err != nil {
		return nil, err
	}
	var join []ma.Multiaddr
	if s.holder != nil {
		join = s.holder.Addrs()
	}
	return p2p.New(p2p.Options{
		Identity: id, Cache: c, Key: s.key, Join: join, Swarm: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		Pieces: "127.0.0.1:0", NoMDNS: true, Logger: slog.New(slog.DiscardHandler), Trace: observe,
	})
}

// fill has a new member fetch the blob.
func (s *fillSwarm) fill(ctx context.Context, d blob.Descriptor, observe func(*trace.Live)) (got sample, err error) {
	c, err := blobcache.Open(s.dir, blobcache.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close(), os.RemoveAll(s.dir)) }()
	n, err := s.node(c, observe) //nolint:contextcheck // it lives until Run ends
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- n.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	if err := testhost.Until(ctx, 10*time.Second, func(context.Context) error {
		if !n.Joined() {
			return errors.New("not joined")
		}
		return nil
	}); err != nil {
		return nil, err
	}
	before, err := ownCPU()
	if err != nil {
		return nil, err
	}
	started := time.Now()
	f, err := n.Fetch(ctx, d, nil)
	if err != nil {
		return nil, err
	}
	<-f.Done()
	took := time.Since(started)
	after, err := ownCPU()
	return sample{"MB/s": float64(d.Size) / 1e6 / took.Seconds(), "CPU s": (after - before).Seconds()}, errors.Join(err, f.Err())
}

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

// recordings is how many pairs make one run, of which the median counts: they last
// a fraction of a second each, and differ by more than what is looked for.
const recordings = 30

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
	}{{64 << 20, 16}, {1 << 20, 1000}} {
		d, err := putRandom(ctx, c, load.size)
		if err != nil {
			return err
		}
		const clients = 16
		path := "/v2/" + blobRepository + "/blobs/" + d.Digest.String()
		ask := func(base string) func(context.Context) (sample, error) {
			from := download{"", rig.Client{Dial: new(net.Dialer).DialContext, Base: base}, path, load.size}
			return func(ctx context.Context) (sample, error) {
				return withCPU(func() (sample, error) { return from.get(ctx, clients, load.requests) })
			}
		}
		if err := b.compareRecorded(ctx, fmt.Sprintf("cached blobs of %d MiB to %d clients", load.size>>20, clients), ask(on), ask(off)); err != nil {
			return err
		}
	}
	return nil
}

// compareRecorded reports the rate and the processor time (of both ends) with the
// recorder by those without it.
func (b *bench) compareRecorded(ctx context.Context, what string, on, off func(context.Context) (sample, error)) error {
	median := func(values []float64) float64 { return rig.SpreadOf(values).Median }
	var rate, quotient, cpu []float64
	for range b.runs {
		got, err := takeTurns(ctx, recordings, contender{"on", on}, contender{"off", off})
		if err != nil {
			return err
		}
		rate = append(rate, median(got["off"]["MB/s"]))
		quotient = append(quotient, median(ratios(got["on"]["MB/s"], got["off"]["MB/s"])))
		cpu = append(cpu, median(ratios(got["on"]["CPU s"], got["off"]["CPU s"])))
	}
	b.add(what+", not recorded", "MB/s", rate)
	b.add(what+", rate of recorded ones by that", "", quotient, atLeast(0.99))
	b.add(what+", processor time of recorded ones by that of others", "", cpu, atMost(1.01))
	return nil
}

// withCPU adds the processor time that f takes this process.
func withCPU(f func() (sample, error)) (sample, error) {
	before, err := ownCPU()
	if err != nil {
		return nil, err
	}
	got, err := f()
	if err != nil {
		return nil, err
	}
	after, err := ownCPU()
	got["CPU s"] = (after - before).Seconds()
	return got, err
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
	d, err := putRandom(ctx, c, 64<<20)
	if err != nil {
		return err
	}
	s := &fillSwarm{key: swarmkey.New(), dir: filepath.Join(b.dir, "fills")}
	if s.holder, err = s.node(c, nil); err != nil { //nolint:contextcheck // it lives until Run ends
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
	if err := testhost.Until(ctx, 10*time.Second, func(ctx context.Context) error {
		if !n.Joined() {
			return errors.New("not joined") // a lookup would take its time to find nobody
		}
		looking, found := context.WithCancel(ctx)
		defer found()
		for range n.Holders(looking, d.Digest) {
			return nil
		}
		return errors.New("the new member does not find the holder")
	}); err != nil {
		return nil, err
	}
	return withCPU(func() (sample, error) {
		started := time.Now()
		f, err := n.Fetch(ctx, d, nil)
		if err != nil {
			return nil, err
		}
		<-f.Done()
		return sample{"MB/s": float64(d.Size) / 1e6 / time.Since(started).Seconds()}, f.Err()
	})
}

// Package demo shows a swarm at work on one machine: an origin registry with a
// slow uplink, in this process; nodes, as processes of their own; and a client
// for each node that pulls a generated image over plain HTTP and hashes all of
// it. It is not a benchmark and not a test of Shoal's inside: every number
// comes from the origin's own log or from what the clients read, never from
// what a node says of itself.
//
// Run owns all goroutines, processes and files of the demo, and has ended and
// removed them when it returns, however it ends.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/p2p/swarmkey"
	"shoal/proxy/origin/origintest"
)

// What the demo is made of.
const (
	nodeCount  = 5 // the first of them is seeded
	uplinkBits = 200_000_000
	imageSeed  = 1
	repository = "shoal/demo"
	tag        = "latest"
)

// layerSizes are the five layers of each platform, in bytes.
func layerSizes() []int64 {
	return []int64{2_000_000, 5_000_000, 10_000_000, 20_000_000, 30_000_000}
}

// ErrWrongDigest says that a client read bytes that do not hash to what was asked for.
var ErrWrongDigest = errors.New("wrong digest")

// Options are what Run needs of the process.
type Options struct {
	Executable string // the shoal binary; nodes are "EXECUTABLE serve ..."
	Out        io.Writer
	Terminal   bool // Out is a terminal: progress is redrawn in place
	Keep       bool // go on until ctx ends, after printing how to use the nodes
}

// demo is one run.
type demo struct {
	Options
	image   *origintest.Added
	origin  *origin
	nodes   []*node
	clients []*client
}

// Run shows the demo. It fails with ErrWrongDigest if a client got a wrong
// byte, and when a part does not start, ends early, or ctx ends before the
// table is printed.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp("", "shoal-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{Options: o}
	d.printf("An origin registry with an uplink of %d Mbit/s, and %d nodes on this machine.\n", uplinkBits/1_000_000, nodeCount)
	if d.origin, d.image, err = startOrigin(nodeCount); err != nil { //nolint:contextcheck // it serves until it is closed
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, d.origin.close()) }()

	// The nodes outlive ctx: they are stopped in order, and waited for.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer func() { err = errors.Join(err, stopAll(d.nodes)) }()
	if err := d.start(ctx, cancel, dir); err != nil {
		return explain(ctx, err)
	}
	if err := d.show(ctx); err != nil {
		return explain(ctx, err)
	}
	if d.Keep {
		d.printUsage()
		<-ctx.Done()
		if why := context.Cause(ctx); !errors.Is(why, context.Canceled) {
			return why
		}
	}
	return nil
}

// explain prefers the reason for which ctx ended: a node that died makes
// clients fail in all sorts of ways.
func explain(ctx context.Context, err error) error {
	switch why := context.Cause(ctx); {
	case why == nil:
		return err
	case errors.Is(why, context.Canceled):
		return errors.New("demo: interrupted")
	default:
		return why
	}
}

// start runs the nodes and waits until they know each other.
func (d *demo) start(ctx context.Context, cancel context.CancelCauseFunc, dir string) error {
	key := filepath.Join(dir, "swarm.key")
	if err := os.WriteFile(key, swarmkey.New().Text(), 0o600); err != nil {
		return err
	}
	var join []string
	for i := range nodeCount {
		n, err := startNode(ctx, nodeOptions{
			executable: d.Executable,
			dir:        filepath.Join(dir, fmt.Sprintf("node%d", i+1)),
			name:       fmt.Sprintf("node %d", i+1),
			key:        key,
			join:       join,
			origin:     d.origin.url(i),
			died:       cancel,
		})
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
		if err := n.waitListening(ctx); err != nil {
			return err
		}
		if i == 0 {
			join = n.listen.Addrs[:1]
		}
		d.clients = append(d.clients, newClient("http://"+n.listen.Mirror))
	}
	for _, n := range d.nodes {
		if err := n.waitJoined(ctx); err != nil {
			return err
		}
	}
	return nil
}

// show does the three steps and prints what came of them.
func (d *demo) show(ctx context.Context) error {
	want := d.image.Platforms[0]
	if i := slices.IndexFunc(d.image.Platforms, func(p origintest.Platform) bool { return p.Name == "linux/"+runtime.GOARCH }); i >= 0 {
		want = d.image.Platforms[i]
	}
	d.printf("Image %s:%s for %s: %s in %d layers.\n\n", repository, tag, want.Name, megabytes(want.Bytes()), len(want.Layers))

	d.printf("1. Straight from the origin, to measure its uplink\n")
	direct := newClient(d.origin.url(nodeCount))
	if err := d.pull(ctx, want, []string{"direct"}, []*client{direct}); err != nil {
		return err
	}
	d.printf("2. Through node 1, which keeps the image\n")
	if err := d.pull(ctx, want, []string{"node 1"}, d.clients[:1]); err != nil {
		return err
	}
	seeded := d.origin.sent(0)
	d.printf("3. Through all %d nodes at once\n", nodeCount)
	// A client of its own for node 1: its first pull must not count.
	d.clients[0] = newClient("http://" + d.nodes[0].listen.Mirror)
	var names []string
	for _, n := range d.nodes {
		names = append(names, n.name)
	}
	before := d.origin.sentAll()
	begin := time.Now()
	if err := d.pull(ctx, want, names, d.clients); err != nil {
		return err
	}
	makespan := time.Since(begin)
	r := report{
		imageBytes: d.image.Index.Size + want.Bytes(),
		direct:     direct.elapsed,
		makespan:   makespan,
		seeded:     seeded,
	}
	for i, n := range d.nodes {
		r.rows = append(r.rows, row{
			name:   n.name,
			took:   d.clients[i].elapsed,
			read:   d.clients[i].read.Load(),
			origin: d.origin.sent(i) - before[i],
			blobs:  d.clients[i].blobs,
			seeded: i == 0,
		})
	}
	_, err := io.WriteString(d.Out, r.String())
	return err
}

// pull lets the clients pull the image at the same time and shows how far they
// are.
func (d *demo) pull(ctx context.Context, want origintest.Platform, names []string, clients []*client) error {
	p := newProgress(d.Out, d.Terminal, names, clients, d.image.Index.Size+want.Bytes())
	defer p.stop()
	g, ctx := errgroup.WithContext(ctx)
	for i, c := range clients {
		g.Go(func() error {
			if err := c.pull(ctx, d.image.Index.Digest, want); err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (d *demo) printf(format string, args ...any) {
	// An output that is gone ends the demo by SIGPIPE, or did not matter.
	_, _ = fmt.Fprintf(d.Out, format, args...)
}

// printUsage tells how to use the running nodes.
func (d *demo) printUsage() {
	d.printf("\nThe nodes go on until Ctrl-C. Point a dockerd at one of them and pull:\n\n"+
		"    dockerd --registry-mirror http://%s     # or \"registry-mirrors\" in /etc/docker/daemon.json\n"+
		"    docker pull %s:%s\n\nOr ask them:\n\n", d.nodes[1].listen.Mirror, repository, tag)
	for _, n := range d.nodes {
		d.printf("    %s status --admin %-17s # %s, mirror http://%s\n", d.Executable, n.listen.Admin, n.name, n.listen.Mirror)
	}
}

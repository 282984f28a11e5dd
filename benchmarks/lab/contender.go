//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"shoal/benchmarks/lab/report"
	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/testhost"
)

// contender is a way in which images get to nodes.
type contender interface {
	name() string
	// needs returns the programs of Debian packages that it runs.
	needs() []string
	// versions returns those of its programs.
	versions(ctx context.Context) map[string]string
	// idle is how long its nodes run before the first client asks.
	idle() time.Duration
	// expect guesses the makespan by the bound, for estimates only.
	expect(s *scenario.Scenario) float64
	// crew makes what one run needs beside the nodes' own programs, none of
	// which it starts yet.
	crew(ctx context.Context, st *stage) (crew, error)
}

// stage is where one run takes place.
type stage struct {
	scenario *scenario.Scenario
	image    *image
	origin   *origin
	upstream string // URL of the registry
	nodes    []*testhost.Host
	zones    []*testhost.Zone // node i is in zone i modulo their number; none is one place
	center   *testhost.Host   // for what there is once: trackers and the like
	dir      string           // of this run, removed after it
	shoal    string           // path of the program that is measured
	key      string           // file with a swarm key
}

// crew is one run's programs on the nodes. Its methods are called with the
// number of a node, from goroutines of their own.
type crew interface {
	// start starts the node's program and waits until clients can ask it.
	start(ctx context.Context, node int) error
	// connected waits until all nodes know each other as well as they do
	// before they have anything to do.
	connected(ctx context.Context) error
	// pull gets the image to the node's client, down to the last byte.
	pull(ctx context.Context, node int) error
	// stored returns the file in which a blob lies once the node has proven
	// it. If there is none, all is proven when pull returns.
	stored(node int, b blobFile) (file string, ok bool)
	// verify looks whether the node has the right bytes, after the clock.
	verify(ctx context.Context, node int) error
	// process returns the node's program, or nil.
	process(node int) *testhost.Process
}

// packages says which Debian package holds a program.
func packages() map[string]string {
	return map[string]string{
		"aria2c": "aria2", "mktorrent": "mktorrent", "docker-registry": "docker-registry", "nginx": "nginx-light",
		"dockerd": "docker.io", "docker": "docker.io", "containerd": "containerd", "runc": "runc", "busybox": "busybox-static",
		"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "mount": "mount",
	}
}

// installed returns an error that names programs which are missing and the
// packages that hold them.
func installed(programs []string) error {
	var missing, install []string
	for _, name := range programs {
		if _, err := testhost.Program(name); err == nil {
			continue
		}
		missing = append(missing, name)
		if p, known := packages()[name]; known {
			install = append(install, p)
		}
	}
	switch {
	case len(missing) == 0:
		return nil
	case len(install) < len(missing):
		return fmt.Errorf("not installed: %s", strings.Join(missing, " "))
	}
	return fmt.Errorf("not installed: %s; run: apt-get install --no-install-recommends %s (or name other contenders with -contenders)",
		strings.Join(missing, " "), strings.Join(install, " "))
}

// direct is a plain download from the origin by every node.
type direct struct{}

func (direct) name() string                               { return "direct" }
func (direct) needs() []string                            { return nil }
func (direct) versions(context.Context) map[string]string { return nil }
func (direct) idle() time.Duration                        { return 0 }
func (direct) expect(s *scenario.Scenario) float64 {
	return float64(max(s.Cold(), len(s.Arrivals.Turns)))
}
func (direct) crew(_ context.Context, st *stage) (crew, error) { return directCrew{st}, nil }

// directCrew needs no programs. Its clients keep nothing, so that there is
// nothing to verify: what they get are the origin's own files.
type directCrew struct{ *stage }

func (directCrew) start(context.Context, int) error    { return nil }
func (directCrew) connected(context.Context) error     { return nil }
func (directCrew) stored(int, blobFile) (string, bool) { return "", false }
func (directCrew) verify(context.Context, int) error   { return nil }
func (directCrew) process(int) *testhost.Process       { return nil }
func (c directCrew) pull(ctx context.Context, n int) error {
	return pull(ctx, rig.Client{Dial: c.nodes[n].DialContext, Base: c.upstream}, c.image)
}

// verifyFiles looks whether the files that a crew has stored are right.
func verifyFiles(c crew, img *image, node int) error {
	for _, b := range img.blobs {
		file, ok := c.stored(node, b)
		if !ok {
			continue
		}
		if err := b.check(file); err != nil {
			return err
		}
	}
	return nil
}

// shoalName is the contender whose targets are judged.
const shoalName = report.Shoal

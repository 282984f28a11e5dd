//go:build linux

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	"golang.org/x/sync/errgroup"
)

// patience is for a scenario: ten times what any of them takes.
const patience = 2 * time.Minute

// needed are the programs that the tests run, beside shoal.
var needed = []string{
	"docker-registry", "dockerd", "docker", "containerd", "ctr", "runc", "skopeo", "podman", "busybox", "squid", "nginx", "pass", "gpg",
	"ip", "tc", "nft", "nsenter", "unshare", "mount",
	"systemctl",
}

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "NOT RUN, as that needs root: all tests with dockerd, podman, skopeo and docker-registry (package cmd/shoal/e2e)")
		os.Exit(m.Run())
	}
	// Both here, where modules can be fetched, and in the isolated copy, for which
	// it is in Go's cache then.
	path, err := exec.Command("go", "tool", "-modfile=../../../.tools/go.mod", "-n", "conformance").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: build the suite of conformance:", err)
		os.Exit(1)
	}
	code, err := program.Isolated(context.Background(), needed, func(ctx context.Context, dir string) (code int, err error) {
		if theLab, err = newLab(ctx, dir); err != nil {
			return 1, err
		}
		theLab.conformance = strings.TrimSpace(string(path))
		defer theLab.network.Close()
		return m.Run(), nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// lab is what all scenarios share: an origin and machines with a dockerd each,
// which knows a mirror on its own loopback. Every scenario brings its own image
// and its own nodes, so that nothing is warm for it.
type lab struct {
	network  *testhost.Network
	origin   *program.Origin
	machines []*machine
	hosts    []*testhost.Host // the machines, and some without a dockerd
	shoal    string           // path of the program
	dir      string
	upstream string // of docker.io for nodes; empty is the origin

	conformance string // path of the suite of the OCI distribution specification
}

// machine is a host with a dockerd.
type machine struct {
	*testhost.Host
	docker *program.Dockerd
}

// The links of the lab.
const (
	originLink  = 200 * testhost.Mbit
	machineLink = testhost.Gbit
)

// theLab is there for as long as the tests run. Without root there is none.
var theLab *lab

// newLab makes the lab, with four machines and two hosts more, in dir.
func newLab(ctx context.Context, dir string) (*lab, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	network, err := testhost.NewNetwork(dir)
	if err != nil {
		return nil, err
	}
	l := &lab{network: network, dir: dir, shoal: program.Shoal(dir)}
	host, err := network.AddHost("origin", originLink)
	if err != nil {
		return nil, err
	}
	if l.origin, err = program.StartOrigin(ctx, host); err != nil {
		return nil, err
	}
	for i := range 6 {
		host, err := network.AddHost(fmt.Sprintf("m%d", i+1), machineLink)
		if err != nil {
			return nil, err
		}
		if l.hosts = append(l.hosts, host); i < 4 {
			l.machines = append(l.machines, &machine{Host: host})
		}
	}
	var group errgroup.Group
	for _, m := range l.machines {
		group.Go(func() (err error) {
			m.docker, err = program.StartDockerd(ctx, m.Host, program.MirrorURL, l.origin)
			return err
		})
	}
	return l, group.Wait()
}

// scenario returns the lab for one scenario, and the context in which it has
// to be over. If it fails, the logs of all that ran meanwhile are printed.
func scenario(t *testing.T) (context.Context, *lab) {
	t.Helper()
	if theLab == nil {
		t.Skip("LEFT OUT: needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	started := time.Now()
	t.Cleanup(func() {
		cancel()
		if !t.Failed() {
			return
		}
		var logs bytes.Buffer
		if err := theLab.network.DumpLogs(&logs, started); err != nil {
			t.Errorf("logs: %v", err)
		}
		t.Logf("logs of all processes:\n%s", &logs)
	})
	return ctx, theLab
}

// swarm starts nodes on the first count hosts, with a key of their own and
// nothing on disk, and waits until each is connected to all the others. They
// end with the test.
func (l *lab) swarm(ctx context.Context, t *testing.T, count int, args ...string) []*program.Node {
	t.Helper()
	nodes := make([]*program.Node, count)
	start := l.starter(ctx, t, append([]string{"--no-mdns"}, args...)...)
	check(t, start(&nodes[0], 0))
	var group errgroup.Group
	for i := 1; i < count; i++ {
		group.Go(func() error { return start(&nodes[i], i, nodes[0]) })
	}
	check(t, group.Wait())
	awaitConnected(ctx, t, nodes)
	return nodes
}

// starter returns a function that starts a node, with nothing on its disk, on
// the host of that number, to join others. Nodes that the same one started
// have one swarm key, and end with the test.
func (l *lab) starter(ctx context.Context, t *testing.T, args ...string) func(to **program.Node, number int, join ...*program.Node) error {
	t.Helper()
	name, key := strings.ReplaceAll(t.Name(), "/", "-"), l.newKey(ctx, t)
	return func(to **program.Node, number int, join ...*program.Node) (err error) {
		*to, err = program.StartNode(ctx, l.hosts[number], program.NodeConfig{
			Shoal: l.shoal, Name: "shoal-" + name, SwarmKey: key, Upstream: cmp.Or(l.upstream, l.origin.URL()), Join: join, Args: args,
		})
		if n := *to; n != nil {
			t.Cleanup(n.Kill)
		}
		return err
	}
}

// newKey writes a swarm key to a file, which it returns.
func (l *lab) newKey(ctx context.Context, t *testing.T) string {
	t.Helper()
	key := filepath.Join(l.dir, strings.ReplaceAll(t.Name(), "/", "-")+".key")
	text := must(l.machines[0].Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"swarm-key", "new"}}))(t)
	check(t, os.WriteFile(key, []byte(text), 0o600))
	return key
}

// awaitConnected waits until each of the nodes is connected to all the others.
func awaitConnected(ctx context.Context, t *testing.T, nodes []*program.Node) {
	t.Helper()
	for _, n := range nodes {
		check(t, testhost.Until(ctx, 15*time.Second, func(ctx context.Context) error {
			s, err := n.Status(ctx)
			if err == nil && s.Peers < len(nodes)-1 {
				err = fmt.Errorf("%s knows %d of %d other members", n.Host.Name, s.Peers, len(nodes)-1)
			}
			return err
		}))
	}
}

// push makes an image with layers of these sizes in MiB and pushes it to the
// origin.
func (l *lab) push(ctx context.Context, t *testing.T, seed byte, layersMiB ...int) *program.Image {
	t.Helper()
	for i := range layersMiB {
		layersMiB[i] <<= 20
	}
	return must(l.origin.Push(ctx, fmt.Sprintf("shoal/image%d", seed), seed, layersMiB...))(t)
}

// pull lets the machine's dockerd pull ref. It is an error if dockerd had to
// ask for anything twice: a client must not notice what happens in the swarm.
func (m *machine) pull(ctx context.Context, ref string) error {
	before, err := os.ReadFile(m.docker.Process.LogFile)
	if err != nil {
		return err
	}
	if err := m.pullInTries(ctx, ref); err != nil {
		return err
	}
	log, err := os.ReadFile(m.docker.Process.LogFile)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(log[len(before):]) {
		if bytes.Contains(line, []byte("Download failed, retrying")) {
			return fmt.Errorf("dockerd on %s pulled %s, but not at the first try: %s", m.Name, ref, line)
		}
	}
	return nil
}

// pullInTries is like pull, but dockerd may try more than once.
func (m *machine) pullInTries(ctx context.Context, ref string) error {
	_, err := m.docker.Docker(ctx, "pull", "--quiet", ref)
	return err
}

// checkImage fails the test unless the machine's dockerd holds the image, down
// to the last byte of its files, and can run it.
func (m *machine) checkImage(ctx context.Context, t *testing.T, ref string, img *program.Image) {
	t.Helper()
	t.Log("runtime: dockerd", m.docker.Version)
	const format = `{{.Id}} {{range .RepoDigests}}{{.}}{{end}}`
	inspected := must(m.docker.Docker(ctx, "image", "inspect", "--format", format, ref))(t)
	if want := img.Config.Digest.String() + " " + img.DigestRef(); strings.TrimSpace(inspected) != want {
		t.Errorf("image on %s is %s, want %s", m.Name, inspected, want)
	}
	args := []string{"run", "--rm", "--network", "none", ref, "/bin/busybox", "sha256sum"}
	for path := range img.Files {
		args = append(args, path)
	}
	sums := must(m.docker.Docker(ctx, args...))(t)
	for path, sum := range img.Files {
		if !strings.Contains(sums, sum+"  "+path+"\n") {
			t.Errorf("%s in a container on %s is altered: want %s in\n%s", path, m.Name, sum, sums)
		}
	}
}

// must returns what turns the results of a call into its value, or the end of
// the test.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return value
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

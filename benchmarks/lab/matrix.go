//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	"golang.org/x/sys/unix"
)

// matrixCommand is the first argument of the program when it compares pulls
// through a node with plain ones, whatever is wrong with its peers: matrix.yaml
// says what there is.
const matrixCommand = "matrix"

// matrixOptions are the flags of it.
type matrixOptions struct {
	cells []cell
	runs  int
	out   string
}

func parseMatrixOptions(args []string, stderr io.Writer) (*matrixOptions, error) {
	o := &matrixOptions{}
	flags := flag.NewFlagSet("lab "+matrixCommand, flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "measure only cells whose names match this regular expression, as ^frozen/ or /slow/one-blob$")
	flags.IntVar(&o.runs, "runs", 7, "interleaved pairs of each cell")
	flags.StringVar(&o.out, "out", filepath.Join("benchmarks", "results"), "folder for the results")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || o.runs < 1 {
		flags.Usage()
		return nil, errors.New("usage")
	}
	names, err := regexp.Compile(*only)
	if err == nil {
		o.cells, err = cells(names)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return o, err
}

// run measures in namespaces of its own. Cells that miss are no error.
func (o *matrixOptions) run(ctx context.Context) error {
	if os.Getuid() != 0 {
		return errors.New("needs root, for network namespaces")
	}
	if err := installed([]string{"nginx", "ip", "tc", "nsenter", "unshare", "mount"}); err != nil {
		return err
	}
	if os.Getenv(commitEnv) == "" {
		if err := os.Setenv(commitEnv, rig.Output(ctx, "git", "describe", "--always", "--dirty")); err != nil {
			return err
		}
	}
	code, err := program.Isolated(ctx, nil, func(ctx context.Context, dir string) (int, error) {
		return 0, o.measure(ctx, dir, os.Stdout)
	})
	if err == nil && code != 0 {
		err = errors.New("ended before everything was measured")
	}
	return err
}

// commitEnv tells the isolated copy of the program which tree it measures.
const commitEnv = "SHOAL_LAB_COMMIT"

// matrix is the network on which the cells are measured.
type matrix struct {
	*lab
	puller *testhost.Host
	far    map[string][]*testhost.Host // hosts of peers that are, by the peers' name
	say    io.Writer
	began  time.Time
	pairs  int // that are to be measured
	done   int
}

// measure measures all cells, and writes what there is after each.
func (o *matrixOptions) measure(ctx context.Context, dir string, say io.Writer) error {
	m := &matrix{lab: &lab{data: filepath.Join(dir, "lab"), shoal: program.Shoal(dir), say: io.Discard}, say: say}
	r := &matrixResults{Started: time.Now().UTC(), Commit: os.Getenv(commitEnv)}
	m.file = r.base(o.out) + ".json"
	most := 0
	for _, c := range o.cells {
		most = max(most, c.Count)
	}
	// The lab's first node pulls, the others are peers.
	m.commit, m.machines = r.Commit, most+1
	if err := errors.Join(os.MkdirAll(o.out, 0o755), m.build(ctx)); err != nil {
		return err
	}
	defer m.network.Close()
	m.puller, m.nodes = m.nodes[0], m.nodes[1:]
	r.Machine = m.results.Machine
	if err := m.addFarHosts(o.cells); err != nil {
		return err
	}
	m.began, m.pairs = time.Now(), o.runs*len(o.cells)
	for _, c := range o.cells {
		result := &cellResult{Name: c.name(), Peers: c.peers, Origin: c.origin.Name, Image: c.image.Name}
		r.Cells = append(r.Cells, result)
		if err := m.measureCell(ctx, c, o.runs, result); err != nil {
			result.Error = err.Error()
		}
		if ctx.Err() != nil {
			return ctx.Err() // what it was interrupted by is no result
		}
		m.tell(result)
		if err := r.save(o.out); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(r.base(o.out) + ".md")
	fmt.Fprintf(say, "\n%s\nwritten: %s.md, with all pairs in the .json beside it\n", text, r.base(o.out))
	return err
}

// addFarHosts adds the hosts of peers whose packets are delayed.
func (m *matrix) addFarHosts(cells []cell) error {
	m.far = map[string][]*testhost.Host{}
	for _, c := range cells {
		if c.Delay == 0 || m.far[c.Name] != nil {
			continue
		}
		for i := range c.Count {
			h, err := m.network.AddFarHost(fmt.Sprintf("%s%d", c.Name, i), 0, c.Delay, c.Loss)
			if err != nil {
				return err
			}
			m.far[c.Name] = append(m.far[c.Name], h)
		}
	}
	return nil
}

// hosts returns those of a cell's peers.
func (m *matrix) hosts(c cell) []*testhost.Host {
	if c.Delay > 0 {
		return m.far[c.Name]
	}
	return m.nodes[:c.Count]
}

// tell writes a line about a cell.
func (m *matrix) tell(r *cellResult) {
	gone := time.Since(m.began)
	left := gone / time.Duration(max(1, m.done)) * time.Duration(m.pairs-m.done)
	fmt.Fprintf(m.say, "%-26s %s (%v gone, about %v left)\n", r.Name, r.line(), gone.Round(time.Second), left.Round(time.Minute))
}

// measureCell measures the pairs of one cell.
func (m *matrix) measureCell(ctx context.Context, c cell, runs int, result *cellResult) (err error) {
	const setUp, pair = time.Minute, 90 * time.Second // what does not end by then hangs
	ctx, cancel := context.WithTimeout(ctx, setUp+time.Duration(runs)*pair)
	defer cancel()
	st := &stage{scenario: c.scenario(), dir: filepath.Join(m.data, "run"), shoal: m.shoal, key: m.key}
	if st.image, err = m.store.image(st.scenario); err != nil {
		return err
	}
	result.Bytes = st.image.bytes()
	defer func() {
		m.done += runs - len(result.Pairs)
		if err != nil {
			err = errors.Join(err, m.keepLogs(result.Name))
		}
		m.puller.KillAll()
		for _, h := range m.hosts(c) {
			h.KillAll()
		}
		if st.origin != nil {
			st.origin.abandon()
		}
		err = errors.Join(err, m.clean(st.dir))
	}()
	if st.origin, err = startOrigin(ctx, m.origin, filepath.Join(st.dir, "origin"), st.image, false); err != nil {
		return err
	}
	st.upstream = st.origin.url()
	p := &pairing{matrix: m, cell: c, stage: st}
	if err := p.seed(ctx); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	err = errors.Join(m.origin.Shape(testhost.Rate(c.origin.Link)), m.puller.Shape(testhost.Gbit))
	for round := 1; round <= runs && err == nil; round++ {
		var one pairResult
		if one, err = p.play(ctx, round); err == nil {
			result.Pairs = append(result.Pairs, one)
			m.done++
		}
	}
	return err
}

// pairing is what the pairs of a cell need.
type pairing struct {
	*matrix
	cell    cell
	stage   *stage
	members []*program.Node     // the peers
	running []*testhost.Process // of them
	rested  time.Time           // when the swarm will have rested
	direct  time.Duration       // what the last plain pull took
}

// seed gets the image onto the peers' disks, over links without limits.
func (p *pairing) seed(ctx context.Context) error {
	if err := p.origin.Shape(0); err != nil {
		return err
	}
	c := &shoalCrew{stage: p.stage}
	for i, host := range p.hosts(p.cell) {
		if err := host.Shape(0); err != nil {
			return err
		}
		n, err := program.NewNode(ctx, host, program.NodeConfig{
			Shoal: p.shoal, Name: "peer", SwarmKey: p.key, Upstream: p.stage.upstream, Join: c.members[:min(i, 1)], Args: []string{"--no-mdns"},
		})
		if err != nil {
			return err
		}
		c.members, c.nodes = append(c.members, n), append(c.nodes, host)
	}
	p.members = c.members
	r := &run{stage: p.stage, crew: c}
	for i, n := range c.members {
		if err := n.Start(ctx); err != nil {
			return err
		}
		if err := c.pull(ctx, i); err != nil {
			return err
		}
		if err := r.awaitStored(ctx, i); err != nil {
			return err
		}
	}
	for _, n := range c.members {
		if err := n.Stop(); err != nil {
			return err
		}
		if err := n.Host.Shape(testhost.Rate(p.cell.link())); err != nil {
			return err
		}
	}
	return nil
}

// play plays one pair: in odd rounds the plain pull comes first. The swarm runs
// all the time, and has rested before it is asked for anything.
func (p *pairing) play(ctx context.Context, round int) (result pairResult, err error) {
	if err := p.startPeers(ctx); err != nil {
		return result, err
	}
	n, err := program.NewNode(ctx, p.puller, program.NodeConfig{
		Shoal: p.shoal, Name: fmt.Sprintf("pull%d", round), SwarmKey: p.key, Upstream: p.stage.upstream, Join: p.members, Args: []string{"--no-mdns"},
	})
	if err != nil {
		return result, err
	}
	defer func() {
		for _, process := range p.running {
			process.Kill()
		}
		n.Kill()
		err = errors.Join(err, os.RemoveAll(n.DataDir))
	}()
	if err := p.join(ctx, n); err != nil {
		return result, err
	}
	pulls := []func() error{
		func() error { return p.plain(ctx, &result) },
		func() error { return p.through(ctx, n, &result) },
	}
	for _, pull := range rig.Turns(pulls, round) {
		if err := errors.Join(rig.Calm(ctx), rig.WarmMemory(ctx, p.stage.image.bytes()+128<<20)); err != nil {
			return result, err
		}
		if err := pull(); err != nil {
			return result, err
		}
	}
	return result, nil
}

// startPeers starts the peers as what they are.
func (p *pairing) startPeers(ctx context.Context) error {
	p.running = nil
	for _, peer := range p.members {
		var err error
		if p.cell.Lie != "" {
			peer.Process, err = startLiar(peer, p.key, p.cell.Lie)
		} else {
			err = peer.Start(ctx)
		}
		if peer.Process != nil {
			p.running = append(p.running, peer.Process)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// restTime is how long a swarm has nothing to do after all have met: what they
// hold is announced, and connections are warm, which are looked after every two
// seconds.
const restTime = 2500 * time.Millisecond

// join starts the node that pulls, and waits until it has met all peers.
func (p *pairing) join(ctx context.Context, n *program.Node) error {
	if err := n.Start(ctx); err != nil {
		return err
	}
	if err := testhost.Until(ctx, readyTime, func(ctx context.Context) error {
		s, err := n.Status(ctx)
		if err == nil && s.Peers < p.cell.Count {
			err = fmt.Errorf("the node is connected to %d of %d peers", s.Peers, p.cell.Count)
		}
		return err
	}); err != nil {
		return err
	}
	p.rested = time.Now().Add(restTime)
	return nil
}

// plain pulls from the origin.
func (p *pairing) plain(ctx context.Context, result *pairResult) error {
	began := time.Now()
	err := pull(ctx, rig.Client{Dial: p.puller.DialContext, Base: p.stage.upstream}, p.stage.image)
	p.direct = time.Since(began)
	result.Direct = p.direct.Seconds()
	return err
}

// through pulls through the node, while its peers are as bad as they are to be.
func (p *pairing) through(ctx context.Context, n *program.Node, result *pairResult) error {
	if err := rig.Sleep(ctx, time.Until(p.rested)); err != nil {
		return err
	}
	if p.cell.Frozen {
		for _, process := range p.running {
			if err := process.Signal(unix.SIGSTOP); err != nil {
				return err
			}
		}
	}
	meter, err := rig.StartMeter()
	if err != nil {
		return err
	}
	began := time.Now()
	if p.cell.Killed > 0 {
		death := time.AfterFunc(time.Duration(p.cell.Killed*float64(p.direct)), func() {
			for _, process := range p.running {
				process.Kill()
			}
		})
		defer death.Stop()
	}
	if err := pull(ctx, rig.Client{Dial: p.puller.DialContext, Base: program.MirrorURL}, p.stage.image); err != nil {
		return err
	}
	result.Through = time.Since(began).Seconds()
	result.Load = meter.Load()
	s, err := n.Status(ctx)
	if err != nil {
		return err
	}
	result.FromOrigin, result.FromPeers = s.Bytes.Origin, s.Bytes.Peers
	c := &shoalCrew{stage: p.stage, members: []*program.Node{n}}
	r := &run{stage: p.stage, crew: c}
	return errors.Join(r.awaitStored(ctx, 0), verifyFiles(c, p.stage.image, 0))
}

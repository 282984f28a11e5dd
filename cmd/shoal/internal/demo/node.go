package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/runfile"
)

const (
	// startPatience is for a node to listen and to find the others: some
	// tenths of a second, unless five of them start on a loaded machine.
	startPatience = 20 * time.Second
	// stopPatience is for a node to end by itself after SIGTERM.
	stopPatience = 10 * time.Second
	pollEvery    = 20 * time.Millisecond
	// logTail is how much of a node's log an error shows, in bytes.
	logTail = 600
)

// nodeOptions say how to start a node.
type nodeOptions struct {
	executable, name string
	dir              string // of the node's own; made
	key              string // swarm key file
	join             []string
	origin           string                  // base URL
	died             context.CancelCauseFunc // called when it ends before it is stopped
}

// node is a running "shoal serve".
type node struct {
	nodeOptions
	listen runfile.Listening // set by waitListening

	cmd      *exec.Cmd
	stopping chan struct{} // closed by stop
	ended    chan struct{} // closed when the process has been waited for
}

// startNode starts a process. The caller stops it.
func startNode(ctx context.Context, o nodeOptions) (*node, error) {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(o.dir, "log"))
	if err != nil {
		return nil, err
	}
	args := []string{
		"serve", "--data-dir", o.dir, "--mirror=127.0.0.1:0", "--admin=127.0.0.1:0", "--swarm=/ip4/127.0.0.1/tcp/0",
		"--swarm-key", o.key, "--no-mdns", "--registry=docker.io=" + o.origin,
	}
	for _, addr := range o.join {
		args = append(args, "--join="+addr)
	}
	// It outlives ctx: stopAll ends it, in its own way.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), o.executable, args...)
	n := &node{nodeOptions: o, cmd: cmd, stopping: make(chan struct{}), ended: make(chan struct{})}
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.Env = plainEnvironment(os.Environ())
	n.cmd.SysProcAttr = attributes()
	n.cmd.SysProcAttr.Setpgid = true // Ctrl-C is for the demo, which stops its nodes in order
	started := make(chan error)
	go n.run(log, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return n, nil
}

// plainEnvironment is environ without settings for shoal, which are meant for
// another node than those of the demo.
func plainEnvironment(environ []string) []string {
	var plain []string
	for _, entry := range environ {
		if !strings.HasPrefix(entry, "SHOAL_") {
			plain = append(plain, entry)
		}
	}
	return plain
}

// run starts the process, waits for it and tells if nobody asked it to end. It
// keeps its thread, because Pdeathsig comes when the parent's thread ends.
func (n *node) run(log io.Closer, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(n.ended)
	err := n.cmd.Start()
	_ = log.Close() // the process has its own
	started <- err
	if err != nil {
		return
	}
	// How it ended is in ProcessState.
	_ = n.cmd.Wait()
	select {
	case <-n.stopping:
	default:
		n.died(fmt.Errorf("%s ended early (%s): %s", n.name, n.cmd.ProcessState, n.lastWords()))
	}
}

// waitListening returns when the node has told where it listens.
func (n *node) waitListening(ctx context.Context) error {
	return n.wait(ctx, "listen", func(context.Context) (bool, error) {
		l, err := runfile.Read(n.dir)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		n.listen = l
		return err == nil && len(l.Addrs) > 0, err
	})
}

// waitJoined returns when the node is ready and connected to another.
func (n *node) waitJoined(ctx context.Context) error {
	return n.wait(ctx, "join the others", func(ctx context.Context) (bool, error) {
		_, s, err := admin.Fetch(ctx, n.listen.Admin)
		return err == nil && s.Ready && s.Peers > 0, nil
	})
}

// wait polls until cond holds.
func (n *node) wait(ctx context.Context, what string, cond func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if ok, err := cond(ctx); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not %s (%w): %s", n.name, what, ctx.Err(), n.lastWords())
		}
	}
}

// lastWords is the end of the node's log, for an error.
func (n *node) lastWords() string {
	text, err := os.ReadFile(filepath.Join(n.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-logTail):]))
}

// stopAll ends all nodes and returns when they have ended.
func stopAll(nodes []*node) error {
	for _, n := range nodes {
		close(n.stopping)
		// It may have ended by itself.
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
	}
	var errs []error
	patience := time.NewTimer(stopPatience)
	defer patience.Stop()
	for _, n := range nodes {
		select {
		case <-n.ended:
			continue
		case <-patience.C:
			patience.Reset(0) // nor will it wait for the rest
		}
		errs = append(errs, fmt.Errorf("%s did not end within %s and was killed", n.name, stopPatience), n.cmd.Process.Kill())
		<-n.ended
	}
	return errors.Join(errs...)
}

//go:build linux

package testhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Command is a program to run on a host.
type Command struct {
	// Path and Args of the program; Path is absolute.
	Path string
	Args []string
	// Env is added to the environment of the tests.
	Env []string
	// Binds are mounted over files of the machine, for this process and its
	// children only: what is seen (/etc/hosts) -> what is there.
	Binds map[string]string
}

// on returns the arguments of nsenter that run c in h. The programs that lead
// to it replace themselves, so its PID is that of the program. `ip netns exec`
// would not do: it mounts /sys anew, and dockerd then finds no cgroups.
func (c Command) on(h *Host) []string {
	args := []string{"--net=" + h.netns()}
	if len(c.Binds) > 0 {
		var script strings.Builder
		for seen, there := range c.Binds {
			fmt.Fprintf(&script, "mount --bind '%s' '%s' && ", there, seen)
		}
		script.WriteString(`exec "$@"`)
		args = append(args, "unshare", "--mount", "--propagation", "slave", "sh", "-c", script.String(), "sh")
	}
	return append(append(args, c.Path), c.Args...)
}

// Run runs c on the host to its end and returns its standard output. An error
// carries its standard error; errors.As finds the *exec.ExitError. When ctx
// ends first, it is killed.
func (h *Host) Run(ctx context.Context, c Command) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", c.on(h)...)
	cmd.Env = append(os.Environ(), c.Env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s on %s: %w: %s", filepath.Base(c.Path), h.Name, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Process is a long-running program on a host.
type Process struct {
	Name    string
	LogFile string // its standard output and error

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; valid once done is closed
}

// Start starts c on the host. name names the process in logs; a process of the
// same name, started earlier, has its log continued.
func (h *Host) Start(name string, c Command) (*Process, error) {
	p := &Process{Name: name, LogFile: filepath.Join(h.Dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()          // the process has its own descriptor
	p.cmd = exec.Command("nsenter", c.on(h)...) //nolint:noctx // it runs until it is told to end, or its host ends
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.processes = append(h.processes, p)
	return p, nil
}

// PID returns the process's ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal; one that has ended already is an error.
func (p *Process) Signal(s unix.Signal) error { return p.cmd.Process.Signal(s) }

// Ended is closed once the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.done }

// Kill ends the process as a power cut does, and waits for its end.
func (p *Process) Kill() {
	// It may have ended already, which is as good.
	_ = p.Signal(unix.SIGKILL)
	<-p.done
}

// Stop asks the process to end, waits up to patience, and returns how it
// ended: nil is exit code 0, else an *exec.ExitError. One that does not end is
// killed, which is an error too.
func (p *Process) Stop(patience time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		p.Kill()
		return fmt.Errorf("stop %s: did not end within %v of SIGTERM", p.Name, patience)
	}
}

// CPU returns the processor time that the process has used, in user and
// system mode together (proc(5), /proc/PID/stat).
func (p *Process) CPU() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses, which may hold blanks.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", p.PID(), stat)
	}
	var ticks int64
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", p.PID(), err)
		}
		ticks += n
	}
	const ticksPerSecond = 100 // USER_HZ, the same on every architecture that Go runs on
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// PeakMemory returns the most resident memory that the process ever had, in
// bytes (VmHWM).
func (p *Process) PeakMemory() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", p.PID())
}

// KillAll ends every process of the host, as a power cut does, and waits for
// their ends. Those that were started last end first: they lean on the others.
func (h *Host) KillAll() {
	h.mu.Lock()
	processes := h.processes
	h.processes = nil
	h.mu.Unlock()
	for _, p := range slices.Backward(processes) {
		p.Kill()
	}
}

// logTail is how much of the end of each log DumpLogs writes, in bytes.
const logTail = 16 << 10

// DumpLogs writes to w, for every process of every host that has logged since
// then, the end of its log.
func (n *Network) DumpLogs(w io.Writer, since time.Time) error {
	for _, h := range n.Hosts() {
		logs, err := filepath.Glob(filepath.Join(h.Dir, "*.log"))
		if err != nil {
			return err
		}
		for _, file := range logs {
			if info, err := os.Stat(file); err != nil || info.ModTime().Before(since) {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if len(text) > logTail {
				text = text[len(text)-logTail:]
			}
			if _, err := fmt.Fprintf(w, "--- %s on %s, last %d bytes\n%s\n", filepath.Base(file), h.Name, len(text), text); err != nil {
				return err
			}
		}
	}
	return nil
}

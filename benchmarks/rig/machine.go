//go:build linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"shoal/cmd/shoal/e2e/testhost"

	"golang.org/x/sys/unix"
)

// Describe describes the computer, and on what the data in a folder come to
// lie.
func Describe(ctx context.Context, data string) (Machine, error) {
	m := Machine{CPUs: runtime.NumCPU(), Kernel: Output(ctx, "uname", "-rm"), Go: runtime.Version()}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			m.Model = strings.TrimSpace(value)
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, err
	}
	m.Memory = int64(info.Totalram) * int64(info.Unit)
	const loadShift = 1 << 16 // SI_LOAD_SHIFT, sysinfo(2)
	m.Load = float64(info.Loads[0]) / loadShift
	if m.Data, err = fileSystem(data); err != nil {
		return m, err
	}
	m.WriteCPU, err = writeCPU(ctx, filepath.Join(data, "written"))
	return m, err
}

// writeCPU writes a file at the pace of a run, removes it, and returns the
// processor seconds per gigabyte that it took. A virtual machine may give free
// memory back to its host; then the first use of each page is charged to
// whoever writes, and that is in the figures of every contender that stores.
func writeCPU(ctx context.Context, file string) (float64, error) {
	const (
		blocks = 128
		block  = 1 << 20
		over   = 3 * time.Second
	)
	runtime.LockOSThread() // for its own processor time
	defer runtime.UnlockOSThread()
	f, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	defer os.Remove(file)
	defer f.Close()
	content := make([]byte, block)
	before := threadCPU()
	for range blocks {
		if err := Sleep(ctx, over/blocks); err != nil {
			return 0, err
		}
		if _, err := f.Write(content); err != nil {
			return 0, err
		}
	}
	return (threadCPU() - before).Seconds() / (blocks * block / 1e9), nil
}

// WarmMemory takes memory, touches all of it and gives it back. What was given
// back a moment ago is cheap to write on, as all memory is on a machine that
// keeps its own (see writeCPU): no contender should pay for the host.
func WarmMemory(ctx context.Context, bytes int64) error {
	const chunk = 256 << 20
	for ; bytes > 0 && ctx.Err() == nil; bytes -= chunk {
		taken, err := unix.Mmap(-1, 0, int(min(bytes, chunk)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE|unix.MAP_POPULATE)
		if err != nil {
			return fmt.Errorf("take memory: %w", err)
		}
		defer func() { _ = unix.Munmap(taken) }() // all at the end, or the same would be taken again
	}
	return ctx.Err()
}

// threadCPU returns the processor time of the calling thread so far.
func threadCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic(err) // its arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fileSystem names the type of the file system that holds dir.
func fileSystem(dir string) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return "", err
	}
	switch fs.Type {
	case unix.TMPFS_MAGIC:
		return "tmpfs", nil
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", nil
	case unix.XFS_SUPER_MAGIC:
		return "xfs", nil
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", nil
	}
	return fmt.Sprintf("file system %#x", fs.Type), nil
}

// Output returns what a program prints, or what went wrong with it.
func Output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// FirstLine returns the first line that a Debian program prints, or what went
// wrong.
func FirstLine(ctx context.Context, name string, args ...string) string {
	path, err := testhost.Program(name)
	if err != nil {
		return err.Error()
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// ticks is processor time in the unit of /proc (USER_HZ, 100 a second on every
// architecture that Go runs on).
type ticks int64

const ticksPerSecond = 100

// usage is what the processors have done since the machine started.
type usage struct {
	at          time.Time
	busy, steal ticks
	own         ticks // of it, the programs of the benchmark, living and waited for
}

// Meter measures what the machine is busy with.
type Meter struct{ before usage }

// StartMeter returns a meter that starts now.
func StartMeter() (Meter, error) {
	u, err := readUsage()
	return Meter{u}, err
}

// Load returns the load since the meter started. One that cannot be read is
// all zeros.
func (m Meter) Load() Load {
	now, err := readUsage()
	if err != nil {
		return Load{}
	}
	return loadBetween(m.before, now, runtime.NumCPU())
}

// loadBetween returns the load from one moment to another.
func loadBetween(before, now usage, cpus int) Load {
	all := now.at.Sub(before.at).Seconds() * float64(cpus) * ticksPerSecond
	if all <= 0 {
		return Load{CPUs: cpus}
	}
	share := func(t ticks) float64 { return max(0, float64(t)/all) }
	busy := now.busy - before.busy
	return Load{
		CPUs: cpus, Busy: share(busy), Steal: share(now.steal - before.steal), Others: share(busy - (now.own - before.own)),
	}
}

// readUsage reads the machine's counters and those of all processes in this
// PID namespace, which are the benchmark's.
func readUsage() (usage, error) {
	u := usage{at: time.Now()}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	if u.busy, u.steal, err = parseStat(string(stat)); err != nil {
		return u, err
	}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return u, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		used, err := parseProcess(string(text))
		if err != nil {
			return u, fmt.Errorf("%s: %w", file, err)
		}
		u.own += used
	}
	return u, nil
}

// parseStat reads the first line of /proc/stat: user, nice, system, idle,
// iowait, irq, softirq, steal (proc(5)).
func parseStat(stat string) (busy, steal ticks, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var counters [8]ticks
	for i := range counters {
		n, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		counters[i] = ticks(n)
	}
	return counters[0] + counters[1] + counters[2] + counters[5] + counters[6], counters[7], nil
}

// parseProcess reads the processor time of a process and of its children that
// it has waited for from its stat file.
func parseProcess(stat string) (ticks, error) {
	// The second field is the name in parentheses, which may hold anything.
	end := strings.LastIndex(stat, ") ")
	if end < 0 {
		return 0, errors.New("no name")
	}
	fields := strings.Fields(stat[end+2:])
	if len(fields) < 15 {
		return 0, fmt.Errorf("%d fields", len(fields))
	}
	var sum ticks
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += ticks(n)
	}
	return sum, nil
}

// Calm waits until the processors have little to do, at most calmTime, so that
// what one run leaves is no matter to the next.
func Calm(ctx context.Context) error {
	const (
		calmTime = 5 * time.Second
		glance   = 300 * time.Millisecond
		little   = 0.15
	)
	for end := time.Now().Add(calmTime); time.Now().Before(end); {
		m, err := StartMeter()
		if err != nil {
			return err
		}
		if err := Sleep(ctx, glance); err != nil {
			return err
		}
		if m.Load().Busy < little {
			return nil
		}
	}
	return nil
}

// Sleep waits for d or for the end of ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

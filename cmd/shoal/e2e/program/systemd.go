//go:build linux

package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"shoal/cmd/shoal/e2e/testhost"
)

// Systemd is the service manager of a host: a real one, as the first process
// of a PID namespace, with an /etc, /usr/local and /var/lib of its own. Its only
// units are those that it was given and the targets that they lean on, empty.
type Systemd struct {
	Host    *testhost.Host
	Process *testhost.Process

	dir     string
	first   string // its PID, seen from outside
	cgroups string // the folder of its cgroups
}

// bootScript starts systemd, in the folder $1, in the cgroup $2 of the mount $3.
// Only the second version of cgroups is there: the controllers of the first
// have no way to keep it to a part of them.
const bootScript = `
set -eu
mkdir -p "$3"
mount -t cgroup2 cgroup2 "$3"
mkdir -p "$2"
echo $$ >"$2/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup --mount-proc sh -euc '
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock
for dir in etc usr/local var/lib; do mount --bind "$1/$dir" "/$dir"; done
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# What systemd mounts for a service it mounts elsewhere first.
mount --make-rshared /
export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system
exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=no
' sh "$1"
`

// StartSystemd starts a systemd on h with files (path on the host -> file that
// is copied there, with its mode), and waits until it takes commands.
func StartSystemd(ctx context.Context, h *testhost.Host, files map[string]string) (*Systemd, error) {
	dir := filepath.Join(h.Dir, "systemd")
	mount := filepath.Join(dir, "cgroup")
	s := &Systemd{Host: h, dir: dir, cgroups: filepath.Join(mount, "shoal-e2e-"+h.Name)}
	if err := s.lay(ctx, files); err != nil {
		return nil, fmt.Errorf("systemd on %s: %w", h.Name, err)
	}
	var err error
	if s.Process, err = h.Start("systemd", testhost.Command{Path: "/bin/sh", Args: []string{"-c", bootScript, "sh", s.dir, s.cgroups, mount}}); err != nil {
		return nil, err
	}
	return s, testhost.Until(ctx, 30*time.Second, func(ctx context.Context) error {
		select {
		case <-s.Process.Ended():
			return fmt.Errorf("systemd on %s ended by itself: %w", h.Name, testhost.ErrGone)
		default:
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.Process.PID()))
		if err != nil {
			return err
		}
		s.first = strings.TrimSpace(string(children))
		_, err = s.Ctl(ctx, "is-active", "basic.target")
		return err
	})
}

// lay makes the folders that are mounted over the machine's.
func (s *Systemd) lay(ctx context.Context, files map[string]string) error {
	for _, dir := range []string{"usr/local", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			return err
		}
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", "/etc", s.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("copy /etc: %w: %s", err, out)
	}
	units := s.Path("/etc/systemd/system")
	if err := errors.Join(os.RemoveAll(units), os.MkdirAll(units, 0o755)); err != nil {
		return err
	}
	for _, target := range []string{"sysinit", "basic", "shutdown", "network-online"} {
		unit := filepath.Join(units, target+".target")
		if err := os.WriteFile(unit, []byte("[Unit]\nDefaultDependencies=no\n"), 0o644); err != nil {
			return err
		}
	}
	for at, file := range files {
		if err := os.MkdirAll(filepath.Dir(s.Path(at)), 0o755); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, "cp", "-p", file, s.Path(at)).CombinedOutput(); err != nil {
			return fmt.Errorf("copy %s: %w: %s", file, err, out)
		}
	}
	return nil
}

// Path returns where a file below /etc, /usr/local or /var/lib of systemd lies.
func (s *Systemd) Path(seen string) string { return filepath.Join(s.dir, seen) }

// Inside runs a program among the services and returns its output.
func (s *Systemd) Inside(ctx context.Context, path string, args ...string) (string, error) {
	return s.Host.Run(ctx, testhost.Command{
		Path: "/usr/bin/nsenter",
		Args: append([]string{"--target", s.first, "--mount", "--pid", path}, args...),
	})
}

// Ctl runs systemctl and returns its output.
func (s *Systemd) Ctl(ctx context.Context, args ...string) (string, error) {
	return s.Inside(ctx, "/usr/bin/systemctl", args...)
}

// Show returns a property of a unit.
func (s *Systemd) Show(ctx context.Context, unit, property string) (string, error) {
	out, err := s.Ctl(ctx, "show", "--value", "--property", property, unit)
	return strings.TrimSpace(out), err
}

// Kill ends systemd and all of its services, and removes their cgroups.
func (s *Systemd) Kill(ctx context.Context) error {
	s.Process.Kill()
	return testhost.Until(ctx, 10*time.Second, func(context.Context) error {
		var dirs []string
		err := filepath.WalkDir(s.cgroups, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		for _, dir := range slices.Backward(dirs) {
			err = errors.Join(err, os.Remove(dir)) // busy while processes end
		}
		return err
	})
}

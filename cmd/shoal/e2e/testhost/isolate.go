//go:build linux

// Package testhost makes hosts for tests that run real programs: each host is
// a network namespace with an address, a link of a set rate to the one bridge
// that joins them all, and processes of its own. Nothing outside can be
// reached from a host, and no host shows up outside.
//
// It is not a container runtime: hosts share the file system and the process
// table, and tests keep what they write in folders of their own.
//
// What always holds: a program that uses hosts first runs itself again in
// fresh PID, network and mount namespaces (Isolate), of which it is the first
// process. When it ends, however it ends (return, panic, time out, kill -9),
// the kernel ends every process in there and takes down every interface,
// mount and namespace. So nothing needs to be cleaned up for the machine's
// sake, and nothing is left over for the next run.
//
// The goroutines that wait for processes end with those processes; Close ends
// them all.
package testhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// isolatedEnv marks the copy of the program that runs inside.
const isolatedEnv = "TESTHOST_ISOLATED"

// Isolate makes sure that the program runs isolated, as a Network needs it.
// Outside it runs the program again, isolated, with the same arguments and
// with env added to the environment, waits for its end, and returns
// inside = false and its exit code: the caller exits with that. In the copy it
// prepares the file system and returns inside = true. It must be called from
// the main goroutine and needs root. When ctx ends, the copy is killed.
func Isolate(ctx context.Context, env ...string) (inside bool, exitCode int, err error) {
	if os.Getenv(isolatedEnv) != "" {
		if err := os.Unsetenv(isolatedEnv); err != nil {
			return false, 0, err
		}
		return true, 0, prepareMounts()
	}
	exe, err := os.Executable()
	if err != nil {
		return false, 0, fmt.Errorf("own program: %w", err)
	}
	// The copy is killed when the thread that started it ends. The main
	// thread ends with the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, exe, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(append(os.Environ(), env...), isolatedEnv+"=1")
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
	}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		// A signal has no exit code of its own; it is a failure all the same.
		return false, max(1, exit.ExitCode()), nil
	}
	return false, 0, err
}

// prepareMounts gives the isolated program a /proc that shows its own PID
// namespace, and its own empty /run and /etc/docker, where the container
// programs keep sockets, locks and keys whatever they are told.
func prepareMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/etc/docker"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
}

// Program returns the path of the program name as Debian installs it. The
// folders of packages come before the PATH, so that another program of the
// same name in /usr/local is not taken for the one that was installed.
func Program(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"} {
		if info, err := os.Stat(dir + name); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return dir + name, nil
		}
	}
	return exec.LookPath(name)
}

//go:build linux

package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"shoal/cmd/shoal/e2e/testhost"
)

// dirEnv tells the isolated copy which folder is its own.
const dirEnv = "TESTHOST_DIR"

// Isolated runs run in namespaces of its own (testhost.Isolate) and returns
// the exit code for the calling program. run gets a folder, in which shoal lies
// ready as Shoal says, and which is removed afterwards: from outside, so also
// when run is killed. Programs of needed that are not installed are an error.
func Isolated(ctx context.Context, needed []string, run func(ctx context.Context, dir string) (exitCode int, err error)) (exitCode int, err error) {
	if dir := os.Getenv(dirEnv); dir != "" {
		if _, _, err := testhost.Isolate(ctx); err != nil {
			return 1, err
		}
		return run(ctx, dir)
	}
	var missing []string
	for _, name := range needed {
		if _, err := testhost.Program(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return 1, fmt.Errorf("not installed: %s; run .ci/install-deps", strings.Join(missing, " "))
	}
	dir, err := os.MkdirTemp("", "shoal-e2e-") // short: the path of a Unix socket has at most 107 bytes
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Built outside: modules may have to be fetched first.
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", Shoal(dir), "shoal/cmd/shoal")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build shoal: %w\n%s", err, out)
	}
	_, exitCode, err = testhost.Isolate(ctx, dirEnv+"="+dir)
	return exitCode, err
}

// Shoal returns the path of the program in the folder that Isolated gives.
func Shoal(dir string) string { return filepath.Join(dir, "shoal") }

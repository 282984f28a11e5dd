package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{}

// Help shows examples.
func (versionCmd) Help() string {
	return `    $ shoal version
    shoal v0.1.0 go1.26.8 linux/amd64`
}

// Run prints one line: name, version, toolchain, platform.
func (versionCmd) Run(env environment) error {
	_, err := fmt.Fprintf(env.stdout, "shoal %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// version is what the toolchain stamped into the binary: a tag, or a
// pseudo-version with the commit, "+dirty" if the tree had changes.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

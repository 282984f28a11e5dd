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
    shoal v0.1.0 go1.26.8 linux/amd64 commit 0123456789ab libp2p v0.51.0`
}

// Run prints one line: name, version, toolchain, platform, commit, and the
// version of the library that speaks to other members.
func (versionCmd) Run(env environment) error {
	_, err := fmt.Fprintf(env.stdout, "shoal %s %s %s/%s commit %s libp2p %s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH,
		stamped("vcs.revision"), dependency("github.com/libp2p/go-libp2p"))
	return err
}

// unstamped stands for what the toolchain did not know.
const unstamped = "unknown"

// stamped returns the first twelve characters of a setting that the toolchain
// stamped into the binary.
func stamped(name string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == name {
				return s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return unstamped
}

// dependency returns the version of a module that the binary is made of.
func dependency(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return unstamped
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

package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

const (
	// memoryLimit is where the Go runtime starts to collect harder, in bytes. A
	// node that fills 4 GB peaks at 46 MB resident (measured), so that this is
	// for bad days: the heap may otherwise double before it is collected, and
	// 200 MB resident are promised, program text and all. Whoever has thousands
	// of members on one node sets GOMEMLIMIT.
	memoryLimit = 160 << 20
	// gcPercent lets the heap grow to three times what is in use, which is some
	// 10 MiB, before it is collected: of the processor time of small requests
	// the collector takes 4 % instead of 7. An operator's GOGC counts more.
	gcPercent = 200

	// A mirror is a guest on its machine: the default budget is a share of the
	// disk, up to what holds the images of a busy host.
	diskShare       = 4 // one in so many bytes
	maxDefaultCache = 50 << 30
)

// limitMemory sets the soft limit of the runtime, and how often it collects,
// unless the operator did.
func limitMemory(lookup func(string) (string, bool)) {
	if _, set := lookup("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
	if _, set := lookup("GOMEMLIMIT"); !set {
		debug.SetMemoryLimit(memoryLimit)
	}
}

// defaultCacheSize returns the budget in bytes for a cache in dir, which
// exists.
func defaultCacheSize(dir string) (int64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return 0, fmt.Errorf("size of the disk of %s: %w", dir, err)
	}
	return min(maxDefaultCache, int64(disk.Blocks)*int64(disk.Bsize)/diskShare), nil //nolint:unconvert // is an uint32 on macOS
}

// readableByOthers reports whether everybody on the machine may read the secret file.
func readableByOthers(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o007 != 0
}

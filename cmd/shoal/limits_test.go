package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

func TestMemoryLimitIsTheOperators(t *testing.T) {
	before, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetMemoryLimit(before); debug.SetGCPercent(percent) })
	limitMemory(func(name string) (string, bool) { return "", name == "GOMEMLIMIT" || name == "GOGC" })
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("GOGC is %d, the operator's is 100", got)
	}
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("GOMEMLIMIT was overruled: %d, want %d", got, before)
	}
	limitMemory(func(string) (string, bool) { return "", false })
	if got := debug.SetGCPercent(100); got != gcPercent {
		t.Errorf("GOGC is %d, want %d", got, gcPercent)
	}
	if got := debug.SetMemoryLimit(-1); got != memoryLimit {
		t.Errorf("limit %d, want %d", got, memoryLimit)
	}
}

func TestDefaultCacheSizeIsAShareOfTheDisk(t *testing.T) {
	n, err := defaultCacheSize(t.TempDir())
	if err != nil || n <= 0 || n > maxDefaultCache {
		t.Errorf("size %d, %v", n, err)
	}
	if _, err := defaultCacheSize("/nowhere"); err == nil {
		t.Error("no error for a missing directory")
	}
}

func TestReadableByOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o604: true} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got := readableByOthers(path); got != want {
			t.Errorf("%o: %v, want %v", mode, got, want)
		}
	}
}

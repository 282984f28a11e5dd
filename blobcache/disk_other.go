//go:build !linux

package blobcache

import "os"

func syncData(f *os.File) error { return f.Sync() }

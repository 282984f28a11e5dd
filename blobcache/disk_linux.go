package blobcache

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// uncache has the next read of f come from the disk, where bits rot, and not from
// memory. What is written but not on disk yet stays.
func uncache(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errAdvise error
	err = conn.Control(func(fd uintptr) { errAdvise = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) })
	return errors.Join(err, errAdvise)
}

func syncData(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errSync error
	err = conn.Control(func(fd uintptr) {
		for {
			if errSync = unix.Fdatasync(int(fd)); !errors.Is(errSync, unix.EINTR) {
				return
			}
		}
	})
	if err = errors.Join(err, errSync); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

// writeOut has the kernel begin to write a part of f out, and does not wait for it.
// What fails then fails again in sync.
func writeOut(f *os.File, off, n int64) {
	if conn, err := f.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.SyncFileRange(int(fd), off, n, unix.SYNC_FILE_RANGE_WRITE) })
	}
}

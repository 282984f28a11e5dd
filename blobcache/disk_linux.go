package blobcache

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

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

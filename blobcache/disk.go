package blobcache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"shoal/blobcache/internal/meta"
)

// disk are the system calls whose order or failure decides over crash safety.
// Tests put a recorder or a fault in their place.
type disk struct {
	writeAt  func(f *os.File, p []byte, off int64) (int, error)
	syncData func(f *os.File) error // contents, and the length if it changed
	sync     func(f *os.File) error
	rename   func(from, to string) error
	syncDir  func(path string) error
	free     func(path string) (int64, error) // bytes that may still be written
}

func realDisk() disk {
	return disk{
		writeAt:  func(f *os.File, p []byte, off int64) (int, error) { return f.WriteAt(p, off) },
		syncData: syncData,
		sync:     (*os.File).Sync,
		rename:   os.Rename,
		syncDir:  syncDir,
		free:     freeBytes,
	}
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func freeBytes(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // is an uint32 on macOS
}

// noSpace tells whether err means that the disk has no room.
func noSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// stampOf returns the stamp of an open file.
func stampOf(f *os.File) (meta.Stamp, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return meta.Stamp{}, err
	}
	var st unix.Stat_t
	var errStat error
	if err := conn.Control(func(fd uintptr) { errStat = unix.Fstat(int(fd), &st) }); err != nil {
		return meta.Stamp{}, err
	}
	if errStat != nil {
		return meta.Stamp{}, &fs.PathError{Op: "fstat", Path: f.Name(), Err: errStat}
	}
	return stampFrom(&st), nil
}

func stampFrom(st *unix.Stat_t) meta.Stamp {
	return meta.Stamp{Size: st.Size, Inode: st.Ino, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}
}

// Package runfile is the note that a running node leaves in its data
// directory: where it really listens, which nobody else knows when a port was
// given as 0. It is a hint, not a lock: a killed node leaves it behind. It
// starts no goroutines.
package runfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// name of the file in the data directory.
const name = "listen.json"

// version of the format. Readers accept newer ones, which only add fields.
const version = 1

// Listening says where a node listens.
type Listening struct {
	Version int      `json:"version"`
	PID     int      `json:"pid"`
	ID      string   `json:"id"`
	Mirror  string   `json:"mirror"` // HOST:PORT
	Admin   string   `json:"admin"`  // HOST:PORT
	Addrs   []string `json:"addrs"`  // multiaddrs with the peer ID, for --join
}

// Write puts l into the data directory dir, as a whole: a reader never sees a
// part.
func Write(dir string, l Listening) error {
	l.Version = version
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("runfile: %w", err)
	}
	temp := filepath.Join(dir, name+".new")
	if err := os.WriteFile(temp, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("runfile: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("runfile: %w", err)
	}
	return nil
}

// Read returns what is in dir. Without a file the error is fs.ErrNotExist.
func Read(dir string) (Listening, error) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return Listening{}, fmt.Errorf("runfile: %w", err)
	}
	var l Listening
	if err := json.Unmarshal(text, &l); err != nil {
		return Listening{}, fmt.Errorf("runfile: %s: %w", name, err)
	}
	return l, nil
}

// Remove deletes the file; it is no error if there is none.
func Remove(dir string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("runfile: %w", err)
	}
	return nil
}

package seeder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// lookedVersion is that of the file. Newer ones only add fields.
const lookedVersion = 1

// looked is when selections with a schedule were looked at last, on disk, so that
// a look is made up for that was missed while the node was down.
type looked struct {
	path string // "": it is forgotten

	mu sync.Mutex
	at map[string]time.Time // by selection
}

type lookedFile struct {
	Version int                  `json:"version"`
	Looked  map[string]time.Time `json:"looked"`
}

// openLooked reads the file at path; one that is not there is empty. With an error
// it is usable, and empty.
func openLooked(path string) (*looked, error) {
	l := &looked{path: path, at: map[string]time.Time{}}
	if path == "" {
		return l, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	var file lookedFile
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		return l, fmt.Errorf("when selections were looked at: %w", err)
	}
	for name, at := range file.Looked {
		l.at[name] = at
	}
	return l, nil
}

// last returns when a selection was looked at last, but no time to come, which a
// clock may have said.
func (l *looked) last(name string, now time.Time) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.at[name]
	return at, ok && !at.After(now)
}

// note writes down that a selection was looked at. Others than those of selections
// are forgotten.
func (l *looked) note(name string, at time.Time, selections []Selection) error {
	if l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at[name] = at
	file := lookedFile{Version: lookedVersion, Looked: map[string]time.Time{}}
	for _, s := range selections {
		if at, ok := l.at[s.Name]; ok {
			file.Looked[s.Name] = at
		}
	}
	l.at = file.Looked
	text, err := json.Marshal(file)
	if err == nil {
		err = replace(l.path, text)
	}
	if err != nil {
		return fmt.Errorf("when selections were looked at: %w", err)
	}
	return nil
}

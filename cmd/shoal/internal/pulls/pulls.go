// Package pulls keeps the reports of the last pulls in the data directory, and
// counts them. Each is a file of its own in DIR/pulls, written beside its place
// and moved there, so that a crash leaves it whole or not there; a file that
// cannot be read is dropped with a warning. In memory are only the summaries.
//
// It starts no goroutines. The methods may be called from any goroutine.
package pulls

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/proxy/pull"
)

const (
	// Kept is how many reports are kept.
	Kept = 100
	// maxSize bounds the file of a report, in bytes: ten times what one of sixty
	// layers has. Of a larger one the rows are left out.
	maxSize = 1 << 20
	folder  = "pulls"
	ending  = ".json"
)

// ErrNotFound means that there is no report of that number, or no more.
var ErrNotFound = errors.New("no such pull")

// Store is the reports of a node.
type Store struct {
	dir     string
	log     *slog.Logger
	metrics metrics

	mu   sync.Mutex
	kept []pull.Summary // in the order of their IDs
	last int            // ID
}

// Open reads what there is in the data directory dir, and drops what it cannot.
func Open(dir string, log *slog.Logger, r prometheus.Registerer) (*Store, error) {
	s := &Store{dir: filepath.Join(dir, folder), log: log, metrics: newMetrics(r)}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("reports of pulls: %w", err)
	}
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("reports of pulls: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(s.dir, f.Name())
		id, err := strconv.Atoi(strings.TrimSuffix(f.Name(), ending))
		if err != nil || f.Name() != s.name(id) {
			_ = os.Remove(path) // left by a crash
			continue
		}
		s.last = max(s.last, id)
		report, err := s.read(id)
		if err != nil {
			log.Warn("report of a pull cannot be read: dropped", "file", path, "error", err)
			_ = os.Remove(path)
			continue
		}
		s.kept = append(s.kept, report.Summary)
	}
	slices.SortFunc(s.kept, func(a, b pull.Summary) int { return a.ID - b.ID })
	s.trim()
	return s, nil
}

func (s *Store) name(id int) string { return strconv.Itoa(id) + ending }

// read returns the report of a file. Its error is one line.
func (s *Store) read(id int) (pull.Report, error) {
	var r pull.Report
	f, err := os.Open(filepath.Join(s.dir, s.name(id)))
	if err != nil {
		return r, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	switch {
	case err != nil:
		return r, err
	case len(text) > maxSize:
		return r, fmt.Errorf("larger than %d bytes", maxSize)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	if r.Version != pull.Version || r.ID != id || len(r.Waits) == 0 {
		return r, fmt.Errorf("version %d of number %d", r.Version, r.ID)
	}
	return r, nil
}

// Add gives a report its number, keeps it, counts it and says what it says.
func (s *Store) Add(r pull.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	r.ID = s.last
	s.metrics.count(r.Summary)
	s.say(r.Summary)
	if err := s.write(r); err != nil {
		s.log.Error("report of a pull is lost", "id", r.ID, "error", err)
		return
	}
	s.kept = append(s.kept, r.Summary)
	s.trim()
}

// write puts the report into its file, as a whole.
func (s *Store) write(r pull.Report) (err error) {
	text, err := json.Marshal(r)
	if err == nil && len(text) > maxSize {
		r.Rows, r.Flow = []pull.Row{}, pull.Flow{}
		text, err = json.Marshal(r)
	}
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(s.dir, "new-") // for the node's user alone: it names private images
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	_, err = temp.Write(text)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), filepath.Join(s.dir, s.name(r.ID)))
}

// trim drops the oldest. mu is held, or nobody else has the store.
func (s *Store) trim() {
	for len(s.kept) > Kept {
		if err := os.Remove(filepath.Join(s.dir, s.name(s.kept[0].ID))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("old report of a pull stays", "id", s.kept[0].ID, "error", err)
		}
		s.kept = s.kept[1:]
	}
}

// say writes the line of log of a pull.
func (s *Store) say(p pull.Summary) {
	s.log.Info("pull", "id", p.ID, "image", p.Image, "platform", p.Platform, "client", p.Client, "result", string(p.Result),
		"seconds", p.Seconds, "bytes", p.Bytes, "from_origin", p.FromOrigin, "from_peers", p.FromPeers, "from_cache", p.FromCache,
		"ratio", p.Ratio, "bottleneck", string(p.Bottleneck), "why", p.Why)
}

// List returns the reports that are kept, the last one first.
func (s *Store) List() []pull.Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.kept)
	slices.Reverse(list)
	if list == nil {
		list = []pull.Summary{}
	}
	return list
}

// Get returns a report. Error: ErrNotFound among others.
func (s *Store) Get(id int) (pull.Report, error) {
	s.mu.Lock()
	known := slices.ContainsFunc(s.kept, func(p pull.Summary) bool { return p.ID == id })
	s.mu.Unlock()
	if !known {
		return pull.Report{}, fmt.Errorf("%w: %d", ErrNotFound, id)
	}
	r, err := s.read(id)
	if err != nil {
		err = fmt.Errorf("report of pull %d: %w", id, err)
	}
	return r, err
}

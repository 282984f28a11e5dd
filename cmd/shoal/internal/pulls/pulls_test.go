package pulls

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"shoal/proxy/pull"
)

// open opens the store of dir, and returns what it logs, too.
func open(t *testing.T, dir string) (*Store, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	s, err := Open(dir, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s, &log
}

func report(image string) pull.Report {
	return pull.Report{
		Summary: pull.Summary{
			Version: pull.Version, Image: image, Client: "10.0.0.1 docker/28", Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 2,
			Result: pull.OK, Bytes: 7, FromOrigin: 7, Bound: 1, Ratio: 2, Bottleneck: pull.Registry, Why: "because",
		},
		Waits: []pull.Wait{{For: pull.Registry, Seconds: 2}}, Rows: []pull.Row{{Kind: pull.KindLayer, Result: pull.OK}},
		Sources: []pull.Source{}, Zones: []pull.Zone{},
	}
}

func images(list []pull.Summary) (all []string) {
	for _, p := range list {
		all = append(all, p.Image)
	}
	return all
}

// Reports outlive the process, in order, under numbers that are not given again.
func TestReportsAreKept(t *testing.T) {
	dir := t.TempDir()
	s, log := open(t, dir)
	if list := s.List(); list == nil || len(list) > 0 {
		t.Errorf("in the beginning there is %v", list)
	}
	s.Add(report("a"))
	s.Add(report("b"))
	if text := log.String(); !strings.Contains(text, "msg=pull id=2 image=b") || !strings.Contains(text, "bottleneck=origin why=because") {
		t.Errorf("log: %s", text)
	}
	info, err := os.Stat(filepath.Join(dir, "pulls", "1.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("all can read the file: %v, %v", info.Mode(), err)
	}
	s, log = open(t, dir)
	s.Add(report("c"))
	if got := images(s.List()); !reflect.DeepEqual(got, []string{"c", "b", "a"}) || strings.Contains(log.String(), "WARN") {
		t.Errorf("after a restart: %v; log: %s", got, log)
	}
	want := report("b")
	want.ID = 2
	if got, err := s.Get(2); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := s.Get(4); !errors.Is(err, ErrNotFound) {
		t.Errorf("what there is not: %v", err)
	}
}

// There are never more than so many files.
func TestReportsAreBounded(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	for range Kept + 3 {
		s.Add(report("a"))
	}
	check := func(s *Store) {
		t.Helper()
		files, err := os.ReadDir(filepath.Join(dir, "pulls"))
		if list := s.List(); err != nil || len(files) != Kept || len(list) != Kept || list[0].ID != Kept+3 || list[Kept-1].ID != 4 {
			t.Errorf("%d files, %d reports, %v", len(files), len(list), err)
		}
	}
	check(s)
	s, _ = open(t, dir)
	check(s)

	large := report("large")
	for range 20000 {
		large.Rows = append(large.Rows, pull.Row{Error: strings.Repeat("x", 50)})
	}
	s.Add(large)
	got, err := s.Get(Kept + 4)
	if err != nil || got.Image != "large" || len(got.Rows) > 0 {
		t.Errorf("%d rows of a report that is too large, %v", len(got.Rows), err)
	}
}

// A file that is no report is dropped, and said so; the others stay.
func TestBrokenReports(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `{"version":1,"id":2,"im`, "no JSON": "\x00\x01", "of a later version": `{"version":99,"id":2,"waits":[{"for":"disk"}]}`,
		"of another number": `{"version":1,"id":3,"waits":[{"for":"disk"}]}`, "of nothing": `{"version":1,"id":2}`, "too large": `{"version":1,"id":2,"waits":[{"for":"disk"}]}` + strings.Repeat(" ", maxSize),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := open(t, dir)
			s.Add(report("a"))
			broken, left := filepath.Join(dir, "pulls", "2.json"), filepath.Join(dir, "pulls", "new-123")
			for _, path := range []string{broken, left} {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, log := open(t, dir)
			if got := images(s.List()); !reflect.DeepEqual(got, []string{"a"}) {
				t.Errorf("%v", got)
			}
			if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "2.json") || strings.Count(log.String(), "\n") != 1 {
				t.Errorf("log: %s", log)
			}
			for _, path := range []string{broken, left} {
				if _, err := os.Stat(path); err == nil {
					t.Errorf("%s is still there", path)
				}
			}
			s.Add(report("b"))
			if got := s.List(); got[0].ID != 3 {
				t.Errorf("the next one is %d", got[0].ID)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	s, _ := open(t, t.TempDir())
	s.Add(report("a"))
	failed := report("b")
	failed.Result = pull.Failed
	s.Add(failed)
	cached := report("c")
	cached.FromOrigin, cached.FromCache, cached.Bottleneck = 0, 7, pull.Client
	s.Add(cached)
	for _, tt := range []struct {
		result pull.Result
		want   float64
	}{{pull.OK, 2}, {pull.Failed, 1}, {pull.Aborted, 0}} {
		if got := testutil.ToFloat64(s.metrics.ended.WithLabelValues(string(tt.result))); got != tt.want {
			t.Errorf("%s: %v", tt.result, got)
		}
	}
	if d, r := testutil.CollectAndCount(s.metrics.duration), testutil.CollectAndCount(s.metrics.ratio); d != 2 || r != 1 {
		t.Errorf("durations of %d causes, ratios of %d", d, r)
	}
}

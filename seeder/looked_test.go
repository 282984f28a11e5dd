package seeder

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMissedLook: a look that a schedule had while the node was down is made up for
// at the start; none is if nothing was missed, if nobody knows, or if the file is
// broken.
func TestMissedLook(t *testing.T) {
	c := Config{Selections: []Selection{{Name: "team", Images: []string{"r.io/team/app:v1.0.0"}, Schedule: "30 2 * * *"}}}
	file := filepath.Join(t.TempDir(), "looked.json")
	looks := func(t *testing.T, s *Seeder) int { t.Helper(); return len(s.Report().Selections[0].Runs) }
	var at time.Time // of the bubbles, which all begin at midnight
	seed(t, Options{Looked: file}, c, func(t *testing.T, _ *world, s *Seeder) {
		t.Helper()
		if looks(t, s) != 0 {
			t.Error("nothing was missed, and it looked")
		}
		at = time.Now()
		pass(3 * time.Hour)
		if looks(t, s) != 1 {
			t.Error("it did not look in time")
		}
	})
	for _, tt := range []struct {
		name   string
		looked time.Duration // from the start
		want   int
	}{{"from a clock that was wrong", 240 * time.Hour, 0}, {"yesterday", -21 * time.Hour, 0}, {"the day before", -22 * time.Hour, 1}, {"a month ago", -30 * 24 * time.Hour, 1}} {
		l, err := openLooked(file)
		if err == nil {
			err = l.note("team", at.Add(tt.looked), c.Selections)
		}
		if err != nil {
			t.Fatal(err)
		}
		seed(t, Options{Looked: file}, c, func(t *testing.T, _ *world, s *Seeder) {
			t.Helper()
			if looks(t, s) != tt.want {
				t.Errorf("%s: %d looks at the start, want %d", tt.name, looks(t, s), tt.want)
			}
			if s.Report().Selections[0].Next.Sub(at) != 150*time.Minute {
				t.Errorf("%s: next at %v", tt.name, s.Report().Selections[0].Next)
			}
		})
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	seed(t, Options{Looked: file}, c, func(t *testing.T, _ *world, s *Seeder) {
		t.Helper()
		pass(3 * time.Hour)
		if l, err := openLooked(file); err != nil || looks(t, s) != 1 || len(l.at) != 1 {
			t.Errorf("after a broken file: %v, %d looks, %v", err, looks(t, s), l.at)
		}
	})
}

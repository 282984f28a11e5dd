package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shoal/benchmarks/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFiguresAreWritten(t *testing.T) {
	dir := t.TempDir()
	figures, picture := filepath.Join(dir, "new", "x.json"), filepath.Join(dir, "x.svg")
	var out, errs bytes.Buffer
	args := []string{"--nodes", "3,5", "--pieces", "8", "--runs", "2", "-o", figures, "--plot", picture, "--set", "Degree=4", "--set", "Tell=20ms"}
	if code := run(args, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	if lines := strings.Count(out.String(), "\n"); lines != 5 {
		t.Errorf("%d lines, want a heading and four runs:\n%s", lines, out.String())
	}
	text, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 4 || r.Runs[3].Seed != 2 || r.Runs[3].Scenario.Nodes.Count != 5 || r.Runs[3].Set["Degree"] != "4" {
		t.Errorf("not the runs that were made: %s", text)
	}
	if o := r.Runs[0].Result; o.Ratio <= 1 || o.Copies < 1 || o.Makespan <= o.Bound {
		t.Errorf("figures that cannot be: %+v", o)
	}
	svg, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg", "makespan / bound", "copies", ">3<", ">5<"} {
		if !bytes.Contains(svg, []byte(want)) {
			t.Errorf("%q is not in the picture", want)
		}
	}
}

func TestScenariosOfTheLabAreRead(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"--scenario", filepath.Join("..", "scenarios", "trial", "40-four-faults.yaml")}, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	if !strings.Contains(out.String(), "four-faults") {
		t.Errorf("no line of the scenario:\n%s", out.String())
	}
}

// A scenario that only the lab can play is not simulated as another one.
func TestScenariosOfTheLabOnlyAreRefused(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "scenarios", "edge", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		var out, errs bytes.Buffer
		if code := run([]string{"--scenario", file}, &out, &errs); code != 1 || !strings.Contains(errs.String(), filepath.Base(file)+" cannot be simulated: it has ") {
			t.Errorf("%s: exit %d: %s", file, code, errs.String())
		}
	}
}

func TestEachScenarioBecomesACrowd(t *testing.T) {
	for _, folder := range []string{"", "sim", "trial"} {
		all, err := scenario.LoadFolder(filepath.Join("..", "scenarios", folder))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			c := configOf(s)
			dying, seeded := 0, 0
			for i, m := range c.Machines {
				_, killed := s.Killed(i)
				_, unplugged := s.Unplugged(i)
				if killed || unplugged {
					dying++
				}
				if (m.Dies > 0) != (killed || unplugged) || m.Silent != unplugged || m.Aside != !s.Counts(i) {
					t.Errorf("%s: machine %d is %+v", s.Name, i, m)
				}
				if m.Seeded {
					seeded++
				}
			}
			if len(c.Machines) != s.Nodes.Count || seeded != s.Nodes.Seeded || c.NoRange != s.Origin.IgnoresRange {
				t.Errorf("%s: %d machines, %d seeded, %d dying", s.Name, len(c.Machines), seeded, dying)
			}
			if c.Bound() <= 0 || c.Bound() > time.Hour {
				t.Errorf("%s: a bound of %v", s.Name, c.Bound())
			}
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--nonsense"}, 2, "unknown flag"},
		{[]string{"--churn", "0.1", "--kill", "0.1"}, 2, "can't be used together"},
		{[]string{"--scenario", "missing.yaml"}, 2, "missing.yaml"},
		{[]string{"--nodes", "3", "--set", "Nonsense=1"}, 1, "Nonsense"},
		{[]string{"--nodes", "3", "--set", "Degree=many"}, 1, "Degree"},
		{[]string{"--nodes", "3", "--seeded", "3"}, 1, "leave none"},
	} {
		var out, errs bytes.Buffer
		if code := run(c.args, &out, &errs); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%v: exit %d, %q; want %d and %q", c.args, code, errs.String(), c.code, c.says)
		}
	}
}

package report_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/benchmarks/lab/report"
	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
)

// crowd is a scenario with targets.
func crowd(t *testing.T) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse("crowd.yaml", []byte(`name: crowd
purpose: Of these tests.
nodes: {count: 3, link: 1 Gbit/s}
origin: {link: 200 Mbit/s}
image: {layers: [100 MB]}
targets: {proven: 1.10, client: 1.20, copies: 1.05}
`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run is of a crowd whose bound is 10 s: makespans are given as seconds.
func run(contender string, proven, client float64, originBytes int64) report.Run {
	return report.Run{
		Scenario: "crowd", Contender: contender, Bytes: 100e6, Goodput: 10e6, OriginBytes: originBytes,
		Nodes: []report.Node{
			{Counts: true, Proven: proven, Client: client, CPU: 0.2},
			{Counts: true, Proven: proven - 1, Client: client - 1, CPU: 0.1},
			{Counts: true, Proven: 1, Client: 1, CPU: 0.3},
		},
		Load: rig.Load{CPUs: 2, Others: 0.1},
	}
}

func wantFigure(t *testing.T, r *report.Run, f report.Figure, want float64) {
	t.Helper()
	if got, ok := r.Figure(f); !ok || math.Abs(got-want) > 1e-9 {
		t.Errorf("%s is %v (%v), want %v", f, got, ok, want)
	}
}

func TestFigures(t *testing.T) {
	r := run("shoal", 11, 12, 103e6)
	wantFigure(t, &r, report.Proven, 1.1)
	wantFigure(t, &r, report.Client, 1.2)
	wantFigure(t, &r, report.Copies, 1.03)
	wantFigure(t, &r, report.CPU, 2) // 0.6 s for three times 0.1 GB
}

func TestWhoDoesNotCountIsNotWaitedFor(t *testing.T) {
	r := run("shoal", 11, 12, 0)
	r.Nodes[0].Counts, r.Nodes[0].Fate = false, report.Slow
	wantFigure(t, &r, report.Proven, 1.0)
	wantFigure(t, &r, report.Client, 1.1)
}

func TestTheClockOfANodeStartsWhenItArrives(t *testing.T) {
	r := run("shoal", 11, 12, 0)
	r.Nodes[0].Arrival = 5
	wantFigure(t, &r, report.Proven, 1.0) // of the second node; the first one took 0.6
	wantFigure(t, &r, report.Client, 1.1)
}

func TestBoundOfASeededCrowdIsTheProcessorsToo(t *testing.T) {
	r := run("shoal", 11, 12, 0)
	r.Nodes[2] = report.Node{Fate: report.Seeded, CPU: 43.7} // 44 s on two processors
	wantFigure(t, &r, report.Proven, 0.5)
	r.Nodes[2].CPU = 0.7
	wantFigure(t, &r, report.Proven, 1.1)
	wantFigure(t, &r, report.CPU, 5) // 1 s for two deliveries
}

func TestAFailedRunHasNoFigures(t *testing.T) {
	r := run("shoal", 11, 12, 0)
	r.Error = "node 1: connection reset"
	for _, f := range report.Figures() {
		if value, ok := r.Figure(f); ok {
			t.Errorf("%s of a failed run is %v", f, value)
		}
	}
}

// results are three good runs and a failed one of shoal, and one of another.
func results(t *testing.T) *report.Results {
	t.Helper()
	failed := run("shoal", 99, 99, 99e6)
	failed.Error, failed.Round = "node 1:\nconnection reset", 4
	return &report.Results{
		Commit: "abc", Scenarios: []*scenario.Scenario{crowd(t)}, Versions: map[string]string{"aria2": "1.36"},
		Runs: []report.Run{
			run("aria2", 13, 13, 125e6), run("shoal", 10.5, 13, 101e6), run("shoal", 11, 11.5, 106e6), run("shoal", 14, 12.5, 107e6), failed,
		},
	}
}

func TestSummaries(t *testing.T) {
	all := results(t).Summaries()
	if len(all) != 2 || all[0].Contender != "shoal" || all[1].Contender != "aria2" {
		t.Fatalf("summaries of %v, want shoal's and aria2's", all)
	}
	s := all[0]
	if s.Runs != 4 || s.Failed != 1 {
		t.Errorf("%d runs, %d failed; want 4, 1", s.Runs, s.Failed)
	}
	if got := s.Figures[report.Proven].String(); got != "1.10 (1.05-1.40)" {
		t.Errorf("proven %s, want 1.10 (1.05-1.40)", got)
	}
	if s.Seconds.Median != 11 {
		t.Errorf("median of %v s, want 11", s.Seconds.Median)
	}
	want := map[report.Figure]bool{report.Proven: true, report.Client: false, report.Copies: false} // 1.10, 1.25, 1.06
	for _, v := range s.Verdicts {
		if v.Met != want[v.Figure] {
			t.Errorf("verdict %q", v)
		}
		delete(want, v.Figure)
	}
	if len(want) > 0 {
		t.Errorf("no verdict on %v", want)
	}
	if len(all[1].Verdicts) > 0 {
		t.Errorf("verdicts on aria2: %v", all[1].Verdicts)
	}
}

func TestWhatWasNotMeasuredIsMissed(t *testing.T) {
	r := results(t)
	r.Runs = r.Runs[4:] // the failed one
	for _, v := range r.Summaries()[0].Verdicts {
		if v.Met {
			t.Errorf("verdict %q, without a good run", v)
		}
	}
}

func TestMarkdown(t *testing.T) {
	r := results(t)
	r.Pulls = []report.Pull{
		{Way: "cold", Bytes: 50e6, Seconds: []float64{4, 6}, Copies: 1},
		{Way: "cold", Bytes: 50e6, Seconds: []float64{5, 8}, Copies: 1},
		{Way: "cold", Error: "no space left"},
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| crowd | shoal | 4, **1 failed** | 1.10 (1.05-1.40) | 1.25 (1.15-1.30) | 1.06 (1.01-1.07) | - | 2.00 (2.00-2.00) | - | - | - | 11.00 (10.50-14.00) | 10 % |",
		"| crowd | aria2 | 1 | 1.30 | 1.30 | 1.25 | - | 2.00 | - | - | - | 13.00 | 10 % |",
		"| crowd | proven | 1.10 | 1.100 | met |",
		"| crowd | client | 1.20 | 1.250 | **MISSED** |",
		"* crowd, shoal, round 4: node 1: connection reset",
		"| cold | 2 | 50 | 4.50 (4.00-5.00) | 7.00 (6.00-8.00) | 1.00 (1.00-1.00) |",
		"* docker pull, cold, round 0: no space left",
	} {
		if !strings.Contains(text.String(), line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if t.Failed() {
		t.Log(text.String())
	}
}

func TestPlots(t *testing.T) {
	files, err := results(t).Plots(filepath.Join(t.TempDir(), "lab"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 {
		t.Fatalf("plots in %v, want two", files)
	}
	for i, median := range []string{"1.10", "1.06"} {
		text, err := os.ReadFile(files[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"<svg", "crowd", "shoal", "aria2", median} {
			if !strings.Contains(string(text), word) {
				t.Errorf("%s has no %q", files[i], word)
			}
		}
	}
	none := report.Results{Scenarios: []*scenario.Scenario{crowd(t)}}
	if files, err := none.Plots(filepath.Join(t.TempDir(), "lab")); err != nil || len(files) > 0 {
		t.Errorf("plots of nothing: %v, %v", files, err)
	}
}

func TestAReportCanBeMadeAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lab.json")
	r := results(t)
	if err := r.Save(file); err != nil {
		t.Fatal(err)
	}
	again, err := report.LoadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var before, after strings.Builder
	if err := r.Markdown(&before); err != nil {
		t.Fatal(err)
	}
	if err := again.Markdown(&after); err != nil {
		t.Fatal(err)
	}
	if before.String() != after.String() {
		t.Errorf("from the file:\n%s\nwant:\n%s", &after, &before)
	}
}

func TestCompare(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sim.json")
	const simulated = `{"runs": [{"scenario": {"name": "crowd"}, "result": {"Makespan": 9500000000}},
		{"scenario": {"name": "other"}, "result": {"Makespan": 1}}]}`
	if err := os.WriteFile(file, []byte(simulated), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := report.LoadSimulated(file)
	if err != nil {
		t.Fatal(err)
	}
	for seconds, want := range map[float64]string{
		9.5:  "| crowd | 11.00 (10.50-14.00) | 9.50 | -13.6 % | met |\n",
		13:   "| crowd | 11.00 (10.50-14.00) | 13.00 | +18.2 % | **MISSED** |\n",
		9.34: "| crowd | 11.00 (10.50-14.00) | 9.34 | -15.1 % | **MISSED** |\n",
	} {
		s["crowd"][0] = seconds
		var text strings.Builder
		if err := results(t).Compare(&text, s); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(text.String(), "|\n"+want) {
			t.Errorf("%v s:\n%s\nwant as the only row %s", seconds, &text, want)
		}
	}
}

// Clients that pull one after the other are compared with pulls from the origin at
// the same turn of the same round.
func TestTurns(t *testing.T) {
	s := crowd(t)
	s.Arrivals.Turns = []int{0, 1, 0}
	played := func(contender string, round int, seconds ...float64) report.Run {
		r := run(contender, 11, 11, 0)
		r.Round = round
		for i, took := range seconds {
			r.Turns = append(r.Turns, report.Turn{Node: s.Arrivals.Turns[i], Seconds: took})
		}
		return r
	}
	shoal := played("shoal", 1, 11, 2, 1)
	wantFigure(t, &shoal, report.Later, 0.2)
	r := &report.Results{Scenarios: []*scenario.Scenario{s}, Runs: []report.Run{
		shoal, played("direct", 1, 11, 10, 10), played("direct", 2, 11, 20, 20), played("shoal", 2, 22, 2, 2), played("shoal", 3, 1, 1, 1),
	}}
	var b strings.Builder
	if err := r.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{
		"| crowd | shoal | 1 | n0 | 11.00 (1.00-22.00) | 0.75 (0.50-1.00) |",
		"| crowd | shoal | 2 | n1 | 2.00 (1.00-2.00) | 7.50 (5.00-10.00) |",
		"| crowd | direct | 3 | n0 | 15.00 (10.00-20.00) | 1.00 (1.00-1.00) |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
}

// Limits bound a crowd as a link does, and are missed on either side, or by one
// node that sends too much.
func TestLimits(t *testing.T) {
	for name, test := range map[string]struct {
		limits report.Limits
		off    float64
	}{
		"kept":          {report.Limits{Supply: 8e6, Sent: 8e6, Received: 8e6, MaxUpload: 4e6, Uploaded: 1e6}, 0},
		"too much":      {report.Limits{Supply: 8e6, Sent: 8.8e6, Received: 8e6}, 0.1},
		"too little":    {report.Limits{Supply: 8e6, Sent: 8e6, Received: 6e6}, 0.25},
		"one too eager": {report.Limits{Supply: 8e6, Sent: 8e6, Received: 8e6, MaxUpload: 4e6, Uploaded: 6e6}, 0.5},
	} {
		r := run("shoal", 15, 15, 0)
		r.Limits = &test.limits
		t.Run(name, func(t *testing.T) {
			wantFigure(t, &r, report.Limit, test.off)
			wantFigure(t, &r, report.Proven, 1.2) // of 12.5 s
		})
	}
}

func TestRelayed(t *testing.T) {
	r := run("shoal", 11, 12, 0)
	if _, ok := r.Figure(report.Relayed); ok {
		t.Error("a crowd without a relay has a figure of it")
	}
	carried := int64(25e6)
	r.Relayed = &carried
	wantFigure(t, &r, report.Relayed, 0.25)
}

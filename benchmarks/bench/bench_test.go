//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shoal/benchmarks/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		runs        []float64
		bounds      []bound
		asked, want string
	}{
		{[]float64{1}, nil, "", ""},
		{[]float64{0.2, 0.95, 3}, []bound{atLeast(0.95)}, "at least 0.95", "met"},
		{[]float64{0.94}, []bound{atLeast(0.95)}, "at least 0.95", "**MISSED**"},
		{[]float64{1.5}, []bound{atMost(1.5)}, "at most 1.5", "met"},
		{[]float64{1.4, 1.6}, []bound{atMost(1.49)}, "at most 1.49", "**MISSED**"},
		{[]float64{3}, []bound{atLeast(2), atMost(4)}, "at least 2, at most 4", "met"},
		{nil, []bound{atMost(1.5)}, "at most 1.5", "**NOT MEASURED**"},
	} {
		var f findings
		f.add("x", "", test.runs, test.bounds...)
		if got := f.Figures[0]; got.verdict() != test.want || got.asked() != test.asked {
			t.Errorf("%v, %s: %q, want %q, %s", test.runs, got.asked(), got.verdict(), test.want, test.asked)
		}
	}
}

func TestValue(t *testing.T) {
	for want, runs := range map[string][]float64{
		"0.950 (0.900 to 1.200)": {1.2, 0.9, 0.95},
		"12.3":                   {12.34},
		"1234 (-250 to 1300)":    {1300, 1234, -250},
	} {
		if got := (figure{Runs: runs}).value(); got != want {
			t.Errorf("%v: %s, want %s", runs, got, want)
		}
	}
}

// sampleResults are of two measurements, one of which failed.
func sampleResults() *results {
	r := &results{
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Commit: "abc", Machine: rig.Machine{CPUs: 2, Model: "Chip", Memory: 8e9, Data: "ext4"},
		Versions:     map[string]string{"nginx": "nginx 1"},
		Measurements: []*findings{{Name: "blob", Seconds: 12, Load: rig.Load{Others: 0.07}}, {Name: "heads", Error: "no\nroom"}},
	}
	r.Measurements[0].add("shoal by nginx", "", []float64{0.9, 0.8, 1}, atLeast(0.95))
	r.Measurements[0].add("nginx", "MB/s", []float64{1000, 1010, 990})
	return r
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := sampleResults().markdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Bench, 2026-01-02 03:04:05 UTC\n", "Commit abc; 2 x Chip, 8 GB;", "nginx: nginx 1",
		"## blob\n\nTook 12 s, meanwhile others used 7 % of the processors.",
		"| shoal by nginx | 0.900 (0.800 to 1.000) |  | at least 0.95 | **MISSED** |\n",
		"| nginx | 1000 (990 to 1010) | MB/s |  |  |\n",
		"**FAILED**: no room\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// All runs are in the file, so that a table can be made of it again.
func TestSave(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	table, err := sampleResults().save(dir)
	if err != nil || table != filepath.Join(dir, "bench-20260102T030405Z.md") {
		t.Fatalf("%s, %v", table, err)
	}
	text, err := os.ReadFile(strings.TrimSuffix(table, ".md") + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var again results
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	var first, second strings.Builder
	if err := errors.Join(sampleResults().markdown(&first), again.markdown(&second)); err != nil || first.String() != second.String() {
		t.Errorf("%v; from the file\n%s", err, second.String())
	}
	if got := again.Measurements[0].Figures[0].Runs; !slices.Equal(got, []float64{0.9, 0.8, 1}) {
		t.Errorf("runs %v", got)
	}
}

func TestTakeTurns(t *testing.T) {
	var order []string
	of := func(name string, from float64) contender {
		return contender{name, func(context.Context) (sample, error) {
			order = append(order, name)
			from++
			return sample{"x": from}, nil
		}}
	}
	got, err := takeTurns(t.Context(), 3, of("a", 0), of("b", 10))
	if err != nil {
		t.Fatal(err)
	}
	if want := "a b b a a b"; strings.Join(order, " ") != want {
		t.Errorf("order %v, want %s", order, want)
	}
	if a, b := got["a"]["x"], got["b"]["x"]; !slices.Equal(a, []float64{1, 2, 3}) || !slices.Equal(b, []float64{11, 12, 13}) {
		t.Errorf("a %v, b %v", a, b)
	}
	broken := contender{"c", func(context.Context) (sample, error) { return nil, io.ErrUnexpectedEOF }}
	if _, err := takeTurns(t.Context(), 2, of("a", 0), broken); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), "c, round 1: ") {
		t.Errorf("error %v", err)
	}
}

// A pair is of the same round.
func TestRatios(t *testing.T) {
	if got := ratios([]float64{1, 6, 2}, []float64{2, 3, 4}); !slices.Equal(got, []float64{0.5, 2, 0.5}) {
		t.Errorf("ratios %v", got)
	}
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, test := range []struct {
		of   []time.Duration
		p    int
		want time.Duration
	}{{hundred, 99, 99}, {hundred, 50, 50}, {hundred, 100, 100}, {hundred[:1], 99, 1}, {hundred[:2], 50, 1}, {hundred[:10], 99, 10}} {
		if got := percentile(test.of, test.p); got != test.want {
			t.Errorf("p%d of %d: %d, want %d", test.p, len(test.of), got, test.want)
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-only=heads,blob", "-runs=1"}, io.Discard)
	if err != nil || o.runs != 1 || !slices.Equal(names(o.only), []string{"heads", "blob"}) {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = parseOptions(nil, io.Discard); err != nil || o.runs != 7 || len(o.only) != len(measurements()) {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"-runs=0"}, {"blob"}, {"-only=blobs"}, {"-no-such-flag"}} {
		if _, err := parseOptions(args, io.Discard); err == nil {
			t.Errorf("%v is no error", args)
		}
	}
}

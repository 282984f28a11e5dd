// Command testsum reads the output of "go test -json" from standard input,
// prints a line for each package, what failing tests printed and what was
// skipped, and closes with the number of tests by container runtime. It exits
// with 1 if a test failed, a package did not build, or no test ran.
//
// A test says that it drives a real runtime by logging a line
// "runtime: NAME VERSION"; all others count as "in process".
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// event is one line of test2json, see "go doc test2json".
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// test is what is known about one test or subtest.
type test struct {
	output   []string
	runtimes []string
	result   string // pass, fail or skip; empty while it runs
	parent   bool   // has subtests: counted by those
}

type summary struct {
	out      io.Writer
	tests    map[string]*test    // by package and name
	packages map[string][]string // output outside of any test
	failed   []string            // packages
	skipped  []string
}

func main() {
	s := summary{out: os.Stdout, tests: map[string]*test{}, packages: map[string][]string{}}
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	if !s.report() {
		os.Exit(1)
	}
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(s.out, "%s", line) // the go command's own words
			} else {
				s.add(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) add(e event) {
	if strings.HasPrefix(e.Action, "build-") {
		if e.Action == "build-output" {
			fmt.Fprint(s.out, e.Output)
		}
		return
	}
	if e.Test == "" {
		s.addPackage(e)
		return
	}
	key := e.Package + " " + e.Test
	t := s.tests[key]
	if t == nil {
		t = &test{}
		s.tests[key] = t
		if i := strings.LastIndexByte(key, '/'); i > len(e.Package) {
			if p := s.tests[key[:i]]; p != nil {
				p.parent = true
			}
		}
	}
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
		if _, name, ok := strings.Cut(e.Output, "runtime: "); ok {
			t.runtimes = append(t.runtimes, strings.TrimSpace(name))
		}
	case "pass", "fail", "skip":
		t.result = e.Action
		if e.Action == "fail" && !t.parent {
			fmt.Fprintf(s.out, "%s", strings.Join(t.output, ""))
		}
		if e.Action == "skip" {
			s.skipped = append(s.skipped, key+": "+reason(t.output))
		}
		if e.Action == "pass" {
			t.output = nil
		}
	}
}

func (s *summary) addPackage(e event) {
	switch e.Action {
	case "output":
		s.packages[e.Package] = append(s.packages[e.Package], e.Output)
	case "pass", "skip":
		fmt.Fprintf(s.out, "%-4s %s %.1fs\n", e.Action, e.Package, e.Elapsed)
	case "fail":
		s.failed = append(s.failed, e.Package)
		for key, t := range s.tests {
			// A panic or a time limit ends a package with tests still running.
			if strings.HasPrefix(key, e.Package+" ") && (t.result == "" || t.parent && t.result == "fail") {
				fmt.Fprintf(s.out, "%s", strings.Join(t.output, ""))
			}
		}
		fmt.Fprintf(s.out, "%sFAIL %s %.1fs\n", strings.Join(s.packages[e.Package], ""), e.Package, e.Elapsed)
	}
}

// reason finds what t.Skip was told.
func reason(output []string) string {
	for _, line := range output {
		if !strings.HasPrefix(strings.TrimSpace(line), "===") && !strings.HasPrefix(strings.TrimSpace(line), "---") {
			return strings.TrimSpace(line)
		}
	}
	return "no reason given"
}

// report prints the counts and tells whether all is well.
func (s *summary) report() bool {
	total, byRuntime := map[string]int{}, map[string]map[string]int{}
	for _, t := range s.tests {
		if t.parent && t.result != "fail" {
			continue
		}
		result := cmp.Or(t.result, "fail")
		total[result]++
		runtimes := t.runtimes
		if len(runtimes) == 0 {
			runtimes = []string{"in process"}
		}
		slices.Sort(runtimes)
		for _, r := range slices.Compact(runtimes) {
			if byRuntime[r] == nil {
				byRuntime[r] = map[string]int{}
			}
			byRuntime[r][result]++
		}
	}
	for _, line := range slices.Sorted(slices.Values(s.skipped)) {
		fmt.Fprintln(s.out, "skipped:", line)
	}
	fmt.Fprintln(s.out, "\ntests by runtime:")
	for _, r := range slices.Sorted(maps.Keys(byRuntime)) {
		c := byRuntime[r]
		fmt.Fprintf(s.out, "  %-24s %4d passed, %d failed, %d skipped\n", r, c["pass"], c["fail"], c["skip"])
	}
	for _, p := range s.failed {
		fmt.Fprintln(s.out, "FAIL", p)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", total["pass"], total["fail"], total["skip"])
	return len(s.failed) == 0 && total["fail"] == 0 && total["pass"] > 0
}

package scenario_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/benchmarks/scenario"
)

// folder holds the files that come with the program.
const folder = "../scenarios"

func TestFilesOfTheRepository(t *testing.T) {
	for _, sub := range []string{"", "trial", "sim", "edge"} {
		all, err := scenario.LoadFolder(filepath.Join(folder, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if why := s.SimulatorOnly(); (why != "") != (sub == "sim") {
				t.Errorf("%s in folder %q: for the simulator only because %q", s.Name, sub, why)
			}
			if targets := s.Targets.All(); (len(targets) == 0) != (sub == "trial") {
				t.Errorf("%s in folder %q has %d targets", s.Name, sub, len(targets))
			}
		}
	}
}

func TestLoad(t *testing.T) {
	s, err := scenario.Load(filepath.Join(folder, "20-six-four-layers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Bytes() != 400e6 || len(s.Image.Layers) != 4 || s.Image.Parallel != 3 {
		t.Errorf("image of %d bytes, %d layers, %d at once", s.Bytes(), len(s.Image.Layers), s.Image.Parallel)
	}
	if s.Nodes.Link != 1e9 || s.Origin.Link != 200e6 || s.Cold() != 6 {
		t.Errorf("%d cold nodes at %v, origin at %v", s.Cold(), s.Nodes.Link, s.Origin.Link)
	}
	want := []scenario.Target{{"proven", 1.10}, {"client", 1.15}, {"copies", 1.05}}
	if got := s.Targets.All(); len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("targets %v, want %v", got, want)
	}
}

// minimal is a scenario with nothing that could be left out.
const minimal = `name: small
purpose: The smallest one.
nodes: {count: 10, link: 1 Gbit/s}
origin: {link: 200 Mbit/s}
image: {layers: [1 MiB]}
`

func mustParse(t *testing.T, text string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse("file.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaults(t *testing.T) {
	s := mustParse(t, minimal)
	if s.Image.Parallel != 3 {
		t.Errorf("%d blobs at once, want 3 as dockerd", s.Image.Parallel)
	}
	for node := range s.Nodes.Count {
		_, killed := s.Killed(node)
		_, unplugged := s.Unplugged(node)
		if killed || unplugged || s.Lies(node) || !s.Counts(node) || s.Arrival(node) != 0 || s.Link(node) != 1e9 {
			t.Errorf("node %d is not as all the others", node)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	tests := map[string]struct{ old, new, want string }{
		"unknown key":         {"count: 10", "cuont: 10", `file.yaml:3: unknown field "cuont"`},
		"unknown section":     {"purpose:", "porpoise:", `file.yaml:2: unknown field "porpoise"`},
		"wrong type":          {"count: 10", "count: [10]", "file.yaml:3: "},
		"no unit":             {"200 Mbit/s", "200", `file.yaml:4: "200" must be a number and one of Gbit/s`},
		"size as a rate":      {"200 Mbit/s", "200 MB", `file.yaml:4: "200 MB" must be`},
		"bits as a size":      {"1 MiB", "1 Mbit/s", `file.yaml:5: "1 Mbit/s" must be`},
		"negative size":       {"1 MiB", "-1 MiB", `file.yaml:5: "-1 MiB" is out of range`},
		"empty layer":         {"1 MiB", "0 B", "file.yaml:5: image.layers must be"},
		"no image":            {"image: {layers: [1 MiB]}\n", "", "file.yaml:1: image.layers must be"},
		"no name":             {"name: small\n", "", "file.yaml:1: name is missing"},
		"no nodes":            {"count: 10", "count: 0", "file.yaml:3: nodes.count must be at least 1"},
		"all seeded":          {"count: 10", "count: 10, seeded: 10", "file.yaml:3: nodes.seeded must leave"},
		"all dead":            {"image:", "faults:\n  kill: {share: 1}\nimage:", "file.yaml:3: nodes.count must leave a node"},
		"share above 1":       {"image:", "faults:\n  unplug: {share: 1.5}\nimage:", "file.yaml:6: faults.unplug.share must be between 0 and 1"},
		"until before from":   {"image:", "faults:\n  kill: {share: 0.5, from: 1, until: 0.5}\nimage:", "file.yaml:6: faults.kill.until must not be before from"},
		"slow without link":   {"count: 10", "count: 10, slow: {share: 0.5}", "file.yaml:3: nodes.slow.link is missing"},
		"negative target":     {"image:", "targets: {copies: -1}\nimage:", "file.yaml:5: targets.copies must not be negative"},
		"duplicate key":       {"purpose:", "name: other\npurpose:", "file.yaml:2: "},
		"second document":     {"image: {layers: [1 MiB]}\n", "image: {layers: [1 MiB]}\n---\nname: other\n", "file.yaml:7: a second document"},
		"turns and faults":    {"image:", "arrivals: {turns: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], over: 1s}\nimage:", "file.yaml:5: arrivals.turns must not stand beside"},
		"a turn of nobody":    {"image:", "arrivals: {turns: [0, 10]}\nimage:", "file.yaml:5: arrivals.turns must have every cold node"},
		"a node without one":  {"image:", "arrivals: {turns: [0, 1, 0]}\nimage:", "file.yaml:5: arrivals.turns must have every cold node"},
		"a router unheard of": {"count: 10", "count: 10, nat: full-cone", "file.yaml:3: nodes.nat must be keeps-ports or changes-ports"},
		"routers in zones":    {"count: 10", "count: 10, nat: keeps-ports, zones: {count: 2, link: 1 Gbit/s}", "file.yaml:3: nodes.nat must not stand beside zones"},
		"latency not a time":  {"image:", "latency: 2\nimage:", "file.yaml:5: "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := scenario.Parse("file.yaml", []byte(strings.Replace(minimal, test.old, test.new, 1)))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line that begins with %q", err, test.want)
			}
		})
	}
}

func TestArrivalsAreEven(t *testing.T) {
	s := mustParse(t, strings.Replace(minimal, "count: 10", "count: 10, seeded: 5", 1)+"arrivals: {over: 8s}\n")
	for node, want := range map[int]time.Duration{0: 0, 4: 0, 5: 0, 6: 2 * time.Second, 9: 8 * time.Second} {
		if got := s.Arrival(node); got != want {
			t.Errorf("node %d arrives after %v, want %v", node, got, want)
		}
	}
}

func TestWhoIsHit(t *testing.T) {
	s := mustParse(t, strings.Replace(minimal, "count: 10", "count: 11, seeded: 1, slow: {share: 0.2, link: 1 Mbit/s}", 1)+
		"faults: {kill: {share: 0.3, from: 0.2, until: 0.6}, unplug: {share: 0.2, from: 0.5}, lie: 0.1}\n")
	killed := map[int]float64{8: 0.2, 9: 0.4, 10: 0.6}
	for node := range s.Nodes.Count {
		at, is := s.Killed(node)
		if want, should := killed[node]; is != should || at < want-1e-9 || at > want+1e-9 {
			t.Errorf("node %d killed: %v at %v, want %v at %v", node, is, at, should, want)
		}
		at, is = s.Unplugged(node)
		if should := node == 6 || node == 7; is != should || is && at != 0.5 {
			t.Errorf("node %d unplugged: %v at %v, want %v", node, is, at, should)
		}
		if is, should := s.Lies(node), node == 5; is != should {
			t.Errorf("node %d lies: %v, want %v", node, is, should)
		}
		if is, should := s.Link(node) == 1e6, node == 1 || node == 2; is != should {
			t.Errorf("node %d is slow: %v, want %v", node, is, should)
		}
		if is, should := s.Counts(node), node == 3 || node == 4; is != should {
			t.Errorf("node %d counts: %v, want %v", node, is, should)
		}
	}
}

func TestUnitsAreWrittenAsTheyAreRead(t *testing.T) {
	for size, want := range map[scenario.Size]string{
		400e6: "400 MB", 8 << 20: "8 MiB", 1500e6: "1.5 GB", 1: "1 B", 1234567: "1234567 B", 1e6: "1 MB", 0: "0 B", 1000 << 20: "1000 MiB",
	} {
		if got := size.String(); got != want {
			t.Errorf("%d bytes are %q, want %q", int64(size), got, want)
		}
	}
	for rate, want := range map[scenario.Rate]string{200e6: "200 Mbit/s", 1e9: "1 Gbit/s", 1500: "1500 bit/s", 2500e6: "2.5 Gbit/s"} {
		if got := rate.String(); got != want {
			t.Errorf("%d bit/s are %q, want %q", int64(rate), got, want)
		}
	}
	s := mustParse(t, strings.Replace(minimal, "[1 MiB]", `["2.5MB", 1 kB, 3 GiB, 7 B, 2 KiB, 1 GB]`, 1))
	want := []scenario.Size{2500e3, 1e3, 3 << 30, 7, 2 << 10, 1e9}
	for i, l := range s.Image.Layers {
		if l != want[i] {
			t.Errorf("layer %d has %d bytes, want %d", i, l, want[i])
		}
	}
}

func TestFolderWithTwoOfAName(t *testing.T) {
	dir := t.TempDir()
	if _, err := scenario.LoadFolder(dir); err == nil {
		t.Error("an empty folder is no error")
	}
	for _, file := range []string{"1.yaml", "2.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(minimal), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := scenario.LoadFolder(dir); err == nil || !strings.Contains(err.Error(), "1.yaml has the name \"small\" too") {
		t.Errorf("two scenarios of one name: %v", err)
	}
}

// What only the lab can play, the simulator must refuse, not play as something else.
func TestLabOnly(t *testing.T) {
	for more, only := range map[string]bool{
		"": false,
		"arrivals: {turns: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]}\n": true,
	} {
		if got := mustParse(t, minimal+more).LabOnly() != ""; got != only {
			t.Errorf("%q: %v, want %v", more, got, only)
		}
	}
	for _, more := range []string{", nat: changes-ports", ", limits: {max-origin: 8 Mbit/s}", ", limits: {max-upload: 8 Mbit/s}"} {
		if mustParse(t, strings.Replace(minimal, "count: 10", "count: 10"+more, 1)).LabOnly() == "" {
			t.Errorf("%q can be simulated", more)
		}
	}
}

func TestSupply(t *testing.T) {
	s := mustParse(t, strings.Replace(minimal, "count: 10", "count: 10, seeded: 2, limits: {max-origin: 8 Mbit/s, max-upload: 16 Mbit/s}", 1))
	if got := s.Supply(); got != 8*8e6+2*16e6 {
		t.Errorf("supply of %v, want what 8 take from the origin and 2 send", got)
	}
}

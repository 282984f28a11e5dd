package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
)

// LoadFolder reads every scenario of a folder, in the order of the file names,
// which is the order of importance. Two of one name are an error.
func LoadFolder(folder string) ([]*Scenario, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no scenarios (*.yaml) in %s", folder)
	}
	var all []*Scenario
	seen := map[string]string{}
	for _, file := range files {
		s, err := Load(file)
		if err != nil {
			return nil, err
		}
		if other, twice := seen[s.Name]; twice {
			return nil, fmt.Errorf("%s: %s has the name %q too", file, other, s.Name)
		}
		seen[s.Name] = file
		all = append(all, s)
	}
	return all, nil
}

// Load reads a scenario from a YAML file. Its keys are those of Scenario and
// what it consists of; unknown ones are errors. Every error says file and line.
func Load(file string) (*Scenario, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, text)
}

// Parse reads a scenario. name is that of the file, for errors.
func Parse(name string, text []byte) (*Scenario, error) {
	s := &Scenario{}
	if err := Decode(name, text, s); err != nil {
		return nil, err
	}
	if s.Image.Parallel == 0 {
		s.Image.Parallel = defaultParallel
	}
	for _, c := range s.checks() {
		if !c.holds {
			return nil, fmt.Errorf("%s:%d: %s %s", name, line(text, c.path), c.path, c.must)
		}
	}
	return s, nil
}

// Decode reads a YAML document into to, a pointer to a struct. Unknown keys and
// a second document are errors; every error says file (name) and line.
func Decode(name string, text []byte, to any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	err := decoder.Decode(to)
	if err == nil {
		tree, _ := parser.ParseBytes(text, 0) // it was parsed just now
		if len(tree.Docs) > 1 && tree.Docs[1].Body != nil {
			return fmt.Errorf("%s:%d: a second document", name, tree.Docs[1].Body.GetToken().Position.Line)
		}
		return nil
	}
	// What the decoder says comes with a drawing of the place.
	if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
		return fmt.Errorf("%s:%d: %s", name, e.GetToken().Position.Line, e.GetMessage())
	}
	return fmt.Errorf("%s: %w", name, err)
}

// check is a rule: what the value at path must be.
type check struct {
	path  string
	holds bool
	must  string
}

const isNoShare = "must be between 0 and 1"

func isShare(x float64) bool { return x >= 0 && x <= 1 }

// checks are the rules that every scenario keeps.
func (s *Scenario) checks() []check {
	sizes := true
	for _, l := range s.Image.Layers {
		sizes = sizes && l > 0
	}
	checks := []check{
		{"name", s.Name != "", "is missing"},
		{"purpose", s.Purpose != "", "is missing"},
		{"nodes.count", s.Nodes.Count > 0, "must be at least 1"},
		{"nodes.link", s.Nodes.Link > 0, "is missing"},
		{"nodes.zones.count", s.Nodes.Zones.Count >= 0 && s.Nodes.Zones.Count <= s.Nodes.Count, "must be between 0 and the nodes"},
		{"nodes.zones.link", s.Nodes.Zones.Count == 0 || s.Nodes.Zones.Link > 0, "is missing"},
		{"nodes.seeded", s.Nodes.Seeded >= 0 && s.Cold() > 0, "must leave at least one cold node"},
		{"nodes.slow.share", isShare(s.Nodes.Slow.Share), isNoShare},
		{"nodes.slow.link", s.Nodes.Slow.Share == 0 || s.Nodes.Slow.Link > 0, "is missing"},
		{"nodes.nat", slices.Contains([]NAT{"", KeepsPorts, ChangesPorts}, s.Nodes.NAT), "must be keeps-ports or changes-ports"},
		{"nodes.nat", s.Nodes.NAT == "" || s.Nodes.Zones.Count == 0, "must not stand beside zones"},
		{"arrivals.turns", s.turnsMakeSense(), "must have every cold node, and no other"},
		{"arrivals.turns", !s.InTurn() || s.Arrivals.Over == 0 && !s.Arrivals.StartsNode && s.Faults == Faults{}, "must not stand beside over, starts-node or faults"},
		{"origin.link", s.Origin.Link > 0, "is missing"},
		{"image.layers", len(s.Image.Layers) > 0 && sizes, "must be at least one size above 0"},
		{"image.parallel", s.Image.Parallel > 0, "must be at least 1"},
		{"latency", s.Latency >= 0, "must not be negative"},
		{"arrivals.over", s.Arrivals.Over >= 0, "must not be negative"},
		{"faults.lie", isShare(s.Faults.Lie), isNoShare},
	}
	checks = append(checks, s.Faults.Kill.checks("faults.kill")...)
	checks = append(checks, s.Faults.Unplug.checks("faults.unplug")...)
	counted := false
	for node := range s.Nodes.Count {
		counted = counted || s.Counts(node)
	}
	checks = append(checks, check{"nodes.count", counted, "must leave a node that is neither seeded, slow, lying nor failing"})
	for _, t := range s.Targets.All() {
		checks = append(checks, check{"targets." + t.Name, t.Most >= 0, "must not be negative"})
	}
	return checks
}

// turnsMakeSense tells whether the nodes that have turns are the cold ones.
func (s *Scenario) turnsMakeSense() bool {
	had := map[int]bool{}
	for _, node := range s.Arrivals.Turns {
		if node < s.Nodes.Seeded || node >= s.Nodes.Count {
			return false
		}
		had[node] = true
	}
	return !s.InTurn() || len(had) == s.Cold()
}

// checks are the rules that a fault at path keeps.
func (f Fault) checks(path string) []check {
	return []check{
		{path + ".share", isShare(f.Share), isNoShare},
		{path + ".from", f.From >= 0, "must not be negative"},
		{path + ".until", f.Until == 0 || f.Until >= f.From, "must not be before from"},
	}
}

// line returns the line of the value at path, or of the longest part of path
// that is there.
func line(text []byte, path string) int {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return 1
	}
	for path != "" {
		if at, err := yaml.PathString("$." + path); err == nil {
			if node, err := at.FilterFile(tree); err == nil {
				return node.GetToken().Position.Line // a mapping's is that of its first key
			}
		}
		path = parent(path)
	}
	return 1
}

// parent returns path without its last part.
func parent(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '.' {
			return path[:i]
		}
	}
	return ""
}

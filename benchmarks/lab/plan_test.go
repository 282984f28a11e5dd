//go:build linux

package main

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/testhost"
)

// everybody are all contenders that come with the lab.
func everybody(t *testing.T) []contender {
	t.Helper()
	cache, err := registryCache()
	if err != nil {
		t.Fatal(err)
	}
	return []contender{shoal{}, &aria2{}, direct{}, cache}
}

func names(contenders []contender) string {
	var all []string
	for _, c := range contenders {
		all = append(all, c.name())
	}
	return strings.Join(all, " ")
}

func TestChoose(t *testing.T) {
	with := parseScenario(t, "rivals: [direct, docker-registry]\n")
	for _, test := range []struct {
		named []string
		want  string
	}{
		{nil, "shoal direct docker-registry"},
		{[]string{"aria2"}, "aria2"},
		{[]string{"direct", "shoal"}, "shoal direct"},
	} {
		got, err := choose(everybody(t), test.named, []*scenario.Scenario{with})
		if err != nil || names(got) != test.want {
			t.Errorf("named %v: %s (%v), want %s", test.named, names(got), err, test.want)
		}
	}
	if _, err := choose(everybody(t), []string{"kraken"}, nil); err == nil || !strings.Contains(err.Error(), `no contender "kraken": there are shoal, aria2`) {
		t.Errorf("a contender that is not there: %v", err)
	}
}

func TestPlayers(t *testing.T) {
	with, without := parseScenario(t, "rivals: [direct]\n"), parseScenario(t, "")
	p := &plan{contenders: everybody(t)}
	if got := names(p.playersOf(with)); got != "shoal direct" {
		t.Errorf("with a rival play %s", got)
	}
	if got := names(p.playersOf(without)); got != "shoal" {
		t.Errorf("without rivals play %s", got)
	}
	p.named = true
	if got := names(p.playersOf(without)); got != "shoal aria2 direct docker-registry" {
		t.Errorf("of those that were named play %s", got)
	}
}

func TestPick(t *testing.T) {
	all := []*scenario.Scenario{parseScenario(t, "")}
	if got, err := pick(all, nil); err != nil || len(got) != 1 {
		t.Errorf("no names: %v, %v", got, err)
	}
	if _, err := pick(all, []string{"large"}); err == nil || !strings.Contains(err.Error(), "there are small and dockerds") {
		t.Errorf("an unknown name: %v", err)
	}
}

// TestTheWholeSetIsBounded is what a person waits for at seven runs.
func TestTheWholeSetIsBounded(t *testing.T) {
	o, err := parseOptions([]string{"-scenarios=../scenarios"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.dockerds = true
	if got, most := p.estimateFrom(0), 52*time.Minute; got > most {
		t.Errorf("about %v, want at most %v", got, most)
	}
	if p.hosts() != 12 {
		t.Errorf("%d hosts, want those of the largest crowd", p.hosts())
	}
	p.runs = 1000
	if got, most := p.estimateFrom(0), 90*time.Minute; got > most {
		t.Errorf("about %v for a thousand runs, want at most %v by the budget", got, most)
	}
}

func TestPlanOfOnlySome(t *testing.T) {
	for args, want := range map[string]struct {
		scenarios int
		dockerds  bool
	}{
		"-only=six-one-blob":          {1, false},
		"-only=six-one-blob,dockerds": {1, true},
		"-only=dockerds":              {0, true},
	} {
		o, err := parseOptions([]string{"-scenarios=../scenarios", args}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		p, err := o.plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(p.scenarios) != want.scenarios || p.dockerds != want.dockerds {
			t.Errorf("%s: %d scenarios, dockerds %v", args, len(p.scenarios), p.dockerds)
		}
	}
}

func TestScenariosForTheSimulatorOnly(t *testing.T) {
	o, err := parseOptions([]string{"-scenarios=../scenarios/sim"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.plan(t.Context()); err == nil || !strings.Contains(err.Error(), "thousand cannot be played here") {
		t.Errorf("error %v", err)
	}
}

func TestInstalledNamesPackages(t *testing.T) {
	if err := installed([]string{"sh"}); err != nil {
		t.Errorf("sh: %v", err)
	}
	err := installed([]string{"sh", "no-such-program"})
	if err == nil || err.Error() != "not installed: no-such-program" {
		t.Errorf("error %v", err)
	}
	for _, c := range everybody(t) {
		for _, program := range c.needs() {
			if packages()[program] == "" {
				t.Errorf("%s needs %s, of no known package", c.name(), program)
			}
		}
	}
	for _, program := range (&plan{dockerds: true}).needs() {
		if packages()[program] == "" {
			t.Errorf("%s is of no known package", program)
		}
	}
}

func TestAdapter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.yaml")
	text := `name: mine
node: {command: [mine, "{addr}", "{others}", "{first}", "{nodes}", "{node}", "{dir}"]}
pull: http://{addr}:5000
stored: "{dir}/{hex2}/{hex}"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadAdapter(file)
	if err != nil {
		t.Fatal(err)
	}
	st := &stage{
		scenario: parseScenario(t, ""), image: &image{repository: "lab/small"}, upstream: "http://10.0.0.9:5000", dir: "/run",
		nodes:  []*testhost.Host{{Addr: netip.MustParseAddr("10.0.0.1")}, {Addr: netip.MustParseAddr("10.0.0.2")}, {Addr: netip.MustParseAddr("10.0.0.3")}},
		center: &testhost.Host{Addr: netip.MustParseAddr("10.0.0.8")},
	}
	made, err := c.crew(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	crew, ok := made.(*commandCrew)
	if !ok {
		t.Fatalf("crew is a %T", made)
	}
	if got := crew.client(1).Base; got != "http://10.0.0.2:5000" {
		t.Errorf("clients ask %s", got)
	}
	if got, _ := crew.stored(1, blobFile{hex: "abcd"}); got != "/run/1/ab/abcd" {
		t.Errorf("blobs lie in %s", got)
	}
	vars := crew.vars(1, "/run/1")
	for text, want := range map[string]string{
		"{addr} {others} {first} {nodes} {node} {dir}":       "10.0.0.2 10.0.0.1,10.0.0.3 10.0.0.1 10.0.0.1,10.0.0.2,10.0.0.3 1 /run/1",
		"{center} {origin} {origin-host} {repository}:{tag}": "10.0.0.8 http://10.0.0.9:5000 10.0.0.9:5000 lab/small:latest",
	} {
		if got := vars.Replace(text); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for bad, want := range map[string]string{"name: x\nnodes: {}\n": `x.yaml:2: unknown field "nodes"`, "name: x\n": "x.yaml: name, pull and node.command are needed"} {
		if _, err := parseAdapter("x.yaml", []byte(bad)); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", bad, err, want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-runs=0"}, {"scenario"}, {"-no-such-flag"}} {
		if _, err := parseOptions(args, io.Discard); err == nil {
			t.Errorf("%v is no error", args)
		}
	}
}

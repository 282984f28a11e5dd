package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// What operators get, beside the program.
const (
	alertsFile    = "../../deploy/prometheus/alerts.yaml"
	alertsTest    = "../../deploy/prometheus/alerts_test.yaml"
	dashboardFile = "../../deploy/grafana/shoal.json"
	unitFile      = "../../deploy/systemd/shoal.service"
)

// runTool runs a program of Debian's packages (.ci/install-deps) and returns what it
// says. As root a missing one is a failure.
func runTool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err != nil && os.Getuid() == 0:
		t.Fatalf("%v; run .ci/install-deps", err)
	case err != nil:
		t.Skipf("LEFT OUT: needs %s", name)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

// ruleFile is a file of Prometheus' rules.
type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name  string     `yaml:"name"`
	Rules []promRule `yaml:"rules"`
}

type promRule struct {
	Alert  string `yaml:"alert,omitempty"`
	Record string `yaml:"record,omitempty"`
	Expr   string `yaml:"expr"`
}

// alertExpressions returns those of the alerts.
func alertExpressions(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file ruleFile
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range file.Groups[0].Rules {
		all = append(all, r.Expr)
	}
	return all
}

// dashboardExpressions returns those of the dashboard's panels, as Grafana sends
// them to Prometheus.
func dashboardExpressions(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all = append(all, strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(target.Expr))
		}
	}
	return all
}

// exposed returns the names of the series that a node has which has just served
// a blob, and of those that it would have if there was something to count.
func exposed(t *testing.T) map[string]bool {
	t.Helper()
	f := start(t)
	until(t, "ready", func() bool { return f.readyz() == "OK: ready" })
	body := f.download(t)
	defer body.Close()
	f.openGate()
	if _, err := io.Copy(io.Discard, body); err != nil {
		t.Fatal(err)
	}
	_, text, err := get("http://" + f.admin.addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{"up": true} // Prometheus' own
	for name, family := range families {
		names[name] = true
		if family.GetType().String() == "HISTOGRAM" {
			names[name+"_bucket"] = true
		}
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		f.metrics.Describe(descriptions)
	}()
	for d := range descriptions {
		names[described.FindStringSubmatch(d.String())[1]] = true
	}
	return names
}

var described = regexp.MustCompile(`fqName: "([a-z0-9_]+)"`)

var metricName = regexp.MustCompile(`\b(shoal|process)_[a-z0-9_]+|\bup\b`)

// TestMetricsThatOperatorsWatch: the dashboard and the alerts ask for what a node
// has.
func TestMetricsThatOperatorsWatch(t *testing.T) {
	has := exposed(t)
	for what, expressions := range map[string][]string{"alerts": alertExpressions(t), "dashboard": dashboardExpressions(t)} {
		if len(expressions) < 8 {
			t.Errorf("%s: %d expressions", what, len(expressions))
		}
		for _, expr := range expressions {
			names := metricName.FindAllString(expr, -1)
			if len(names) == 0 {
				t.Errorf("%s: %s asks for nothing of a node", what, expr)
			}
			for _, name := range names {
				if !has[name] {
					t.Errorf("%s: no node has %s, of %s", what, name, expr)
				}
			}
		}
	}
}

// TestWhatIsWatched: what operators set is seen in what comes of it.
func TestWhatIsWatched(t *testing.T) {
	all := strings.Join(append(dashboardExpressions(t), alertExpressions(t)...), "\n")
	for _, name := range []string{
		"shoal_p2p_other_zone_bytes_total", "shoal_limit_bytes_per_second", "shoal_limited_bytes_total",
		"shoal_p2p_relayed_bytes_total", "shoal_p2p_behind_nat", "shoal_seeder_images_total", "shoal_seeder_failing",
		"shoal_cache_size_bytes", "shoal_cache_excess_bytes", "shoal_cache_rotten_total", "shoal_cache_scrubbed_bytes_total",
		"shoal_upstream_offline", "shoal_proxy_stale_tags_total", "shoal_pulls_total",
	} {
		if !strings.Contains(all, name) {
			t.Errorf("nobody watches %s", name)
		}
	}
}

// TestAlerts: promtool knows the alerts, and each rises when it should.
func TestAlerts(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", alertsFile}, {"test", "rules", alertsTest}} {
		if out, err := runTool(t, "promtool", args...); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	tests, err := os.ReadFile(alertsTest)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, alert := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(string(tests), "alertname: "+alert[1]+"\n") {
			t.Errorf("%s is not tested", alert[1])
		}
	}
}

// TestDashboard: its expressions are Prometheus'.
func TestDashboard(t *testing.T) {
	panels := ruleGroup{Name: "dashboard"}
	for i, expr := range dashboardExpressions(t) {
		panels.Rules = append(panels.Rules, promRule{Record: fmt.Sprintf("panel:%d", i), Expr: expr})
	}
	text, err := yaml.Marshal(ruleFile{Groups: []ruleGroup{panels}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := runTool(t, "promtool", "check", "rules", path); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestUnit: systemd finds no fault in the unit, and little left to take away
// from it.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\nExecReload="); n != 1 {
		t.Errorf("a reload does %d things", n)
	}
	// What it starts is not installed here.
	unit := filepath.Join(t.TempDir(), "shoal.service")
	if err := os.WriteFile(unit, []byte(strings.Replace(string(text), "/usr/local/bin/shoal", "/bin/true", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := runTool(t, "systemd-analyze", "verify", "--man=no", unit); err != nil || out != "" {
		t.Errorf("verify: %v\n%s", err, out)
	}
	// In tenths; a unit without any of it has 96, and 13 is what network access costs.
	if out, err := runTool(t, "systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit); err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}
}

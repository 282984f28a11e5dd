//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/benchmarks/lab/report"
	"shoal/benchmarks/scenario"
)

// limited returns a run of one seeded and two cold nodes under limits.
func limited(limits scenario.Limits) *run {
	return &run{stage: &stage{scenario: &scenario.Scenario{Nodes: scenario.Nodes{Count: 3, Seeded: 1, Limits: limits}}}}
}

// What no limit is for is no part of what is compared with the limits.
func TestKept(t *testing.T) {
	begun := time.Now()
	from := links{at: begun, origin: 1000, seeded: 50, into: 10, uploaded: []int64{50, 0, 10}}
	to := links{at: begun.Add(10 * time.Second), origin: 5000, seeded: 30050, into: 34010, uploaded: []int64{30050, 9000, 1010}}
	for name, test := range map[string]struct {
		limits scenario.Limits
		want   report.Limits
	}{
		"uploads": {scenario.Limits{MaxUpload: 24000}, report.Limits{Supply: 3000, Sent: 3000, Received: 3000, MaxUpload: 3000, Uploaded: 3000}},
		"both":    {scenario.Limits{MaxUpload: 24000, MaxOrigin: 800}, report.Limits{Supply: 3200, Sent: 3400, Received: 3400, MaxUpload: 3000, Uploaded: 3000}},
	} {
		if got := limited(test.limits).kept(from, to); *got != test.want {
			t.Errorf("%s: %+v, want %+v", name, *got, test.want)
		}
	}
}

func TestNodesAreToldTheirLimits(t *testing.T) {
	r := limited(scenario.Limits{MaxUpload: 32e6, MaxOrigin: 16e6})
	if got := r.limits(); !slices.Equal(got, strings.Fields("--max-upload 32000kbit --max-origin 16000kbit")) {
		t.Errorf("arguments %v", got)
	}
	if got := limited(scenario.Limits{}).limits(); len(got) > 0 {
		t.Errorf("without limits %v", got)
	}
}

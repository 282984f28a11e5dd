package report

import (
	"fmt"
	"slices"

	"shoal/benchmarks/rig"
)

// Summary is of all runs of one contender on one scenario.
type Summary struct {
	Scenario, Contender string
	Runs, Failed        int // all, and those of them that failed
	Figures             map[Figure]rig.Spread
	Seconds             rig.Spread // makespan until everything is proven
	Others              float64
	Verdicts            []Verdict // of shoal only: the targets are its own
}

// Verdict says whether a target was reached.
type Verdict struct {
	Figure Figure
	Most   float64 // what the median may be
	Median float64
	Met    bool // false also if nothing could be measured
}

// String returns the verdict in words.
func (v Verdict) String() string {
	word := "MISSED"
	if v.Met {
		word = "met"
	}
	return fmt.Sprintf("%s %.3f of at most %.2f: %s", v.Figure, v.Median, v.Most, word)
}

// Shoal is the name of the contender to whom the targets apply.
const Shoal = "shoal"

// Summaries returns one for each scenario and contender of which there are
// runs: scenarios in their order, shoal first.
func (r *Results) Summaries() []Summary {
	var all []Summary
	for _, s := range r.Scenarios {
		contenders := []string{Shoal}
		for _, run := range r.Runs {
			if run.Scenario == s.Name && !slices.Contains(contenders, run.Contender) {
				contenders = append(contenders, run.Contender)
			}
		}
		slices.Sort(contenders[1:])
		for _, contender := range contenders {
			if summary := r.summary(s.Name, contender); summary.Runs > 0 {
				all = append(all, summary)
			}
		}
	}
	return all
}

// summary returns that of one contender on one scenario.
func (r *Results) summary(scenarioName, contender string) Summary {
	summary := Summary{Scenario: scenarioName, Contender: contender, Figures: map[Figure]rig.Spread{}}
	values := map[Figure][]float64{}
	var seconds []float64
	for _, run := range r.Runs {
		if run.Scenario != scenarioName || run.Contender != contender {
			continue
		}
		summary.Runs++
		if run.Error != "" {
			summary.Failed++
			continue
		}
		summary.Others = max(summary.Others, run.Load.Others)
		for _, f := range Figures() {
			value, ok := run.Figure(f)
			if !ok {
				continue
			}
			values[f] = append(values[f], value)
			if f == Proven {
				seconds = append(seconds, value*run.Bound())
			}
		}
	}
	for f, v := range values {
		summary.Figures[f] = rig.SpreadOf(v)
	}
	summary.Seconds = rig.SpreadOf(seconds)
	if contender == Shoal {
		for _, t := range r.Scenario(scenarioName).Targets.All() {
			spread := summary.Figures[Figure(t.Name)]
			met := spread.Count > 0 && spread.Median <= t.Most
			summary.Verdicts = append(summary.Verdicts, Verdict{Figure: Figure(t.Name), Most: t.Most, Median: spread.Median, Met: met})
		}
	}
	return summary
}

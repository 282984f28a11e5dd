package report

import (
	"fmt"
	"strings"

	"shoal/benchmarks/rig"
)

// plain is the name of the contender that pulls from the origin.
const plain = "direct"

// turnTable tells how long each turn took, and how often that goes into what a
// pull from the origin took at the same turn of the same round.
func (r *Results) turnTable(b *strings.Builder) {
	var rows strings.Builder
	for _, s := range r.Summaries() {
		for turn, node := range r.Scenario(s.Scenario).Arrivals.Turns {
			var seconds, factors []float64
			for _, run := range r.Runs {
				if run.Scenario != s.Scenario || run.Contender != s.Contender || run.Error != "" {
					continue
				}
				took := run.Turns[turn].Seconds
				seconds = append(seconds, took)
				if direct := r.plainTurn(&run, turn); direct > 0 {
					factors = append(factors, direct/took)
				}
			}
			fmt.Fprintf(&rows, "| %s | %s | %d | n%d | %v | %v |\n", s.Scenario, s.Contender, turn+1, node, rig.SpreadOf(seconds), rig.SpreadOf(factors))
		}
	}
	if rows.Len() > 0 {
		b.WriteString("\n## One after the other\n\nSeconds until the client has its last byte, and how many times as fast as a pull from the origin\n" +
			"at the same turn of the same round.\n\n| scenario | contender | turn | node | seconds | times as fast |\n|---|---|---|---|---|---|\n" + rows.String())
	}
}

// plainTurn returns the seconds of a turn of the pulls from the origin in the
// round of a run, or 0.
func (r *Results) plainTurn(of *Run, turn int) float64 {
	for _, run := range r.Runs {
		if run.Scenario == of.Scenario && run.Round == of.Round && run.Contender == plain && run.Error == "" {
			return run.Turns[turn].Seconds
		}
	}
	return 0
}

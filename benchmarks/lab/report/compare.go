package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"

	"shoal/benchmarks/rig"
)

// Simulated is what the simulator says of scenarios: seconds until the last
// node that counts has the image, by the scenario's name.
type Simulated map[string][]float64

// LoadSimulated reads the file that `benchmarks/sim --out` writes.
func LoadSimulated(file string) (Simulated, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var content struct {
		Runs []struct {
			Scenario struct{ Name string }
			Result   struct{ Makespan int64 } // in nanoseconds
		}
	}
	if err := json.Unmarshal(text, &content); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s := Simulated{}
	for _, run := range content.Runs {
		s[run.Scenario.Name] = append(s[run.Scenario.Name], float64(run.Result.Makespan)/1e9)
	}
	return s, nil
}

// agreement is how far the simulator may be from the lab (issue 3).
const agreement = 0.15

// Compare writes a table of shoal's makespans beside the simulator's.
func (r *Results) Compare(w io.Writer, simulated Simulated) error {
	if _, err := fmt.Fprintf(w, "## Simulator\n\nSeconds until the last node is done, medians; they should differ by %.0f %% at most.\n\n"+
		"| scenario | lab | simulator | difference | |\n|---|---|---|---|---|\n", 100*agreement); err != nil {
		return err
	}
	for _, s := range r.Summaries() {
		sim := rig.SpreadOf(simulated[s.Scenario])
		if s.Contender != Shoal || s.Seconds.Count == 0 || sim.Count == 0 {
			continue
		}
		difference := sim.Median/s.Seconds.Median - 1
		word := "met"
		if math.Abs(difference) > agreement {
			word = "**MISSED**"
		}
		if _, err := fmt.Fprintf(w, "| %s | %v | %v | %+.1f %% | %s |\n", s.Scenario, s.Seconds, sim, 100*difference, word); err != nil {
			return err
		}
	}
	return nil
}

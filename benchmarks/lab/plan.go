//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"shoal/benchmarks/lab/report"
	"shoal/benchmarks/scenario"
)

// plan is what is to be measured.
type plan struct {
	scenarios  []*scenario.Scenario
	contenders []contender // shoal first
	// named means that the contenders were named and play everything. Otherwise
	// shoal does, and the others play where a scenario has them as rivals.
	named    bool
	runs     int
	budget   time.Duration // of each contender on each scenario
	disk     bool          // data on disk, not in memory
	dockerds bool          // measure docker pull, too
	commit   string
	resumed  *report.Results // nil: new ones
	machines int             // that are needed at least
}

// dockerdHosts is how many dockerds pull at once.
const dockerdHosts = 6

// hosts returns how many machines are needed.
func (p *plan) hosts() int {
	most := p.machines
	if p.dockerds {
		most = 2 * dockerdHosts // with and without a mirror
	}
	for _, s := range p.scenarios {
		most = max(most, s.Nodes.Count)
	}
	return most
}

// zoneCount returns how many places are needed.
func (p *plan) zoneCount() int {
	most := 0
	for _, s := range p.scenarios {
		most = max(most, s.Nodes.Zones.Count)
	}
	return most
}

// playersOf returns who plays a scenario.
func (p *plan) playersOf(s *scenario.Scenario) []contender {
	if p.named {
		return p.contenders
	}
	var players []contender
	for _, c := range p.contenders {
		if c.name() == shoalName || slices.Contains(s.Rivals, c.name()) {
			players = append(players, c)
		}
	}
	return players
}

// needs returns the programs that are run.
func (p *plan) needs() []string {
	needs := []string{"nginx", "ip", "tc", "nsenter", "unshare", "mount"}
	for _, c := range p.contenders {
		needs = append(needs, c.needs()...)
	}
	if p.dockerds {
		needs = append(needs, dockerPrograms()...)
	}
	slices.Sort(needs)
	return slices.Compact(needs)
}

// perRun is about what setting up, looking at the result and cleaning up take.
const perRun = 3 * time.Second

// estimate guesses how long one run takes.
func estimate(s *scenario.Scenario, c contender) time.Duration {
	bound := float64(s.Bytes()) * 8 / float64(boundLink(s))
	if supply := s.Supply(); supply > 0 {
		bound = max(bound, float64(s.Bytes())*8/float64(supply))
	}
	crowd := time.Duration(bound * c.expect(s) * float64(time.Second))
	meter := min(meterTime, time.Duration(bound*float64(time.Second)))
	if s.Arrivals.StartsNode {
		return perRun + meter + s.Arrivals.Over + crowd
	}
	return perRun + max(meter, c.idle()) + s.Arrivals.Over + crowd
}

// estimateFrom guesses how long the scenarios from number first on take, and
// the dockerds.
func (p *plan) estimateFrom(first int) time.Duration {
	var sum time.Duration
	for _, s := range p.scenarios[first:] {
		for _, c := range p.playersOf(s) {
			one := estimate(s, c)
			rounds := min(p.runs, max(1, int(p.budget/one)))
			sum += time.Duration(rounds) * one
		}
	}
	if p.dockerds {
		sum += p.estimatePulls()
	}
	return sum
}

// pick returns those of the scenarios that are named, all if none is.
func pick(all []*scenario.Scenario, names []string) ([]*scenario.Scenario, error) {
	if len(names) == 0 {
		return all, nil
	}
	var picked []*scenario.Scenario
	for _, name := range names {
		i := slices.IndexFunc(all, func(s *scenario.Scenario) bool { return s.Name == name })
		if i < 0 {
			var known []string
			for _, s := range all {
				known = append(known, s.Name)
			}
			return nil, fmt.Errorf("no scenario %q: there are %s and %s", name, strings.Join(known, ", "), dockerdsName)
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}

// choose returns the contenders that are named; if none is, all that a scenario
// may have as rivals, and shoal.
func choose(all []contender, names []string, scenarios []*scenario.Scenario) ([]contender, error) {
	wanted := names
	if len(names) == 0 {
		wanted = []string{shoalName}
		for _, s := range scenarios {
			wanted = append(wanted, s.Rivals...)
		}
	}
	var chosen []contender
	for _, c := range all {
		if slices.Contains(wanted, c.name()) {
			chosen = append(chosen, c)
		}
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(c contender) bool { return c.name() == name }) {
			var known []string
			for _, c := range all {
				known = append(known, c.name())
			}
			return nil, fmt.Errorf("no contender %q: there are %s", name, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

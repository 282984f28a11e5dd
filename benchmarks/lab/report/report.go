// Package report holds what the lab measured, and turns it into medians, a
// verdict for each target, a table in Markdown and plots. It measures nothing
// and has no goroutines.
//
// What always holds: everything that is shown follows from the runs in the
// file, so that a report can be made again; a run that failed is counted and
// named, and never part of a median; a target that was missed is called that.
package report

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
)

// Results are all runs of the lab in one file.
type Results struct {
	Started time.Time   `json:"started"`
	Commit  string      `json:"commit"` // of the tree that was measured
	Machine rig.Machine `json:"machine"`
	// Versions of all programs that took part, by name.
	Versions map[string]string `json:"versions"`
	// Scenarios are those of the runs, as they were read, in their order.
	Scenarios []*scenario.Scenario `json:"scenarios"`
	Runs      []Run                `json:"runs"`
	Pulls     []Pull               `json:"pulls,omitempty"`
}

// Run is one image's way to all nodes of a scenario, by one contender. All
// times are seconds after the first client's request.
type Run struct {
	Scenario  string    `json:"scenario"`
	Contender string    `json:"contender"`
	Round     int       `json:"round"` // from 1 on
	Started   time.Time `json:"started"`
	Seconds   float64   `json:"seconds"` // all of it, with setting up and cleaning up
	Error     string    `json:"error,omitempty"`

	Bytes       int64    `json:"bytes"`           // of the image
	Goodput     float64  `json:"goodput"`         // of the plain download, in bytes per second
	OriginBytes int64    `json:"origin_bytes"`    // body bytes of blobs in the origin's log
	Zones       []int64  `json:"zones,omitempty"` // bytes that came into each zone, headers included
	Manifests   int      `json:"manifest_gets"`   // GET requests for manifests that the origin saw
	Nodes       []Node   `json:"nodes"`
	Turns       []Turn   `json:"turns,omitempty"`   // where nodes had some
	Relayed     *int64   `json:"relayed,omitempty"` // bytes that the relay carried, where there is one
	Limits      *Limits  `json:"limits,omitempty"`  // where there are some
	Load        rig.Load `json:"load"`
}

// Node is what one node did in a run.
type Node struct {
	Counts  bool    `json:"counts"` // for the targets
	Arrival float64 `json:"arrival"`
	Proven  float64 `json:"proven,omitempty"` // all of the image is whole and proven; 0: never
	Client  float64 `json:"client,omitempty"` // the client has its last byte; 0: never
	CPU     float64 `json:"cpu"`              // processor seconds of its program meanwhile
	Fate    string  `json:"fate,omitempty"`   // seeded, slow, killed, unplugged
}

// Turn is one client's pull where they pull one after the other.
type Turn struct {
	Node    int     `json:"node"`
	Seconds float64 `json:"seconds"` // until its last byte
}

// Limits are rates in bytes a second while limits were to be kept: payload that
// was to move, and all bytes that moved over the links of those that sent and
// those that received, headers included.
type Limits struct {
	Supply   float64 `json:"supply"` // to the cold nodes together
	Sent     float64 `json:"sent"`
	Received float64 `json:"received"`
	// MaxUpload is the limit of each node, 0 if it has none, and Uploaded what the
	// one that sent most has sent.
	MaxUpload float64 `json:"max_upload"`
	Uploaded  float64 `json:"uploaded"`
}

// off returns by which share the rates were off the limit. Nobody has to upload
// all that it may.
func (l *Limits) off() float64 {
	off := max(math.Abs(l.Sent/l.Supply-1), math.Abs(l.Received/l.Supply-1))
	if l.MaxUpload > 0 {
		off = max(off, l.Uploaded/l.MaxUpload-1)
	}
	return off
}

// Pull is one round of dockerds that pull a real image at once.
type Pull struct {
	Way     string    `json:"way"`
	Round   int       `json:"round"`
	Error   string    `json:"error,omitempty"`
	Bytes   int64     `json:"bytes"`   // of the image
	Seconds []float64 `json:"seconds"` // of each dockerd
	Copies  float64   `json:"copies"`
}

// Bound returns the shortest time in seconds that the run can take: the image's
// bytes by the goodput of a plain download, or by what limits let come. Where
// nodes are seeded, two processors cannot be beaten either (scenario.Targets).
func (r *Run) Bound() float64 {
	if r.Goodput <= 0 {
		return 0
	}
	bound := float64(r.Bytes) / r.Goodput
	if r.Limits != nil {
		bound = max(bound, float64(r.Bytes)/r.Limits.Supply)
	}
	for _, n := range r.Nodes {
		if n.Fate == Seeded && r.Load.CPUs > 0 {
			return max(bound, r.CPU()/float64(r.Load.CPUs))
		}
	}
	return bound
}

// Fates of nodes.
const (
	Seeded    = "seeded"
	Slow      = "slow"
	Killed    = "killed"
	Unplugged = "unplugged"
)

// CPU returns the processor seconds of all nodes' programs.
func (r *Run) CPU() float64 {
	var sum float64
	for _, n := range r.Nodes {
		sum += n.CPU
	}
	return sum
}

// Figure names a figure of a run, as targets do.
type Figure string

// The figures.
const (
	Proven Figure = "proven" // makespan until the last node's image is proven, by the bound
	Client Figure = "client" // the same until the last client's last byte
	Copies Figure = "copies" // of the image that left the origin
	Zone   Figure = "zone"   // of the image that came into the zone that most came into, headers included
	CPU    Figure = "cpu"    // processor seconds per gigabyte delivered

	Later   Figure = "later"   // the longest turn but the first, by the bound
	Relayed Figure = "relayed" // bytes that the relay carried, by the image's
	Limit   Figure = "limit"   // by which share rates were off their limit
)

// Figures returns all of them in the order in which they are shown.
func Figures() []Figure {
	return []Figure{Proven, Client, Copies, Zone, CPU, Later, Relayed, Limit}
}

// Figure returns one of the run's figures. There is none of a run that failed.
func (r *Run) Figure(f Figure) (value float64, ok bool) {
	if r.Error != "" || r.Bytes == 0 || r.Bound() == 0 {
		return 0, false
	}
	var proven, client float64
	delivered := 0
	for _, n := range r.Nodes {
		if n.Proven > 0 {
			delivered++
		}
		if n.Counts {
			proven, client = max(proven, n.Proven-n.Arrival), max(client, n.Client-n.Arrival)
		}
	}
	switch f {
	case Proven:
		return proven / r.Bound(), proven > 0
	case Client:
		return client / r.Bound(), client > 0
	case Copies:
		return float64(r.OriginBytes) / float64(r.Bytes), true
	case Zone:
		if len(r.Zones) == 0 {
			return 0, false
		}
		return float64(slices.Max(r.Zones)) / float64(r.Bytes), true
	case CPU:
		return r.CPU() / (float64(delivered) * float64(r.Bytes) / 1e9), delivered > 0
	}
	return r.special(f)
}

// special returns a figure that only some scenarios have.
func (r *Run) special(f Figure) (value float64, ok bool) {
	switch {
	case f == Later && len(r.Turns) > 1:
		for _, t := range r.Turns[1:] {
			value = max(value, t.Seconds)
		}
		return value / r.Bound(), true
	case f == Relayed && r.Relayed != nil:
		return float64(*r.Relayed) / float64(r.Bytes), true
	case f == Limit && r.Limits != nil:
		return r.Limits.off(), true
	}
	return 0, false
}

// Scenario returns the scenario of a name, or nil.
func (r *Results) Scenario(name string) *scenario.Scenario {
	for _, s := range r.Scenarios {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Save writes the results to a file, over an older version of it.
func (r *Results) Save(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	// A program that is killed meanwhile must not leave half of the runs.
	if err := os.WriteFile(file+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// LoadFile reads results from a file.
func LoadFile(file string) (*Results, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &Results{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

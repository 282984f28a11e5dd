// Package scenario describes what a crowd is measured on: how many nodes on
// which links, what the origin is like, which image they want, when they start,
// what goes wrong, and what has to come out. A scenario is a YAML file; the lab
// (benchmarks/lab) plays it with real programs, the simulator (benchmarks/sim)
// with the planner on virtual time, so that their figures can be compared.
//
// The package runs nothing and has no goroutines. What always holds: a Scenario
// that Parse returned makes sense (there is an image, shares are shares, every
// node has a link), and which node arrives when, is slow or dies follows from
// the file alone, so that every contender is treated alike.
//
// Nodes are numbered from 0: first the seeded ones, then the cold ones in the
// order of their arrival. Faults take their victims from the end, slow nodes
// are the first cold ones.
package scenario

import (
	"math"
	"time"
)

// Scenario is one file. Load says how it is written.
type Scenario struct {
	// Name is a short word, with which results and plots name it.
	Name string `yaml:"name" json:"name"`
	// Purpose says in a sentence what it is for.
	Purpose string `yaml:"purpose" json:"purpose"`

	Nodes  Nodes  `yaml:"nodes" json:"nodes"`
	Origin Origin `yaml:"origin" json:"origin"`
	Image  Image  `yaml:"image" json:"image"`
	// Latency passes between any two machines, one way. Only the simulator
	// has it: kernels without netem cannot delay packets, so the lab plays no
	// scenario with a latency, and what it plays has its own of about 0.1 ms.
	Latency  time.Duration `yaml:"latency" json:"latency"`
	Arrivals Arrivals      `yaml:"arrivals" json:"arrivals"`
	Faults   Faults        `yaml:"faults" json:"faults"`
	Targets  Targets       `yaml:"targets" json:"targets"`
	// Rivals are what the lab measures beside shoal, unless it is told what:
	// names of its contenders.
	Rivals []string `yaml:"rivals" json:"rivals"`
}

// Nodes are the machines.
type Nodes struct {
	// Count is all of them, the seeded ones too.
	Count int `yaml:"count" json:"count"`
	// Link is the rate of each one's link, in each direction.
	Link Rate `yaml:"link" json:"link"`
	// Zones are the places that they are in.
	Zones Zones `yaml:"zones" json:"zones"`
	// Seeded is how many of them hold the whole image before it begins.
	Seeded int `yaml:"seeded" json:"seeded"`
	// Slow are some of the cold ones, on worse links.
	Slow Slow `yaml:"slow" json:"slow"`
	// NAT puts each behind a router of its own that lets nobody in, and a
	// relay where all reach it. Its link is the router's.
	NAT NAT `yaml:"nat" json:"nat"`
	// Limits are what each is told to keep to, whatever its link.
	Limits Limits `yaml:"limits" json:"limits"`
}

// NAT is what routers do with ports; empty is no router.
type NAT string

// What routers do.
const (
	KeepsPorts   NAT = "keeps-ports"   // others can be told where to dial
	ChangesPorts NAT = "changes-ports" // another one for each connection
)

// Limits are rates of payload, 0 for none. Those that are set are to be what the
// crowd has to wait for: MaxUpload where nodes are seeded.
type Limits struct {
	MaxUpload Rate `yaml:"max-upload" json:"max_upload"` // to other nodes
	MaxOrigin Rate `yaml:"max-origin" json:"max_origin"` // from the origin
}

// Zones are places with a link of their own to everywhere else: node i is in
// zone i modulo Count. Without a Count there is one place, and no such link.
type Zones struct {
	Count int  `yaml:"count" json:"count"`
	Link  Rate `yaml:"link" json:"link"`
	// Apart zones reach the origin, and not each other.
	Apart bool `yaml:"apart" json:"apart"`
}

// Slow says how many of the cold nodes have a worse link, and which.
type Slow struct {
	Share float64 `yaml:"share" json:"share"`
	Link  Rate    `yaml:"link" json:"link"`
}

// Origin is the registry.
type Origin struct {
	// Link is the rate of its link, in each direction.
	Link Rate `yaml:"link" json:"link"`
	// IgnoresRange makes it answer every GET with the whole blob.
	IgnoresRange bool `yaml:"ignores-range" json:"ignores-range"`
}

// Image is what the nodes want.
type Image struct {
	// Layers are the sizes of its blobs, in the order in which clients ask.
	Layers []Size `yaml:"layers" json:"layers"`
	// Parallel is how many blobs a client asks for at once; 0 is 3, as dockerd
	// does.
	Parallel int `yaml:"parallel" json:"parallel"`
}

// Arrivals say when clients begin.
type Arrivals struct {
	// Over is the time over which the cold nodes' clients begin, evenly: the
	// first at its start, the last at its end. Zero is all at once.
	Over time.Duration `yaml:"over" json:"over"`
	// StartsNode means that the process on a cold node only starts when its
	// client is there. Otherwise all have been idle and connected for 10 s.
	StartsNode bool `yaml:"starts-node" json:"starts-node"`
	// Turns are nodes whose clients begin one after the other, each when the
	// image is whole and proven where it was wanted before. A node may have more
	// than one. Without turns each cold node has one, when it arrives.
	Turns []int `yaml:"turns" json:"turns"`
}

// Faults are what goes wrong. Kill and Unplug take their victims from the cold
// nodes that the others left.
type Faults struct {
	// Kill ends nodes as a power cut of the process does: connections break.
	Kill Fault `yaml:"kill" json:"kill"`
	// Unplug takes nodes off the network: nobody is told.
	Unplug Fault `yaml:"unplug" json:"unplug"`
	// Lie makes nodes send wrong bytes for every piece. Only the simulator has
	// it.
	Lie float64 `yaml:"lie" json:"lie"`
}

// Fault hits a share of the cold nodes, evenly between two moments, which are
// shares of the bound (Targets) after the first client's request.
type Fault struct {
	Share float64 `yaml:"share" json:"share"`
	From  float64 `yaml:"from" json:"from"`
	// Until is From if it is zero: all at once.
	Until float64 `yaml:"until" json:"until"`
}

// Targets are what has to come out, as medians. Those that are nil are not
// asked for. Times are shares of the bound: the image's bytes divided by the
// goodput of one plain download. With a seeded node that is a download from
// another node, else one from the origin; and no bound is shorter than the
// processor seconds that the nodes used, divided by the processors, where a
// node is seeded. The clock starts with the first client's request (of each
// node where arrivals are spread over time). Nodes that are slow, lie or fail
// do not count.
type Targets struct {
	// Proven is when the last node has all of the image whole and proven.
	Proven *float64 `yaml:"proven" json:"proven"`
	// Client is when the last client has its last byte.
	Client *float64 `yaml:"client" json:"client"`
	// Copies is the body bytes that left the origin, by the image's bytes.
	Copies *float64 `yaml:"copies" json:"copies"`
	// Zone is what entered the zone that most entered over its link, all told,
	// by the image's bytes.
	Zone *float64 `yaml:"zone" json:"zone"`
	// CPU is processor seconds of all nodes' programs per gigabyte delivered.
	CPU *float64 `yaml:"cpu" json:"cpu"`
	// Later is the longest that a client took whose turn was not the first.
	Later *float64 `yaml:"later" json:"later"`
	// Relayed is the bytes that the relay carried, by the image's.
	Relayed *float64 `yaml:"relayed" json:"relayed"`
	// Limit is by which share rates over ten seconds were off their limit,
	// counted on the links.
	Limit *float64 `yaml:"limit" json:"limit"`
}

// Target is one of the Targets: a figure and the most that it may be.
type Target struct {
	Name string // as it stands in the file
	Most float64
}

// All returns the targets that are asked for.
func (t Targets) All() []Target {
	var all []Target
	for _, each := range []struct {
		name string
		most *float64
	}{{"proven", t.Proven}, {"client", t.Client}, {"copies", t.Copies}, {"zone", t.Zone}, {"cpu", t.CPU}, {"later", t.Later}, {"relayed", t.Relayed}, {"limit", t.Limit}} {
		if each.most != nil {
			all = append(all, Target{Name: each.name, Most: *each.most})
		}
	}
	return all
}

// defaultParallel is what dockerd does.
const defaultParallel = 3

// Bytes returns the size of the image.
func (s *Scenario) Bytes() int64 {
	var sum int64
	for _, l := range s.Image.Layers {
		sum += int64(l)
	}
	return sum
}

// Cold returns how many nodes begin with nothing.
func (s *Scenario) Cold() int { return s.Nodes.Count - s.Nodes.Seeded }

// Arrival returns when the client of the node begins, after the first one.
// Seeded nodes have none and return zero.
func (s *Scenario) Arrival(node int) time.Duration {
	if s.Cold() < 2 || node < s.Nodes.Seeded {
		return 0
	}
	return s.Arrivals.Over * time.Duration(node-s.Nodes.Seeded) / time.Duration(s.Cold()-1)
}

// Link returns the rate of the node's link.
func (s *Scenario) Link(node int) Rate {
	if s.slow(node) {
		return s.Nodes.Slow.Link
	}
	return s.Nodes.Link
}

func (s *Scenario) slow(node int) bool {
	cold := node - s.Nodes.Seeded
	return cold >= 0 && cold < s.of(s.Nodes.Slow.Share)
}

// of returns how many cold nodes a share of them is.
func (s *Scenario) of(share float64) int { return int(math.Round(share * float64(s.Cold()))) }

// Lies tells whether the node sends wrong bytes.
func (s *Scenario) Lies(node int) bool {
	end := s.Nodes.Count - s.of(s.Faults.Kill.Share) - s.of(s.Faults.Unplug.Share)
	return node < end && node >= end-s.of(s.Faults.Lie)
}

// Killed returns when the node is killed, as a share of the bound.
func (s *Scenario) Killed(node int) (at float64, killed bool) {
	return s.victim(s.Faults.Kill, s.Nodes.Count, node)
}

// Unplugged returns when the node is taken off the network, as a share of the
// bound.
func (s *Scenario) Unplugged(node int) (at float64, unplugged bool) {
	return s.victim(s.Faults.Unplug, s.Nodes.Count-s.of(s.Faults.Kill.Share), node)
}

// victim tells when the fault hits the node. Its victims are the last ones
// below end.
func (s *Scenario) victim(f Fault, end, node int) (at float64, hit bool) {
	count := s.of(f.Share)
	first := end - count
	if node < first || node >= end {
		return 0, false
	}
	if count < 2 || f.Until <= f.From {
		return f.From, true
	}
	return f.From + (f.Until-f.From)*float64(node-first)/float64(count-1), true
}

// Counts tells whether what the node does counts for the targets: it is cold
// and neither slow, lying nor a victim of a fault.
func (s *Scenario) Counts(node int) bool {
	_, killed := s.Killed(node)
	_, unplugged := s.Unplugged(node)
	return node >= s.Nodes.Seeded && !killed && !unplugged && !s.slow(node) && !s.Lies(node)
}

// SimulatorOnly returns why the lab cannot play the scenario, or nothing.
func (s *Scenario) SimulatorOnly() string {
	const most = 24 // each a real process and a network namespace on one computer
	switch {
	case s.Latency > 0:
		return "it has a latency, and this kernel can delay no packets"
	case s.Faults.Lie > 0:
		return "real programs do not lie"
	case s.Nodes.Count > most:
		return "it has too many nodes for one computer"
	}
	return ""
}

// LabOnly returns why the simulator cannot play the scenario, or nothing.
func (s *Scenario) LabOnly() string {
	switch {
	case s.InTurn():
		return "it has turns, and the simulator's nodes fetch once"
	case s.Nodes.NAT != "":
		return "it has NAT, and in the simulator all reach all"
	case s.Nodes.Limits != Limits{}:
		return "it has limits, and the simulator's nodes keep to none"
	}
	return ""
}

// InTurn tells whether the clients begin one after the other.
func (s *Scenario) InTurn() bool { return len(s.Arrivals.Turns) > 0 }

// Supply returns the rate at which limits let payload come to the cold nodes; 0
// if there are none.
func (s *Scenario) Supply() Rate {
	return Rate(s.Cold())*s.Nodes.Limits.MaxOrigin + Rate(s.Nodes.Seeded)*s.Nodes.Limits.MaxUpload
}

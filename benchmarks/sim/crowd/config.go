package crowd

import (
	"errors"
	"fmt"
	"math"
	"time"

	"shoal/p2p/plan"
)

// Config is a crowd and what happens to it. Rates are in bytes a second.
type Config struct {
	// Machines are the nodes.
	Machines []Machine
	// Pieces of PieceSize bytes are the blob.
	Pieces    int
	PieceSize int64
	// Origin is the origin's rate; 0 means that there is none.
	Origin float64
	// Zones are the places that the machines are in, machine i in zone i modulo
	// Zones; 0 is one place without a link of its own. What passes between two of
	// them, or comes from the origin, shares the link of each, which has the rate
	// Uplink in each direction. With Apart machines reach no other zone.
	Zones  int
	Uplink float64
	Apart  bool
	// Latency is the time from one machine to another, one way.
	Latency time.Duration
	// NoRange is an origin that answers every request with the whole blob.
	NoRange bool
	// Cold processes know no members when their fill starts.
	Cold bool
	// Seed decides everything that is random.
	Seed uint64

	// Chunk is what an uplink sends of one request before it is the turn of
	// the next, in bytes.
	Chunk int64
	// Buffer is what may wait for a downlink, in bytes.
	Buffer int64
	Costs  Costs
	Tuning plan.Tuning
}

// Machine is one node of a crowd and its fate.
type Machine struct {
	// Link is the rate in each direction.
	Link float64
	// Start is when its fill starts.
	Start time.Duration
	// Seeded machines have the blob from the beginning, and no fill.
	Seeded bool
	// Liar answers with wrong bytes.
	Liar bool
	// Dies is when it goes; 0 is never. Nobody is told if it is Silent: no
	// connection breaks, but nothing comes any more.
	Dies   time.Duration
	Silent bool
	// Aside machines do not count for the makespan, as those that die or lie.
	Aside bool
}

// Costs are the figures of the discovery model. What is not decided by the
// code of the node was measured: see the comments.
type Costs struct {
	// Handshake is the processor time of a new connection at either end: 4.7
	// ms for both (measured), on two processors.
	Handshake time.Duration
	// HandshakeTrips is the number of round trips before the first request on
	// a new connection: TCP, TLS, proof of membership.
	HandshakeTrips int
	// Connected is how many members a node is connected to, on average.
	Connected int
	// Spare is how many members it goes on to know about, to replace others.
	Spare int
	// Degrees are those of the node.
	plan.Degrees
	// Tell is the least time between two messages to a follower, Heartbeat
	// the most while bytes come from the origin.
	Tell, Heartbeat time.Duration
	// Provide and ProvideTrips are the processor time and the round trips of
	// an announcement, Lookup and LookupTrips of a lookup, without the new
	// connections: one for a lookup, three for an announcement.
	Provide, Lookup           time.Duration
	ProvideTrips, LookupTrips int
	// Holders is the number of nodes that hold a record, and HolderWork the
	// processor time of each that a new visitor costs.
	Holders    int
	HolderWork time.Duration
	// Hold is how long the origin is left alone at the start of a fill, for
	// members to be found.
	Hold time.Duration
	// Requests is the number of requests to members that a node has memory
	// for, OriginRequests to the origin.
	Requests, OriginRequests int
	// Coalesce is how long a node waits for more states before it looks at
	// its plan again. It spares the simulator work; the real node waits as
	// long as its processor is busy.
	Coalesce time.Duration
}

// Gbit is a rate of 1 Gbit/s, in bytes a second.
const Gbit = 1e9 / 8

// Default returns the crowd that the targets are about: machines and origin at
// 1 Gbit/s, 2 ms between them, 1,000 pieces, all cold at once.
func Default(nodes int) Config {
	c := Config{
		Machines: make([]Machine, nodes), Pieces: 1000, PieceSize: 1 << 20,
		Origin: Gbit, Latency: 2 * time.Millisecond, Seed: 1,
		Chunk: 256 << 10, Buffer: 1 << 20, Costs: DefaultCosts(), Tuning: plan.Defaults(),
	}
	for i := range c.Machines {
		c.Machines[i].Link = Gbit
	}
	return c
}

// DefaultCosts returns the figures that simulations run with.
func DefaultCosts() Costs {
	return Costs{
		Handshake: 1200 * time.Microsecond, HandshakeTrips: 3,
		Connected: 64, Spare: 64, Degrees: plan.DefaultDegrees(),
		Tell: 10 * time.Millisecond, Heartbeat: 250 * time.Millisecond,
		Provide: 8 * time.Millisecond, ProvideTrips: 4, Lookup: time.Millisecond, LookupTrips: 3,
		Holders: 20, HolderWork: 1200 * time.Microsecond,
		Hold: 120 * time.Millisecond, Requests: 48, OriginRequests: 16,
		Coalesce: 2 * time.Millisecond,
	}
}

// check reports what makes no sense.
func (c *Config) check() error {
	if c.Pieces < 1 || c.PieceSize < 1 || c.Chunk < 1 || c.Origin < 0 || c.Latency < 0 {
		return errors.New("a crowd needs pieces and chunks, and no rate or latency is negative")
	}
	if c.Zones < 0 || c.Zones > 0 && c.Uplink <= 0 {
		return errors.New("zones need a link")
	}
	counting, sources := 0, 0
	for i, m := range c.Machines {
		if m.Link <= 0 {
			return fmt.Errorf("machine %d has no link", i)
		}
		switch {
		case m.Seeded && m.Dies == 0 && !m.Liar:
			sources++
		case m.counts():
			counting++
		}
	}
	if counting == 0 {
		return errors.New("no machine counts")
	}
	if c.Origin == 0 && sources == 0 {
		return errors.New("there is neither an origin nor a machine that keeps the blob")
	}
	return nil
}

// size is the length of the blob.
func (c *Config) size() int64 { return int64(c.Pieces) * c.PieceSize }

// Bound returns the time that no protocol can beat: each piece has to leave
// the origin, or those that have it at the start, and to enter each machine
// that counts. That whatever enters must leave somewhere adds nothing: links
// have the same rate in both directions.
func (c *Config) Bound() time.Duration {
	size, sources, down := float64(c.size()), c.Origin, math.Inf(1)
	for _, m := range c.Machines {
		if m.Seeded && !m.Liar {
			sources += m.Link
		}
		if m.counts() {
			down = min(down, m.Link)
		}
	}
	if c.Zones > 0 {
		down = min(down, c.Uplink)
		if c.Apart {
			sources /= float64(c.Zones) // a copy for each
		}
	}
	return time.Duration(1e9 * max(size/sources, size/down))
}

// counts reports whether the makespan waits for the machine.
func (m *Machine) counts() bool { return !m.Seeded && !m.Liar && !m.Aside && m.Dies == 0 }

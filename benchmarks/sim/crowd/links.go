package crowd

import (
	"time"

	"shoal/p2p/plan"
)

// Slow uplinks send smaller chunks: one takes no longer than chunkTime, if it has
// more than minChunk bytes.
const (
	chunkTime = 4 * time.Millisecond
	minChunk  = 16 << 10
)

// uplink sends chunks of the requests that wait on it, turn by turn.
type uplink struct {
	rate  float64 // bytes a second
	busy  bool
	used  int64 // nanoseconds for which it was
	ring  ring
	bytes int64 // sent
}

// downlink passes on chunks in the order of their arrival.
type downlink struct {
	rate   float64 // bytes a second
	free   int64   // when everything that is on its way in will have passed
	parked ring    // transfers that wait for it
	bytes  int64   // that passed
}

// ring is a queue of transfers.
type ring struct {
	items       []int32
	first, size int
}

func (r *ring) push(t int32) {
	if r.size == len(r.items) {
		grown := make([]int32, max(4, 2*r.size))
		for i := range r.size {
			grown[i] = r.items[(r.first+i)%len(r.items)]
		}
		r.items, r.first = grown, 0
	}
	r.items[(r.first+r.size)%len(r.items)] = t
	r.size++
}

func (r *ring) pop() int32 {
	t := r.items[r.first]
	r.first = (r.first + 1) % len(r.items)
	r.size--
	return t
}

// transfer is a request on its way and its answer.
type transfer struct {
	id     plan.ID
	asker  int32
	server int32
	first  int32 // piece
	count  int32
	piece  int32 // that comes next at the asker
	refs   int32 // events and rings that hold it
	sent   int64 // bytes that left the server
	got    int64 // bytes that passed the downlink
	size   int64
	open   bool  // the asker waits for it
	slot   int32 // among the asker's transfers
}

// begin starts a transfer and returns its number.
func (w *world) begin(n *node, server int32, r plan.Request) int32 {
	var i int32
	if l := len(w.freed); l > 0 {
		i = w.freed[l-1]
		w.freed = w.freed[:l-1]
	} else {
		i = int32(len(w.transfers))
		w.transfers = append(w.transfers, transfer{})
	}
	w.transfers[i] = transfer{
		id: r.ID, asker: n.id, server: server, first: int32(r.First), count: int32(r.Count), piece: int32(r.First),
		size: int64(r.Count) * w.cfg.PieceSize, open: true, slot: int32(len(n.transfers)),
	}
	n.transfers = append(n.transfers, i)
	return i
}

// close ends a transfer for its asker. What is on its way comes, and is wasted.
func (w *world) close(i int32) {
	t := &w.transfers[i]
	if !t.open {
		return
	}
	t.open = false
	n := &w.nodes[t.asker]
	last := n.transfers[len(n.transfers)-1]
	n.transfers[t.slot] = last
	w.transfers[last].slot = t.slot
	n.transfers = n.transfers[:len(n.transfers)-1]
	if t.server == origin {
		n.toOrigin--
	} else {
		n.toMembers--
	}
	w.unref(i)
}

// hold and unref count what refers to a transfer, so that its place is used
// again when nothing does.
func (w *world) hold(i int32) int32 {
	w.transfers[i].refs++
	return i
}

func (w *world) unref(i int32) {
	t := &w.transfers[i]
	if t.refs--; t.refs == 0 {
		w.freed = append(w.freed, i)
	}
}

func (w *world) handleTransfer(e *event) {
	switch e.kind {
	case evArrive:
		w.arrive(e.a)
	case evSent:
		w.sentChunk(e.b, int64(e.c))
	case evDrained:
		w.drained(e.a, int64(e.c))
	}
}

// arrive hands a request to its server.
func (w *world) arrive(i int32) {
	t := &w.transfers[i]
	if !t.open {
		w.unref(i)
		return
	}
	if t.server != origin && w.nodes[t.server].dead {
		w.unref(i) // silence, or the connection breaks: die has seen to that
		return
	}
	if t.server == origin && w.cfg.NoRange {
		t.first, t.count, t.size = 0, int32(w.cfg.Pieces), w.cfg.size()
		t.piece = 0
	}
	up := w.uplink(t.server, t.asker)
	up.ring.push(i) // keeps the reference
	w.serve(up)
}

// serve sends the next chunk of an uplink that has nothing to do.
func (w *world) serve(up *uplink) {
	if up.busy {
		return
	}
	for up.ring.size > 0 {
		i := up.ring.pop()
		t := &w.transfers[i]
		if !t.open || t.server != origin && w.nodes[t.server].dead {
			w.unref(i)
			continue
		}
		to := w.downlink(t.server, t.asker)
		if to.free-w.now-int64(w.cfg.Latency) > int64(float64(w.cfg.Buffer)/to.rate*1e9) {
			to.parked.push(i)
			continue
		}
		n := min(w.cfg.Chunk, max(minChunk, int64(up.rate*chunkTime.Seconds())), w.cfg.PieceSize-t.sent%w.cfg.PieceSize, t.size-t.sent)
		up.busy = true
		took := int64(float64(n) / up.rate * 1e9)
		up.used += took
		up.bytes += n
		w.push(event{at: w.now + took, kind: evSent, b: i, c: int32(n)})
		return
	}
}

// sentChunk puts a chunk that has left the uplink into the asker's downlink.
func (w *world) sentChunk(i int32, n int64) {
	t := &w.transfers[i]
	server := t.server
	up := w.uplink(server, t.asker)
	up.busy = false
	if server != origin && w.nodes[server].dead {
		w.unref(i)
		w.serve(up)
		return
	}
	t.sent += n
	if server == origin {
		piece := int(t.first) + int((t.sent-1)/w.cfg.PieceSize)
		w.left(piece, n, (t.sent-n)%w.cfg.PieceSize == 0, t.sent%w.cfg.PieceSize == 0)
	}
	if t.open {
		to := w.downlink(server, t.asker)
		arrives := w.now + int64(w.cfg.Latency)
		done := max(arrives, to.free+int64(float64(n)/to.rate*1e9))
		w.nodes[t.asker].idle(w, to, done, n)
		to.free = done
		to.bytes += n
		w.push(event{at: done, kind: evDrained, a: w.hold(i), c: int32(n)})
	}
	if t.open && t.sent < t.size {
		up.ring.push(i)
	} else {
		w.unref(i)
	}
	w.serve(up)
}

// drained hands a chunk to the asker.
func (w *world) drained(i int32, n int64) {
	t := &w.transfers[i]
	to := &w.nodes[t.asker]
	w.unpark(w.downlink(t.server, t.asker))
	if t.open && !to.dead {
		to.received(w, i, n)
	} else {
		w.counters.Wasted += n
	}
	w.unref(i)
}

// unpark lets a sender go on that waited for the downlink.
func (w *world) unpark(to *downlink) {
	for to.parked.size > 0 {
		i := to.parked.pop()
		t := &w.transfers[i]
		if !t.open || t.server != origin && w.nodes[t.server].dead {
			w.unref(i)
			continue
		}
		up := w.uplink(t.server, t.asker)
		up.ring.push(i)
		w.serve(up)
		return
	}
}

// hangUp closes all transfers of a node, and lets go of a sender that waits
// for its downlink.
func (w *world) hangUp(n *node) {
	for len(n.transfers) > 0 {
		w.close(n.transfers[0])
	}
	w.unpark(&n.down)
	if w.cfg.Zones > 0 {
		w.unpark(&w.sites[w.zone(n.id)].down)
	}
}

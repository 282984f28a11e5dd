package crowd

// kind says what an event is about, and with it the meaning of its fields.
type kind uint8

const (
	evStart    kind = iota // node a starts its fill
	evNext                 // node a looks at its plan: states came
	evWake                 // node a looks at its plan: its time has come
	evTell                 // node a tells its state
	evTold                 // what node a told, snapshot b, arrives
	evMeet                 // node a is connected to b from now on
	evAim                  // node a may ask the origin
	evKnock                // a connection of node b for transfer c (or to follow: -1) reaches node a
	evFollow               // node a is asked by b to be followed
	evAnswer               // b's answer to a: snapshot c, or none (-1)
	evProvided             // the record of node a is in the DHT
	evLook                 // lookup b of node a begins
	evServed               // lookup b of node a is answered by the holders
	evFound                // the answer, c records, arrives
	evArrive               // transfer a reaches its server
	evSent                 // a chunk of transfer b, c bytes, has been sent
	evDrained              // a chunk of transfer a, c bytes, has passed the downlink
	evDie                  // node a dies
	evBroken               // node a notices that b has gone
)

// event is something that happens at a time. It holds no pointers: there are
// millions of them, and the garbage collector need not look.
type event struct {
	at      int64 // nanoseconds
	seq     uint64
	kind    kind
	a, b, c int32
}

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.seq < o.seq
}

// queue is a heap of events with four children to a node: half the depth of a
// binary one, and the children share cache lines.
type queue struct {
	heap []event
	seq  uint64
}

func (q *queue) push(e event) {
	q.seq++
	e.seq = q.seq
	q.heap = append(q.heap, e)
	h := q.heap
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
}

// pop returns the earliest event; events of the same time in the order in
// which they were pushed. The queue must not be empty.
func (q *queue) pop() event {
	h := q.heap
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	q.heap = h
	i := 0
	for {
		first := 4*i + 1
		if first >= len(h) {
			break
		}
		best := first
		for j := first + 1; j < min(first+4, len(h)); j++ {
			if h[j].before(&h[best]) {
				best = j
			}
		}
		if !h[best].before(&last) {
			break
		}
		h[i] = h[best]
		i = best
	}
	if len(h) > 0 {
		h[i] = last
	}
	return top
}

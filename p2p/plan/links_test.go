package plan

import "time"

// link sends chunks of the transfers in its queue, turn by turn.
type link struct {
	rate  float64 // bytes a second
	queue []*haul
	busy  bool
	free  time.Duration // of a downlink: when what was sent has arrived
}

// haul is a request on its way.
type haul struct {
	to   *peer
	from *peer // nil for the origin
	*transfer
	lies bool
}

// serve puts a request into the queue of a link.
func (c *crowd) serve(l *link, h *haul) {
	if h.from == nil {
		ranged := !c.unranged
		if !ranged {
			h.First, h.Count, h.piece = 0, c.pieces, 0
		}
		c.at(c.now+c.delay, func() {
			if h.gone() {
				return
			}
			h.to.plan.Answered(c.now, h.ID, ranged)
			h.to.tell()
			h.to.next()
		})
	}
	l.queue = append(l.queue, h)
	c.send(l)
}

func (h *haul) gone() bool { return h.to.dead || h.to.open[h.ID] == nil }

func (c *crowd) send(l *link) {
	for !l.busy && len(l.queue) > 0 {
		h := l.queue[0]
		l.queue = l.queue[1:]
		if h.gone() || h.from != nil && h.from.dead {
			continue
		}
		// TCP holds back what a downlink cannot take.
		d := &h.to.down
		if at := d.free - spent(testPiece, d.rate); at > c.now {
			c.at(at, func() {
				l.queue = append(l.queue, h)
				c.send(l)
			})
			continue
		}
		l.busy = true
		// Slow links take turns more often.
		n := min(chunk, max(chunk/8, int64(min(l.rate, d.rate)/40)), h.to.plan.bytes(h.piece, 1)-h.at)
		if h.from == nil {
			c.bytes += n
		} else if c.sent != nil {
			c.sent(h.from, n)
		}
		h.at += n
		last := false
		if h.at == h.to.plan.bytes(h.piece, 1) {
			h.at, last = 0, true
			h.piece++
		}
		c.at(c.now+spent(n, l.rate), func() {
			l.busy = false
			d.free = max(c.now+c.delay, d.free+spent(n, d.rate))
			c.at(d.free, func() { h.arrives(n, last) })
			if h.piece < h.First+h.Count {
				l.queue = append(l.queue, h)
			}
			c.send(l)
		})
	}
}

func spent(n int64, rate float64) time.Duration {
	return time.Duration(float64(n) / rate * float64(time.Second))
}

// arrives tells the plan of a chunk.
func (h *haul) arrives(n int64, last bool) {
	p, c := h.to, h.to.c
	if h.gone() {
		return
	}
	if h.from == nil {
		p.fetched += n
	}
	p.plan.Progress(c.now, h.ID, n)
	if last && h.lies {
		delete(p.open, h.ID)
		p.plan.Failed(c.now, h.ID, true)
		p.lose(h.from)
		return
	}
	if last {
		r := p.plan.find(h.ID)
		if p.plan.here.Test(uint(r.next)) {
			c.unwanted++
		}
		if r.next+1 == r.end() {
			delete(p.open, h.ID)
		}
		p.plan.Delivered(c.now, h.ID)
		if p.plan.Done() {
			p.ended = c.now
		}
	}
	p.tell()
	p.next()
}

package crowd

// die ends a node.
func (w *world) die(n *node) {
	if n.dead {
		return
	}
	n.dead = true
	w.counters.Died++
	if !n.whole {
		w.pending--
	}
	w.hangUp(n)
	n.plan = nil
	notice := w.cfg.Latency
	if n.machine.Silent {
		notice = w.cfg.Tuning.DeadAfter // the stream of states is given up then
	}
	for _, f := range n.followers {
		w.after(notice, event{kind: evBroken, a: f.node, b: n.id})
	}
	n.followers = nil
}

// leave takes a member that has gone or has lied out of a node's plan, and
// asks another.
func (w *world) leave(n *node, j int32) {
	if n.plan == nil {
		return
	}
	p := n.peer(j)
	p.refused = true
	p.idle = 0
	for k := 0; k < len(n.transfers); {
		if i := n.transfers[k]; w.transfers[i].server == j {
			w.close(i)
		} else {
			k++
		}
	}
	if p.joined {
		p.joined = false
		n.joined--
		if !n.volunteer || !w.nodes[j].volunteer {
			n.others[w.side(n.id, j)]--
		}
		n.plan.Gone(w.time(), p.id)
		delete(n.byID, p.id)
	}
	w.more(n)
	n.next(w)
}

// lied bans a member whose piece was refused.
func (w *world) lied(n *node, j int32) {
	w.counters.Lies++
	w.unfollow(n, j)
	w.leave(n, j)
}

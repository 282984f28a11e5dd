package crowd

import "slices"

// site is the link of a zone to everywhere else.
type site struct {
	up   uplink
	down downlink
}

// zone returns the zone of a node.
func (w *world) zone(i int32) int32 { return i % int32(max(1, w.cfg.Zones)) }

// far reports whether two nodes are in different zones.
func (w *world) far(i, j int32) bool { return w.zone(i) != w.zone(j) }

// smallZone reports whether all of a zone know each other.
func (w *world) smallZone() bool {
	return w.cfg.Zones > 1 && w.cfg.Costs.Small((len(w.nodes)+w.cfg.Zones-1)/w.cfg.Zones)
}

// mate reports whether two nodes are of one small zone.
func (w *world) mate(i, j int32) bool { return w.smallZone() && !w.far(i, j) }

// sort puts those of the zone of i first.
func (w *world) sort(i int32, nodes []int32) {
	slices.SortStableFunc(nodes, func(a, b int32) int { return w.side(i, a) - w.side(i, b) })
}

// side is 0 for a member of the own zone, 1 for others.
func (w *world) side(i, j int32) int {
	if w.far(i, j) {
		return 1
	}
	return 0
}

// uplink returns what server sends over to asker.
func (w *world) uplink(server, asker int32) *uplink {
	switch {
	case server == origin:
		return &w.source
	case w.far(server, asker):
		return &w.sites[w.zone(server)].up
	}
	return &w.nodes[server].up
}

// downlink returns what asker receives over from server.
func (w *world) downlink(server, asker int32) *downlink {
	if w.cfg.Zones > 0 && (server == origin || w.far(server, asker)) {
		return &w.sites[w.zone(asker)].down
	}
	return &w.nodes[asker].down
}

package p2p

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counters of membership; the exchange of pieces has its own.
type metrics struct {
	provides *prometheus.CounterVec // by result: ok, alone, error
	lookups  *prometheus.CounterVec // by result: found, none, error
	dials    *prometheus.CounterVec // of holders, by result: ok, error
	// statements by result: obeyed, ignored, invalid, refused
	statements *prometheus.CounterVec
	punches    *prometheus.CounterVec // holes in NATs, by result: ok, failed
}

// newMetrics registers the metrics of n, which are read once it runs.
func newMetrics(reg prometheus.Registerer, n *Node) (*metrics, error) {
	vec := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"result"})
	}
	m := &metrics{
		provides:   vec("shoal_p2p_provides_total", "Announcements of new blobs to the DHT by result (ok, alone: nobody to tell, error)."),
		lookups:    vec("shoal_p2p_lookups_total", "Searches for the holders of a blob by result (found, none)."),
		dials:      vec("shoal_p2p_dials_total", "Attempts to reach a holder by result (ok, error)."),
		statements: vec("shoal_p2p_statements_total", "New statements of operators by result (obeyed, ignored: of a key that is not trusted, invalid, refused: a member pushes too many)."),
		punches:    vec("shoal_p2p_hole_punches_total", "Attempts to replace a relayed connection to a member by a direct one by result (ok, failed)."),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.provides, m.lookups, m.dials, m.statements, m.punches,
		gauge("shoal_p2p_peers", "Members connected to this node.", func() int { return n.Peers() }),
		gauge("shoal_p2p_announced_blobs", "Blobs that this node announces.", func() int { return n.announcer.count() }),
		gauge("shoal_p2p_relayed_peers", "Members connected to this node over a relay only.", func() int { return n.countWays()[WayRelayed] }),
		gauge("shoal_p2p_behind_nat", "1 if others cannot dial this node from outside its network, as far as it knows.", func() int { return number(n.s.reach.behind()) }),
		gauge("shoal_p2p_own_relays", "Relays that lead others to this node.", func() int { return len(n.Reachability().Relays) }),
		gauge("shoal_p2p_relay_reservations", "Members that this node, as a relay, leads others to.", func() int { return n.Reachability().Relaying.Reservations }),
		gauge("shoal_p2p_relay_circuits", "Connections between members that this node relays.", func() int { return n.Reachability().Relaying.Circuits }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "shoal_p2p_relayed_bytes_total", Help: "Bytes that this node relayed between members."},
			func() float64 { return float64(n.Reachability().Relaying.Bytes) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("p2p: metrics: %w", err)
		}
	}
	return m, nil
}

func gauge(name, help string, value func() int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

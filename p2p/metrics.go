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
}

func newMetrics(reg prometheus.Registerer, peers, announced func() float64) (*metrics, error) {
	vec := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"result"})
	}
	m := &metrics{
		provides:   vec("shoal_p2p_provides_total", "Announcements of new blobs to the DHT by result (ok, alone: nobody to tell, error)."),
		lookups:    vec("shoal_p2p_lookups_total", "Searches for the holders of a blob by result (found, none)."),
		dials:      vec("shoal_p2p_dials_total", "Attempts to reach a holder by result (ok, error)."),
		statements: vec("shoal_p2p_statements_total", "New statements of operators by result (obeyed, ignored: of a key that is not trusted, invalid, refused: a member pushes too many)."),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.provides, m.lookups, m.dials, m.statements,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shoal_p2p_peers", Help: "Members connected to this node."}, peers),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shoal_p2p_announced_blobs", Help: "Blobs that this node announces."}, announced),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("p2p: metrics: %w", err)
		}
	}
	return m, nil
}

package exchange

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counters of the exchange.
type metrics struct {
	fetched     *prometheus.CounterVec // bytes by source: origin, peers
	otherZones  prometheus.Counter     // bytes of those from peers
	served      prometheus.Counter     // bytes
	refused     *prometheus.CounterVec // requests of members by reason
	fills       *prometheus.CounterVec // by result
	bans        *prometheus.CounterVec // by reason
	pieceErrors prometheus.Counter
	followers   prometheus.Gauge   // connections of members that follow
	followed    prometheus.Gauge   // connections to members that are followed
	told        prometheus.Counter // messages
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		fetched:     vec("shoal_p2p_fetched_bytes_total", "Bytes of pieces that fills took, by source (origin, peers).", "source"),
		otherZones:  counter("shoal_p2p_other_zone_bytes_total", "Bytes of pieces that fills took from members of other zones, which are among those from peers."),
		served:      counter("shoal_p2p_served_bytes_total", "Bytes of pieces sent to members."),
		refused:     vec("shoal_p2p_refused_requests_total", "Requests of members that were not served, by reason (busy, malformed, slow).", "reason"),
		fills:       vec("shoal_p2p_fills_total", "Fills that ended, by result (ok, not_found, no_space, corrupt, failed).", "result"),
		bans:        vec("shoal_p2p_bans_total", "Members banned because they lied, by what about (piece, voucher, chain, endorsement, blob, size).", "reason"),
		pieceErrors: counter("shoal_p2p_piece_errors_total", "Pieces that were wrong, or in doubt, and were fetched again."),
		followers:   gauge("shoal_p2p_followers", "Members that are told what changes here in the blobs that they fill (connections)."),
		followed:    gauge("shoal_p2p_followed", "Members that tell this node what changes there in the blobs that it fills (connections)."),
		told:        counter("shoal_p2p_told_total", "Messages to followers about a blob."),
	}
	// There from the start: an alert sees a counter grow, not appear.
	for _, reason := range []string{"piece", "voucher", "chain", "endorsement", "blob", "size"} {
		m.bans.WithLabelValues(reason)
	}
	for _, reason := range []string{"busy", "malformed", "slow"} {
		m.refused.WithLabelValues(reason)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.fetched, m.otherZones, m.served, m.refused, m.fills, m.bans, m.pieceErrors, m.followers, m.followed, m.told} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("exchange: metrics: %w", err)
		}
	}
	return m, nil
}

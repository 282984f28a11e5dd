package origin

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// unlistedLabel stands for all registries that the operator did not list, so
// that nobody can make up metrics by making up names.
const unlistedLabel = "other"

// metrics are registered once for each Client.
type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	failing  *prometheus.GaugeVec
	failures *prometheus.CounterVec
	offline  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_upstream_requests_total",
			Help: "Requests to upstream registries by what became of them; code is the status, or error.",
		}, []string{"registry", "method", "kind", "code"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_upstream_bytes_total",
			Help: "Body bytes read from upstream registries and where they redirect to.",
		}, []string{"registry"}),
		failing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_upstream_failing",
			Help: "1 while other upstreams of the registry are asked before this one because it fails.",
		}, []string{"registry", "upstream"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_upstream_failures_total",
			Help: "How often an upstream began to fail.",
		}, []string{"registry", "upstream"}),
	}
	m.offline = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "shoal_upstream_offline",
		Help: "1 if no upstream registry is asked, because the operator wants it so.",
	})
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.offline), r.Register(m.requests), r.Register(m.bytes), r.Register(m.failing), r.Register(m.failures))
}

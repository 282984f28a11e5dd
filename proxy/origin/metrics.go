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
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.requests), r.Register(m.bytes))
}

package pulls

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"shoal/proxy/pull"
)

type metrics struct {
	ended    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	ratio    *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) metrics {
	f := promauto.With(r)
	m := metrics{
		ended: f.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_pulls_total", Help: "Pulls of runtimes that have ended, by result (ok, failed, aborted).",
		}, []string{"result"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "shoal_pull_duration_seconds",
			Help:    "Time from the first request of a pull to its last byte, by what most of it was waited for (lookup, connect, origin, peers, proof, disk, client, idle). Of pulls that did not fail.",
			Buckets: []float64{.1, .3, 1, 3, 10, 30, 100, 300, 1000},
		}, []string{"bottleneck"}),
		ratio: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "shoal_pull_bound_ratio",
			Help:    "Duration of a pull over what it would have taken at the rates that were seen of its sources, by bottleneck. Of pulls that did not fail and fetched something.",
			Buckets: []float64{1, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10},
		}, []string{"bottleneck"}),
	}
	for _, result := range []pull.Result{pull.OK, pull.Failed, pull.Aborted} {
		m.ended.WithLabelValues(string(result))
	}
	return m
}

func (m metrics) count(p pull.Summary) {
	m.ended.WithLabelValues(string(p.Result)).Inc()
	if p.Result != pull.OK {
		return
	}
	m.duration.WithLabelValues(string(p.Bottleneck)).Observe(p.Seconds)
	if p.FromOrigin+p.FromPeers > 0 {
		m.ratio.WithLabelValues(string(p.Bottleneck)).Observe(p.Ratio)
	}
}

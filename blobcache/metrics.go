package blobcache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the counters that operators and `shoal status` read.
type metrics struct {
	bytes, blobs, running               prometheus.Gauge
	hits, misses, evictions, corruption prometheus.Counter
	noSpace                             prometheus.Counter
	fills                               *prometheus.CounterVec
}

// How a fill ended: values of the label "result".
const (
	resultCommitted = "committed"
	resultFailed    = "failed"
	resultCorrupt   = "corrupt"
)

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		bytes:      gauge("shoal_cache_bytes", "Bytes of whole and partial blobs in the cache."),
		blobs:      gauge("shoal_cache_blobs", "Whole blobs in the cache."),
		running:    gauge("shoal_cache_fills_running", "Fills that are running."),
		hits:       counter("shoal_cache_hits_total", "Blobs that were asked for and found whole."),
		misses:     counter("shoal_cache_misses_total", "Blobs that were asked for and not found."),
		evictions:  counter("shoal_cache_evictions_total", "Whole and partial blobs removed to make room."),
		corruption: counter("shoal_cache_corrupt_total", "Blobs found altered on disk, and fills whose bytes did not match the digest."),
		noSpace:    counter("shoal_cache_no_space_total", "Times that the budget or the disk had no room."),
		fills: f.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_cache_fills_total", Help: "Fills that ended.",
		}, []string{"result"}),
	}
	for _, result := range []string{resultCommitted, resultFailed, resultCorrupt} {
		m.fills.WithLabelValues(result)
	}
	return m
}

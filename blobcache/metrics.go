package blobcache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the counters that operators and `shoal status` read.
type metrics struct {
	bytes, blobs, running, budget, excess prometheus.Gauge
	hits, misses, evictions, corruption   prometheus.Counter
	noSpace, scrubbed, scrubbedBlobs      prometheus.Counter
	rotten                                prometheus.Counter
	fills, endorsements                   *prometheus.CounterVec
}

// How a fill ended: values of the label "result".
const (
	resultCommitted = "committed"
	resultFailed    = "failed"
	resultCorrupt   = "corrupt"
)

// What became of an endorsement: values of the label "result".
const (
	resultTrusted = "trusted" // its chain is used
	resultIgnored = "ignored" // nobody here trusts the key
	resultInvalid = "invalid" // it was not signed by that key, or later than now
	resultFalse   = "false"   // by a trusted key, and not so
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
		bytes:         gauge("shoal_cache_bytes", "Bytes of whole and partial blobs in the cache."),
		blobs:         gauge("shoal_cache_blobs", "Whole blobs in the cache."),
		running:       gauge("shoal_cache_fills_running", "Fills that are running."),
		budget:        gauge("shoal_cache_size_bytes", "What cache-size is; 0 if there is no limit."),
		excess:        gauge("shoal_cache_excess_bytes", "Bytes by which the cache is above cache-high-water, or the disk below min-free, though all has gone that may."),
		hits:          counter("shoal_cache_hits_total", "Blobs that were asked for and found whole."),
		misses:        counter("shoal_cache_misses_total", "Blobs that were asked for and not found."),
		evictions:     counter("shoal_cache_evictions_total", "Whole and partial blobs removed to make room."),
		corruption:    counter("shoal_cache_corrupt_total", "Blobs found altered on disk, and fills whose bytes did not match the digest."),
		rotten:        counter("shoal_cache_rotten_total", "Blobs found altered on disk, when they were asked for, verified or scrubbed."),
		noSpace:       counter("shoal_cache_no_space_total", "Times that the budget or the disk had no room."),
		scrubbed:      counter("shoal_cache_scrubbed_bytes_total", "Bytes read from the disk to see whether blobs are still what they were."),
		scrubbedBlobs: counter("shoal_cache_scrubbed_blobs_total", "Blobs looked at for that."),
		fills: f.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_cache_fills_total", Help: "Fills that ended.",
		}, []string{"result"}),
		endorsements: f.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_cache_endorsements_total",
			Help: "Signed chains that members brought, by what became of them (trusted, ignored, invalid), and those by trusted keys that turned out to be false.",
		}, []string{"result"}),
	}
	for _, result := range []string{resultCommitted, resultFailed, resultCorrupt} {
		m.fills.WithLabelValues(result)
	}
	for _, result := range []string{resultTrusted, resultIgnored, resultInvalid, resultFalse} {
		m.endorsements.WithLabelValues(result)
	}
	return m
}

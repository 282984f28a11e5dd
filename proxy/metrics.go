package proxy

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/proxy/policy"
	"shoal/proxy/request"
)

// Where bytes that a client got came from.
const (
	fromCache       = "cache"       // whole and proven before the request
	fromFill        = "fill"        // while they arrived
	fromPassthrough = "passthrough" // from the origin, past a cache without room
	fromHeadStart   = "head_start"  // from the origin, past a fill that is slow
)

type metrics struct {
	requests  *prometheus.CounterVec
	heads     prometheus.Counter // of requests: HEADs of manifests, the most frequent ones, without looking for their labels
	served    *prometheus.CounterVec
	firstByte prometheus.Histogram
	prefetch  *prometheus.CounterVec
	stale     prometheus.Counter
	healed    prometheus.Counter
	decisions *prometheus.CounterVec
	leased    *prometheus.CounterVec
	leases    *prometheus.CounterVec
}

// newMetrics registers the proxy's collectors; a nil registerer leaves them
// unregistered.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_proxy_requests_total",
			Help: "Requests of runtimes, by endpoint, method and status.",
		}, []string{"kind", "method", "code"}),
		served: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_proxy_served_bytes_total",
			Help: "Bytes of blobs that went out to runtimes: from the cache, from a running fill, or from the origin past them.",
		}, []string{"source"}),
		firstByte: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "shoal_proxy_first_byte_seconds",
			Help:    "Time from a runtime's request for a blob to the first byte of its body.",
			Buckets: []float64{.001, .005, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		prefetch: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_proxy_prefetches_total",
			Help: "Blobs whose fill was started by a manifest, by result: ok, failed, or dropped because too many wait.",
		}, []string{"result"}),
		stale: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_proxy_stale_tags_total",
			Help: "Answers about tags that were what a registry had said before, because it could not be asked.",
		}),
	}
	m.healed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "shoal_proxy_healed_total",
		Help: "Blobs that had rotted on the disk and were brought again, from members or a registry.",
	})
	m.decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_proxy_decisions_total",
		Help: "Whether a client may have a content of a registry with access: client: leased, granted or refused by the registry, or failed to be decided.",
	}, []string{"result"})
	m.leased = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_proxy_leased_tags_total",
		Help: "Answers about tags that were what a trusted seeder said: because of an outage of the registry, or because the operator prefers that to asking.",
	}, []string{"why"})
	m.leases = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_proxy_leases_total",
		Help: "Leases of tags by trusted keys that came, by result: taken, or refused because of the settings, their name or their age.",
	}, []string{"result"})
	m.begin()
	m.heads = m.requests.WithLabelValues(request.Manifest.String(), http.MethodHead, strconv.Itoa(http.StatusOK))
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.served, m.firstByte, m.prefetch, m.stale, m.healed, m.decisions, m.leased, m.leases} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// begin has the series whose labels are known begin at zero.
func (m *metrics) begin() {
	for _, why := range []string{leasedForOutage, leasedPreferred} {
		m.leased.WithLabelValues(why)
	}
	for _, result := range []string{"taken", "refused"} {
		m.leases.WithLabelValues(result)
	}
	for _, v := range []policy.Verdict{policy.Leased, policy.Granted, policy.Refused, policy.Failed} {
		m.decisions.WithLabelValues(string(v))
	}
	for _, source := range []string{fromCache, fromFill, fromPassthrough, fromHeadStart} {
		m.served.WithLabelValues(source)
	}
}

// decide counts a decision.
func (m *metrics) decide(v policy.Verdict) { m.decisions.WithLabelValues(string(v)).Inc() }

// count counts a request; what a client makes up must not become a label.
func (m *metrics) count(kind request.Kind, method string, status int) {
	if kind == request.Manifest && method == http.MethodHead && status == http.StatusOK {
		m.heads.Inc()
		return
	}
	if method != http.MethodGet && method != http.MethodHead {
		method = "other"
	}
	m.requests.WithLabelValues(kind.String(), method, strconv.Itoa(status)).Inc()
}

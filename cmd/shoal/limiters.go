package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/pace"
	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
)

// limit is a setting of bytes a second, and what keeps to it.
type limit struct {
	name string
	*pace.Limiter
}

// limits are all of them.
type limits struct {
	upload, download, origin limit
	settings                 atomic.Pointer[map[string]pace.Rules] // as the settings have them
}

// newLimits makes the limiters of the settings and their metrics.
func newLimits(cfg config.Config, metrics prometheus.Registerer) *limits {
	of := func(name string) limit { return limit{name, pace.New(cfg.Limits()[name])} }
	l := &limits{upload: of(config.MaxUploadKey), download: of(config.MaxDownloadKey), origin: of(config.MaxOriginKey)}
	settings := cfg.Limits()
	l.settings.Store(&settings)
	for _, one := range l.all() {
		label := prometheus.Labels{"limit": one.name}
		metrics.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "shoal_limit_bytes_per_second", Help: "What may pass now; 0 if there is no limit.", ConstLabels: label,
			}, func() float64 { return float64(one.Rate()) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: "shoal_limited_bytes_total", Help: "Bytes that had to wait because of a limit.", ConstLabels: label,
			}, func() float64 { return float64(one.Waited()) }))
	}
	return l
}

func (l *limits) all() []limit { return []limit{l.upload, l.download, l.origin} }

// incoming are those for what comes from registries.
func (l *limits) incoming() pace.Limits { return pace.Limits{l.origin.Limiter, l.download.Limiter} }

// state is what the operator sees of them.
func (l *limits) state() []admin.Limit {
	settings := *l.settings.Load()
	var all []admin.Limit
	for _, one := range l.all() {
		rules := one.Rules()
		all = append(all, admin.Limit{
			Name: one.name, Rate: int64(one.Rate()), Rules: rules.Words(), Waited: one.Waited(),
			Changed: rules.String() != settings[one.name].String(),
		})
	}
	return all
}

// setLimits changes the limits that are named, until the node ends or reads its
// settings again.
func (s *service) setLimits(rules map[string]pace.Rules) {
	for _, one := range s.limits.all() {
		if r, named := rules[one.name]; named && r.String() != one.Rules().String() {
			one.Set(r)
			s.log.Info("limit changed", "limit", one.name, "rules", r.String())
		}
	}
}

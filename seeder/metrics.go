package seeder

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	images        *prometheus.CounterVec
	failing       *prometheus.GaugeVec
	notifications *prometheus.CounterVec
	short         *prometheus.GaugeVec
	orders        *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		images: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_seeder_images_total", Help: "Images that selections had looked at, by result: fetched, unchanged or failed.",
		}, []string{"result"}),
		failing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_seeder_failing", Help: "Images, and lists of them, of a selection that could not be had at its last look.",
		}, []string{"selection"}),
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_seeder_notifications_total", Help: "Notifications of registries, by result: taken, ignored (of nothing that is selected), refused or malformed.",
		}, []string{"result"}),
		short: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_seeder_short", Help: "Images of a selection that fewer members hold than min-holders and min-zones want, as of its last check.",
		}, []string{"selection"}),
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_seeder_orders_total", Help: "Images that members were ordered to fetch because too few held them, one for each member, by result: done or failed.",
		}, []string{"result"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.images, m.failing, m.notifications, m.short, m.orders} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

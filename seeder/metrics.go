package seeder

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	images        *prometheus.CounterVec
	failing       *prometheus.GaugeVec
	notifications *prometheus.CounterVec
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
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.images, m.failing, m.notifications} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

package plan

import "time"

const (
	buckets = 8
	// minSpan keeps the first bytes of a burst from looking like an infinite
	// rate.
	minSpan = 20 * time.Millisecond
)

// meter measures a rate over a sliding window of the time in which it is
// running. Stopped, it keeps the last rate.
type meter struct {
	step    time.Duration // width of a bucket: an eighth of the window
	sums    [buckets]float64
	slot    int64 // number of the newest bucket
	running bool
	since   time.Duration // start of the run
	until   time.Duration // end of the last one
	kept    float64       // rate when it was last stopped
	any     bool          // anything ever counted
}

func newMeter(window time.Duration) meter { return meter{step: window / buckets} }

// start begins a run; a running meter goes on, and so does one that stopped
// only for a moment.
func (m *meter) start(now time.Duration) {
	if m.running {
		return
	}
	m.running = true
	if m.any && now-m.until < m.step {
		return
	}
	m.since = now
	m.sums = [buckets]float64{}
	m.slot = int64(now / m.step)
}

// stop ends a run.
func (m *meter) stop(now time.Duration) {
	if !m.running {
		return
	}
	r, ok := m.rate(now)
	if span := m.span(now); span < minSpan { // all that there will ever be
		r, ok = m.sum()/minSpan.Seconds(), m.sum() > 0 && m.kept == 0
	}
	if ok {
		m.kept = r
	}
	m.running, m.until = false, now
}

func (m *meter) advance(now time.Duration) {
	for slot := int64(now / m.step); m.slot < slot; {
		if slot-m.slot > buckets {
			m.slot = slot - buckets
		}
		m.slot++
		m.sums[m.slot%buckets] = 0
	}
}

// add counts bytes.
func (m *meter) add(now time.Duration, bytes int64) {
	m.start(now)
	m.advance(now)
	m.sums[m.slot%buckets] += float64(bytes)
	m.any = true
}

// span is the time that the rate of now is measured over.
func (m *meter) span(now time.Duration) time.Duration {
	if !m.running {
		return 0
	}
	// The newest bucket is only partly filled.
	full := m.step*(buckets-1) + now%m.step
	return min(now-m.since, full)
}

// rate returns bytes a second, and false if nothing is known yet.
func (m *meter) rate(now time.Duration) (float64, bool) {
	if !m.running {
		return m.kept, m.kept > 0
	}
	m.advance(now)
	span := m.span(now)
	if span < m.step && m.kept > 0 {
		return m.kept, true // a run too short to say more than the one before
	}
	if !m.any || span < minSpan {
		return m.kept, m.kept > 0
	}
	return m.sum() / span.Seconds(), true
}

func (m *meter) sum() float64 {
	var sum float64
	for _, s := range m.sums {
		sum += s
	}
	return sum
}

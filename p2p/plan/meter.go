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
	sums    [buckets]int64
	sum     int64 // of all buckets
	slot    int64 // number of the newest bucket
	running bool
	any     bool          // anything ever counted
	since   time.Duration // start of the run
	until   time.Duration // end of the last one
	kept    float64       // rate when it was last stopped
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
	m.sums, m.sum = [buckets]int64{}, 0
	m.slot = int64(now / m.step)
}

// stop ends a run.
func (m *meter) stop(now time.Duration) {
	if !m.running {
		return
	}
	r, ok := m.rate(now)
	if span := m.span(now); span < minSpan { // all that there will ever be
		r, ok = float64(m.sum)/minSpan.Seconds(), m.sum > 0 && m.kept == 0
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
		m.sum -= m.sums[m.slot%buckets]
		m.sums[m.slot%buckets] = 0
	}
}

// add counts bytes.
func (m *meter) add(now time.Duration, bytes int64) {
	m.start(now)
	m.advance(now)
	m.sums[m.slot%buckets] += bytes
	m.sum += bytes
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

// settled reports whether the rate is measured over the whole window.
func (m *meter) settled(now time.Duration) bool { return m.span(now) >= m.step*(buckets-1) }

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
	return float64(m.sum) / span.Seconds(), true
}

package origin

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"shoal/blobcache/blob"
)

// health is the breaker of an upstream that is shared by all its questions.
type health struct {
	telling sync.Mutex // is held while an outcome is noted and told

	mu      sync.Mutex
	breaker breaker
}

func (h *health) state() breaker {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.breaker
}

// probe tells whether it falls to the caller to find out if the upstream works
// again; then he notes the outcome.
func (h *health) probe(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.breaker.due(now) {
		return false
	}
	h.breaker.probing = true
	return true
}

// note takes the outcome of a question of an era, and returns the breaker
// before and after it.
func (h *health) note(era int, err error) (before, after breaker) {
	what, rest := weigh(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	before = h.breaker
	h.breaker.note(time.Now(), era, what, rest, rand.Float64())
	return before, h.breaker
}

// line returns the upstreams of r in the order in which to ask them for q; the
// first working of them are known to work. Beside that it sends q to those of
// which it is time to see whether they work again. No client waits for that.
func (c *Client) line(ctx context.Context, r *Repository, q request) (ups []*upstream, working int) {
	if len(r.upstreams) == 1 {
		return r.upstreams, 1
	}
	now := time.Now()
	states := make([]breaker, len(r.upstreams))
	for i, up := range r.upstreams {
		states[i] = up.health.state()
	}
	line, working, due := order(states, now)
	for _, i := range due {
		if up := r.upstreams[i]; up.health.probe(now) {
			c.probes.start(ctx, c.o.AnswerTimeout, func(ctx context.Context) {
				resp, err := c.attempt(ctx, up, q)
				if err == nil {
					_ = resp.Body.Close()
				}
				if !errors.Is(err, context.Canceled) { // by close
					c.note(up, states[i].era, err)
				}
			})
		}
	}
	for _, i := range line {
		ups = append(ups, r.upstreams[i])
	}
	return ups, working
}

// era returns the era of what is asked of the upstream now.
func (u *upstream) era() int {
	if u.health == nil {
		return 0
	}
	return u.health.state().era
}

// note takes the outcome of a question to an upstream, and tells the operator
// when it begins or ceases to fail.
func (c *Client) note(up *upstream, era int, err error) {
	if up.health == nil {
		return
	}
	up.health.telling.Lock()
	defer up.health.telling.Unlock()
	before, after := up.health.note(era, err)
	log := c.o.Logger.With("registry", up.label, "upstream", up.base.String())
	switch {
	case before.open == after.open:
		if before.until != after.until {
			log.Debug("upstream still fails", "error", err, "pause", time.Until(after.until).Round(time.Millisecond))
		}
	case after.open:
		c.metrics.failing.WithLabelValues(up.label, up.base.String()).Set(1)
		c.metrics.failures.WithLabelValues(up.label, up.base.String()).Inc()
		log.Warn("upstream fails", "error", err, "pause", time.Until(after.until).Round(time.Millisecond))
	default:
		c.metrics.failing.WithLabelValues(up.label, up.base.String()).Set(0)
		log.Info("upstream works again")
	}
}

// probes are questions that no client waits for. close ends them.
type probes struct {
	running sync.WaitGroup
	closing chan struct{}

	mu     sync.Mutex
	closed bool
}

func newProbes() *probes { return &probes{closing: make(chan struct{})} }

// start lets f run, within limit and until close, with the values of ctx.
func (p *probes) start(ctx context.Context, limit time.Duration, f func(context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, blob.ErrStalled)
	p.running.Go(func() {
		defer cancel()
		f(ctx)
	})
	p.running.Go(func() {
		select {
		case <-p.closing:
			cancel()
		case <-ctx.Done():
		}
	})
}

func (p *probes) close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.closing)
	}
	p.mu.Unlock()
	p.running.Wait()
}

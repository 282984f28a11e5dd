package origin

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"shoal/blobcache/blob"
)

const (
	// restFirst is how long an upstream is left alone that fails for the first
	// time: a hiccup should not move everything to a farther one for long.
	restFirst = time.Second
	// restMax ends the doubling of pauses. What works again is found out
	// within a minute and a half, and a probe a minute is nothing to it.
	restMax = time.Minute
	// restTold is the longest Retry-After that is kept to.
	restTold = time.Hour
	// soon is how long an upstream must work, beyond its last pause, to be
	// taken for well. It is longer than it takes to find out that bodies stall
	// of an upstream whose headers are fine.
	soon = 5 * time.Second
	// errorsMax is how many answers 500 in a row are taken for a fault of the
	// upstream. Registries answer so about single things, too: docker-registry
	// as a cache says it of a manifest that its own upstream does not have.
	errorsMax = 3
)

// evidence is what an outcome says about the upstream as a whole.
type evidence int

const (
	works    evidence = iota // it answered, be it with a no
	doubtful                 // it did not say what is wrong
	fails                    // ask somebody else for a while
)

// weigh judges the upstream by the outcome of a question, and tells how long
// it asked to be left alone.
func weigh(err error) (evidence, time.Duration) {
	var resp *ResponseError
	switch {
	case errors.As(err, &resp) && resp.Status == http.StatusTooManyRequests:
		return fails, resp.RetryAfter
	case errors.As(err, &resp) && resp.Status == http.StatusNotImplemented:
		return works, 0
	case errors.As(err, &resp) && resp.Status == http.StatusInternalServerError:
		return doubtful, 0
	case errors.As(err, &resp) && resp.Status > http.StatusInternalServerError:
		return fails, resp.RetryAfter
	case errors.As(err, &resp), errors.Is(err, errLie), errors.Is(err, ErrRegistryRefused):
		return works, 0
	case errors.Is(err, blob.ErrUnavailable), errors.Is(err, blob.ErrStalled):
		return fails, 0
	}
	return works, 0
}

// breaker is what is known about how one upstream fares: closed while it
// works, open while others are asked before it. It is a plain value without a
// clock.
type breaker struct {
	open bool
	// era counts openings and closings. What was asked in another era tells
	// nothing about this one.
	era     int
	pause   time.Duration // the last one
	until   time.Time     // end of the pause, while open
	probing bool          // a question is under way to see whether it works
	closed  time.Time     // when it closed last
	errors  int           // doubtful outcomes in a row
}

// due tells whether the upstream should be probed.
func (b *breaker) due(now time.Time) bool { return b.open && !b.probing && !now.Before(b.until) }

// note takes the outcome of a question that was asked in era; rest is how
// long the upstream asked to be left alone. chance in [0, 1) spreads the pauses
// of nodes whose upstream failed at the same time.
func (b *breaker) note(now time.Time, era int, what evidence, rest time.Duration, chance float64) {
	if era != b.era {
		return
	}
	if what == doubtful {
		if b.errors++; b.errors < errorsMax && !b.open {
			return
		}
		what = fails
	}
	switch {
	case what == works:
		b.errors = 0
		if b.open {
			b.open, b.probing, b.closed = false, false, now
			b.era++
		}
	case b.open && now.Before(b.until): // it is known to fail
	default:
		again := b.open || now.Sub(b.closed) < b.pause+soon
		if b.pause = min(2*b.pause, restMax); !again || b.pause == 0 {
			b.pause = restFirst
		}
		if !b.open {
			b.era++
		}
		b.open, b.probing = true, false
		b.until = now.Add(max(spread(b.pause, chance), min(rest, restTold)))
	}
}

// spread returns half to one and a half times d.
func spread(d time.Duration, chance float64) time.Duration {
	return time.Duration(float64(d) * (0.5 + chance))
}

// order returns in which order upstreams are asked that are given in the order
// of preference: those that work, then the others, by the end of their pauses,
// because one that may fail is better than nobody. While one works, those
// whose pause is over are due to be probed beside it.
func order(states []breaker, now time.Time) (line []int, working int, due []int) {
	for i, b := range states {
		if !b.open {
			line = append(line, i)
		}
	}
	working = len(line)
	for i, b := range states {
		if b.open {
			line = append(line, i)
		}
		if working > 0 && b.due(now) {
			due = append(due, i)
		}
	}
	slices.SortStableFunc(line[working:], func(i, j int) int { return states[i].until.Compare(states[j].until) })
	return line, working, due
}

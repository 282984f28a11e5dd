package proxy

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"shoal/proxy/origin"
)

const (
	// greetingPatience is how long the first /v2/ waits for the upstream's: a
	// dockerd waits for 15 s, and goes on without a token if it hears of none.
	greetingPatience = time.Second
	// greetingValidity is how long a challenge is told before the upstream is
	// asked again, and greetingPause how long after it did not answer.
	greetingValidity = 10 * time.Minute
	greetingPause    = 10 * time.Second
)

// greeting is the challenge that the /v2/ of Docker Hub has, if it is asked in
// the name of clients: dockerd looks there and nowhere else for where to get a
// token. That of other registries cannot be told there, because /v2/ names none.
type greeting struct {
	origin  *origin.Client
	flights singleflight.Group

	mu        sync.Mutex
	challenge string
	again     time.Time // when to ask again
}

// get returns the challenge, or "". It asks again beside what it returns, so
// that only the first one waits, and not for long.
func (g *greeting) get(ctx context.Context) string {
	challenge, due := g.known()
	if !due {
		return challenge
	}
	flight := g.flights.DoChan("", func() (any, error) {
		challenge, err := g.origin.Greeting(context.WithoutCancel(ctx), origin.DockerHub)
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.again = time.Now().Add(greetingPause); err == nil {
			g.challenge, g.again = challenge, time.Now().Add(greetingValidity)
		}
		return nil, nil
	})
	if challenge != "" {
		return challenge
	}
	select {
	case <-flight:
	case <-ctx.Done():
	case <-time.After(greetingPatience):
	}
	challenge, _ = g.known()
	return challenge
}

func (g *greeting) known() (challenge string, due bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.challenge, !time.Now().Before(g.again)
}

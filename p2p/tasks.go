package p2p

import (
	"context"
	"errors"
	"sync"
)

// ErrClosed: the node has been stopped.
var ErrClosed = errors.New("p2p: node is closed")

// tasks are the calls and goroutines that a node must wait for before it may
// take away the host under them.
type tasks struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
	stop   chan struct{} // closed by close
}

func newTasks() *tasks { return &tasks{stop: make(chan struct{})} }

// begin starts a task: its context is done when ctx is, or the node stops.
// The task calls end when it has ended. It is not ok once the node stopped.
func (t *tasks) begin(ctx context.Context) (_ context.Context, end func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ctx, nil, false
	}
	t.wg.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-t.stop:
			cancel()
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		cancel()
		t.wg.Done()
	}, true
}

// close ends all tasks and waits for them.
func (t *tasks) close() {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.stop)
	}
	t.mu.Unlock()
	t.wg.Wait()
}

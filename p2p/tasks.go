package p2p

import (
	"context"
	"errors"
	"sync"
)

// ErrClosed means that the node has been stopped.
var ErrClosed = errors.New("p2p: node is closed")

// tasks are the calls and goroutines that a node must wait for before it may
// take away the host under them.
type tasks struct {
	life context.Context // done when the node stops; of no single call
	end  context.CancelFunc

	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func newTasks() *tasks {
	life, end := context.WithCancel(context.Background())
	return &tasks{life: life, end: end}
}

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
	stop := context.AfterFunc(t.life, cancel)
	return ctx, func() {
		stop()
		cancel()
		t.wg.Done()
	}, true
}

// close ends all tasks and waits for them.
func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.end()
	t.wg.Wait()
}

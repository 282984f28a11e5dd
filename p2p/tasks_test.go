package p2p

import (
	"context"
	"testing"
	"testing/synctest"
)

// TestCloseWaitsForTasks: it ends their contexts, and returns when they have
// ended.
func TestCloseWaitsForTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := newTasks()
		ctx, end, ok := tasks.begin(context.Background())
		if !ok {
			t.Fatal("no task")
		}
		closed := make(chan struct{})
		go func() {
			tasks.close()
			close(closed)
		}()
		synctest.Wait()
		if ctx.Err() == nil {
			t.Error("the task was not told to end")
		}
		select {
		case <-closed:
			t.Error("closed while a task was running")
		default:
		}
		end()
		<-closed
		tasks.close() // again
	})
}

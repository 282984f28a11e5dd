package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/blob"
)

// body is the body of an answer under a deadline. Only time spent waiting in
// Read counts: a caller that takes its time is not the upstream's fault.
// Closing it ends the request.
type body struct {
	under      io.ReadCloser
	noProgress time.Duration
	cancel     context.CancelFunc
	stalled    atomic.Bool
	timer      *time.Timer // calls stall
	stalls     func()      // is told when no byte comes; nil for nobody
	bytes      prometheus.Counter
	left       int64 // until blob.MaxSize
}

// newBody wraps under, whose request ends with cancel.
func newBody(under io.ReadCloser, noProgress time.Duration, cancel context.CancelFunc, bytes prometheus.Counter) *body {
	b := &body{under: under, noProgress: noProgress, cancel: cancel, bytes: bytes, left: blob.MaxSize}
	b.timer = time.AfterFunc(noProgress, func() {
		if b.stall(); b.stalls != nil {
			b.stalls()
		}
	})
	b.timer.Stop()
	return b
}

// stall ends the request because it took too long.
func (b *body) stall() {
	b.stalled.Store(true)
	b.cancel()
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.noProgress)
	n, err := b.under.Read(p)
	b.timer.Stop()
	b.bytes.Add(float64(n))
	b.left -= int64(n)
	switch {
	case err == nil && b.left < 0:
		return n, fmt.Errorf("%w: body over %d bytes", blob.ErrTooLarge, int64(blob.MaxSize))
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case b.stalled.Load():
		return n, fmt.Errorf("%w: no byte for %v", blob.ErrStalled, b.noProgress)
	}
	return n, fmt.Errorf("body of the upstream: %w", err)
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel()
	return b.under.Close()
}

// within lets a body that is still read after d stall, whatever its progress.
// The caller calls the function that it returns when it is done.
func (b *body) within(d time.Duration) (done func() bool) {
	return time.AfterFunc(d, b.stall).Stop
}

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
	"shoal/blobcache/pace"
)

// body is the body of an answer under a deadline. Only time spent waiting for
// the upstream in Read counts: a caller that takes its time, or a limit that is
// reached, is not its fault. Closing it ends the request.
type body struct {
	under      *pace.Reader
	end        io.Closer // of what under reads
	noProgress time.Duration
	cancel     context.CancelFunc
	stalled    atomic.Bool
	timer      *time.Timer // calls stall
	stalls     func()      // is told when no byte comes; nil for nobody
	bytes      prometheus.Counter
	left       int64 // until blob.MaxSize
}

// newBody wraps under, which reads end, whose request ends with cancel.
func newBody(under *pace.Reader, end io.Closer, noProgress time.Duration, cancel context.CancelFunc, bytes prometheus.Counter) *body {
	b := &body{under: under, end: end, noProgress: noProgress, cancel: cancel, bytes: bytes, left: blob.MaxSize}
	b.timer = time.AfterFunc(noProgress, func() {
		if b.stalls != nil {
			b.stalls() // before the reader, who may ask again at once
		}
		b.stall()
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
	n, err := b.under.Await(len(p))
	if err == nil {
		b.timer.Reset(b.noProgress)
		n, err = b.under.ReadNow(p[:n])
		b.timer.Stop()
	}
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
	return b.end.Close()
}

// within lets a body that is still read after d stall, whatever its progress.
// The caller calls the function that it returns when it is done.
func (b *body) within(d time.Duration) (done func() bool) {
	return time.AfterFunc(d, b.stall).Stop
}

package pace

import (
	"context"
	"io"
)

// Limits are limiters that all count for the same bytes.
type Limits []*Limiter

// Reader returns r at the pace of the limits: what may pass is known before it is
// read, so that nothing is kept beside the caller's memory. f tells the flow of
// the moment; ctx ends a Read that waits.
func (ls Limits) Reader(ctx context.Context, r io.Reader, f func() Flow) *Reader {
	return &Reader{ctx: ctx, under: r, limits: ls, flow: f, may: make([]int, len(ls))}
}

// Reader reads at a pace.
type Reader struct {
	ctx    context.Context // of the body that it reads
	under  io.Reader
	limits Limits
	flow   func() Flow
	may    []int // bytes that may pass by each of the limits, and have not come yet
}

// Await returns how many bytes may be read now, at most want, once there are any.
func (r *Reader) Await(want int) (int, error) {
	for i, l := range r.limits {
		if r.may[i] == 0 {
			var err error
			if r.may[i], err = l.Take(r.ctx, r.flow(), want); err != nil {
				return 0, err
			}
		}
		want = min(want, r.may[i])
	}
	return want, nil
}

// Read is of io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.Await(len(p))
	if err != nil {
		return 0, err
	}
	return r.ReadNow(p[:n])
}

// ReadNow reads without waiting for the limits, not more than Await allowed.
func (r *Reader) ReadNow(p []byte) (int, error) {
	n, err := r.under.Read(p)
	for i := range r.may {
		r.may[i] -= n
	}
	return n, err
}

type flowKey struct{}

// WithFlow returns a context whose requests are made for a flow, which is asked
// for at each part.
func WithFlow(ctx context.Context, f func() Flow) context.Context {
	return context.WithValue(ctx, flowKey{}, f)
}

// FlowOf returns the flow that the requests of ctx are made for; one without a
// name if nobody said.
func FlowOf(ctx context.Context) func() Flow {
	if f, ok := ctx.Value(flowKey{}).(func() Flow); ok {
		return f
	}
	return func() Flow { return Flow{} }
}

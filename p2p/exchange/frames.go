package exchange

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"shoal/p2p/wire"
)

const (
	// askRate and askBurst bound what is read of one asker, in frames a
	// second: each can cost a look into the cache. A fill asks once and leaves
	// once.
	askRate, askBurst = 200, 1024
	// hearRate and hearBurst bound what is read of a member that is followed,
	// in bytes a second: twice what a dozen large fills tell. frameCost is
	// what a frame costs beside its bytes.
	hearRate, hearBurst = 2 << 20, 1 << 20
	frameCost           = 200
)

// readFrame reads a frame, with a body of most bytes at most. What it
// allocates is bounded by that, and by what comes.
func readFrame(r *bufio.Reader, most int64) (wire.FrameHead, []byte, error) {
	var raw [wire.FrameHeadSize]byte
	if _, err := io.ReadFull(r, raw[:]); err != nil {
		return wire.FrameHead{}, nil, err
	}
	head, err := wire.ParseFrameHead(raw)
	if err != nil {
		return head, nil, err
	}
	if int64(head.Length) > most {
		return head, nil, fmt.Errorf("%w: a frame of %d bytes", wire.ErrMalformed, head.Length)
	}
	const trusted = 64 << 10 // is allocated before it comes
	if head.Length <= trusted {
		body := make([]byte, head.Length)
		_, err = io.ReadFull(r, body)
		return head, body, err
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(head.Length)))
	if err == nil && len(body) < int(head.Length) {
		err = io.ErrUnexpectedEOF
	}
	return head, body, err
}

// wait returns after a while, or when ctx is done.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

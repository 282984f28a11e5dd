package origintest

import (
	"context"
	"sync"
	"time"
)

const (
	// sliceMax and sliceMin bound what one connection sends before another
	// one's turn comes: small enough to be fair, large enough that 1 Gbit/s
	// costs little CPU.
	sliceMax = 64 << 10
	sliceMin = 2 << 10
	// sliceTime is the airtime of a slice where the bounds allow it.
	sliceTime = 4 * time.Millisecond
	// lateMax is how far a busy link may catch up after a sleep that took too
	// long; timers are often a millisecond late.
	lateMax = 50 * time.Millisecond
	// nap is the shortest wait that is worth a sleep.
	nap = 500 * time.Microsecond
)

// uplink is a link of a fixed rate that all connections share. Each sender
// reserves one slice at a time, first come first served, so that senders which
// always have more to send get even shares, and waits until its last byte
// would have left.
type uplink struct {
	bytesPerSecond float64 // 0: no limit
	slice          int

	mu     sync.Mutex
	active int       // bodies that are being sent
	free   time.Time // when all that is reserved has left
}

func newUplink(bitsPerSecond int64) *uplink {
	u := &uplink{bytesPerSecond: float64(bitsPerSecond) / 8, slice: sliceMax}
	if bitsPerSecond > 0 {
		u.slice = min(max(int(u.bytesPerSecond*sliceTime.Seconds()), sliceMin), sliceMax)
	}
	return u
}

// begin and end enclose the sending of one body. A link with nothing to send
// saves up no credit.
func (u *uplink) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); u.active == 0 && u.free.Before(now) {
		u.free = now
	}
	u.active++
}

func (u *uplink) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.active--
}

// wait returns when n more bytes may have left, or with ctx's error.
func (u *uplink) wait(ctx context.Context, n int) error {
	if u.bytesPerSecond == 0 {
		return ctx.Err()
	}
	u.mu.Lock()
	now := time.Now()
	if oldest := now.Add(-lateMax); u.free.Before(oldest) {
		u.free = oldest
	}
	u.free = u.free.Add(time.Duration(float64(n) / u.bytesPerSecond * float64(time.Second)))
	d := u.free.Sub(now)
	u.mu.Unlock()
	if d < nap {
		return ctx.Err()
	}
	return sleep(ctx, d)
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

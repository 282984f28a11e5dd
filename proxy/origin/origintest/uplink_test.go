package origintest_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"shoal/proxy/origin/origintest"
)

func TestTheUplinkIsSharedExactlyAndEvenly(t *testing.T) {
	for _, rate := range []int64{2e7, 1e8} {
		for _, conns := range []int{1, 4, 25} {
			t.Run(fmt.Sprintf("%d Mbit/s, %d connections", rate/1e6, conns), func(t *testing.T) {
				inBubble(t, origintest.Options{UplinkBitsPerSecond: rate}, func(b bubble) {
					t, r, c := b.t, b.r, b.c
					size := rate / 8 / int64(conns) // one second for all together
					d := r.AddBlob("x", make([]byte, size))
					begin := time.Now()
					took := make([]time.Duration, conns)
					var all sync.WaitGroup
					for i := range conns {
						all.Go(func() {
							a, err := get(t, c, "http://o.test/v2/x/blobs/"+d.Digest.String())
							if err != nil || int64(len(a.body)) != size {
								t.Errorf("%d bytes, %v", len(a.body), err)
							}
							took[i] = time.Since(begin)
						})
					}
					all.Wait()
					first, last := slices.Min(took), slices.Max(took)
					if last < 980*time.Millisecond || last > 1020*time.Millisecond {
						t.Errorf("one second's worth took %v", last)
					}
					if first < 900*time.Millisecond {
						t.Errorf("a connection was done after %v: no even share", first)
					}
				})
			})
		}
	}
}

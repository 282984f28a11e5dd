package channel

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"shoal/p2p/swarmkey"
)

// BenchmarkTransfer moves 64 MiB bodies in requests of one piece from one
// member to another over loopback, HTTP/1.1 and all, on 1 and on 4 streams,
// and reports MB/s and the CPU seconds of both ends per GB.
func BenchmarkTransfer(b *testing.B) {
	const body, piece = 64 << 20, 1 << 20
	for _, streams := range []int{1, 4} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			key := swarmkey.New()
			alice, bob := newMember(b, key), newMember(b, key)
			l := listen(b, bob, ListenOptions{})
			content := make([]byte, piece)
			serve(b, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(piece))
				_, _ = w.Write(content)
			}))
			tr := &http.Transport{
				MaxIdleConnsPerHost: streams, MaxConnsPerHost: streams, ReadBufferSize: 64 << 10,
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return alice.Dial(ctx, bob.id, l.Addr().String())
				},
			}
			defer tr.CloseIdleConnections()
			fetch := func(n int) {
				buf := make([]byte, piece)
				for range n {
					resp, err := tr.RoundTrip(request(b))
					if err != nil {
						b.Error(err)
						return
					}
					if _, err := io.ReadFull(resp.Body, buf); err != nil {
						b.Error(err)
					}
					resp.Body.Close()
				}
			}
			fetch(4)
			b.ResetTimer()
			b.ReportAllocs()
			began, cpu := time.Now(), cpuTime(b)
			for b.Loop() {
				var wg sync.WaitGroup
				for range streams {
					wg.Go(func() { fetch(body / piece / streams) })
				}
				wg.Wait()
			}
			moved := float64(b.N) * body
			b.ReportMetric(moved/1e6/time.Since(began).Seconds(), "MB/s")
			b.ReportMetric((cpuTime(b)-cpu).Seconds()/(moved/1e9), "cpu-s/GB")
		})
	}
}

func request(b *testing.B) *http.Request {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://member/", nil)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRecords is the floor of BenchmarkTransfer: what sealing and opening
// the records of TLS costs both ends, and nothing else.
func BenchmarkRecords(b *testing.B) {
	const record = 16 << 10 // RFC 8446, section 5.1
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	nonce, head, plain := make([]byte, gcm.NonceSize()), make([]byte, 5), make([]byte, record)
	sealed, opened := make([]byte, 0, record+gcm.Overhead()), make([]byte, 0, record)
	b.SetBytes(record)
	for b.Loop() {
		if _, err := gcm.Open(opened, nonce, gcm.Seal(sealed, nonce, plain, head), head); err != nil {
			b.Fatal(err)
		}
	}
}

package channel

import (
	"bufio"
	"net"
	"sync"
)

const (
	// writeBuffer is how many bytes of TLS records are gathered into one
	// system call; crypto/tls writes each record of 16 KiB on its own. Five
	// interleaved runs of BenchmarkTransfer on a busy machine, one stream, both
	// ends together: 2.3 CPU s/GB with 16 KiB, 1.6 with 64 and 128, 1.5 with
	// 256. From 64 KiB on the ranges overlap.
	writeBuffer = 128 << 10
	// readBuffer is the size in bytes of a dialled connection's read buffer;
	// crypto/tls asks for one record at a time.
	readBuffer = 128 << 10
	// requestBuffer is that of an accepted one, on which only requests come.
	requestBuffer = 4 << 10
)

// buffered is the connection under crypto/tls. Reads go through a buffer.
// Writes between cork and uncork are gathered, all others go out at once: TLS
// also writes when nobody called Write (handshake, alerts, key updates).
type buffered struct {
	net.Conn
	r    *bufio.Reader
	pool *sync.Pool // of *[]byte with capacity writeBuffer

	mu     sync.Mutex
	corked bool
	buf    *[]byte // nil unless corked
	err    error   // first failed flush; sticky, as the stream has a hole
}

func newBuffered(c net.Conn, readSize int, pool *sync.Pool) *buffered {
	return &buffered{Conn: c, r: bufio.NewReaderSize(c, readSize), pool: pool}
}

func newBufferPool() *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, 0, writeBuffer)
		return &b
	}}
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	if !b.corked {
		return b.Conn.Write(p)
	}
	if len(*b.buf)+len(p) > writeBuffer {
		if err := b.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > writeBuffer {
		return b.Conn.Write(p)
	}
	*b.buf = append(*b.buf, p...)
	return len(p), nil
}

// cork starts to gather writes. Callers of cork and uncork take turns.
func (b *buffered) cork() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.corked = true
	b.buf = b.pool.Get().(*[]byte)
}

// uncork sends what was gathered.
func (b *buffered) uncork() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.flush()
	*b.buf = (*b.buf)[:0]
	b.pool.Put(b.buf)
	b.corked, b.buf = false, nil
	return err
}

func (b *buffered) flush() error {
	if b.err != nil || len(*b.buf) == 0 {
		return b.err
	}
	_, b.err = b.Conn.Write(*b.buf)
	*b.buf = (*b.buf)[:0]
	return b.err
}

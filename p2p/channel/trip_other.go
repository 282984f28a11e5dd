//go:build !linux

package channel

import (
	"net"
	"time"
)

// roundTrip returns elapsed: what the kernel measured is asked on Linux only.
func roundTrip(_ net.Conn, elapsed time.Duration) time.Duration { return elapsed }

package channel

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// roundTrip returns the shortest round trip that the kernel measured on raw
// (tcp_info, tcpi_min_rtt): however busy this process is. Otherwise it is
// elapsed.
func roundTrip(raw net.Conn, elapsed time.Duration) time.Duration {
	c, ok := raw.(syscall.Conn)
	if !ok {
		return elapsed
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return elapsed
	}
	trip := elapsed
	_ = rc.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.Min_rtt > 0 {
			trip = min(trip, time.Duration(info.Min_rtt)*time.Microsecond)
		}
	})
	return trip
}

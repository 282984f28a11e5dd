//go:build linux

package testhost

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// farQueue is how many packets are on the way at most, in each direction: a
// second of 100 Mbit/s.
const farQueue = 8 << 10

// AddFarHost adds a host as AddHost does, whose packets take delay each way,
// and of which the share loss vanishes each way. The kernels on which this runs
// need no netem for that: both ends of the link are TAP devices, between which
// goroutines of this process carry the packets until it ends.
func (n *Network) AddFarHost(name string, rate Rate, delay time.Duration, loss float64) (*Host, error) {
	h, err := n.AddHost(name, rate)
	if err != nil {
		return nil, err
	}
	if err := tool("ip", "link del "+h.port); err != nil {
		return nil, err
	}
	near, err := tap(h.port)
	if err != nil {
		return nil, err
	}
	var far *os.File
	if err := h.inside(func() (err error) { far, err = tap("eth0"); return err }); err != nil {
		return nil, errors.Join(err, near.Close())
	}
	for _, args := range []string{
		fmt.Sprintf("link set %s master %s up", h.port, bridge),
		fmt.Sprintf("-n %s addr add %s/24 dev eth0", name, h.Addr),
		fmt.Sprintf("-n %s link set eth0 up", name),
	} {
		if err := tool("ip", args); err != nil {
			return nil, errors.Join(fmt.Errorf("host %s: %w", name, err), near.Close(), far.Close())
		}
	}
	for _, way := range [][2]*os.File{{near, far}, {far, near}} {
		onTheWay := make(chan packet, farQueue)
		go depart(way[0], onTheWay, delay, loss)
		go arrive(way[1], onTheWay)
	}
	n.mu.Lock()
	n.far = append(n.far, near, far)
	n.mu.Unlock()
	return h, h.Shape(rate)
}

// packet is an Ethernet frame, and when it is there.
type packet struct {
	frame []byte
	at    time.Time
}

// depart reads frames until the device is closed.
func depart(from *os.File, onTheWay chan<- packet, delay time.Duration, loss float64) {
	defer close(onTheWay)
	buffer := make([]byte, 64<<10)
	for {
		size, err := from.Read(buffer)
		if err != nil {
			return
		}
		if rand.Float64() < loss {
			continue
		}
		select {
		case onTheWay <- packet{append([]byte(nil), buffer[:size]...), time.Now().Add(delay)}:
		default: // too many: lost, as in a queue that is full
		}
	}
}

// arrive writes frames when it is their time.
func arrive(to *os.File, onTheWay <-chan packet) {
	for p := range onTheWay {
		<-time.After(time.Until(p.at))
		_, _ = to.Write(p.frame) // a device that is down takes nothing, as a cut cable
	}
}

// tap makes a TAP device in the network namespace of the thread. It ends with
// the file.
func tap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

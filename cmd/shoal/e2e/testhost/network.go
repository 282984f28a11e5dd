//go:build linux

package testhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Rate is the rate of a link in bits per second, in each direction. Zero means
// unlimited.
type Rate int64

// Rates that links are given.
const (
	Mbit Rate = 1e6
	Gbit Rate = 1e9
)

const (
	bridge = "bridge0"
	// tbfBurst is what a link lets through at once. It is above the 64 KiB of
	// the largest packet that the kernel hands to a virtual link in one go,
	// and little beside the 25 MB of a second at 200 Mbit/s. A slow link lets
	// through what it carries in burstTime, and two packets at least: else it
	// would be a fast one for a second.
	tbfBurst  = 128 << 10
	burstTime = 25 * time.Millisecond
	twoFrames = 2 * 1514
	// tbfLatency is the longest that a packet waits in a link's queue before
	// it is dropped.
	tbfLatency = "25ms"
)

// Network is a set of hosts on one bridge. Its methods may be called by any
// goroutine.
type Network struct {
	dir string

	mu    sync.Mutex
	hosts []*Host
	far   []*os.File // ends of the links of far hosts
}

// NewNetwork returns a network without hosts. Folders and logs of its hosts
// come to lie in dir. The program must be isolated (Isolate).
func NewNetwork(dir string) (*Network, error) {
	for _, args := range []string{
		"link set lo up",
		"link add " + bridge + " type bridge",
		"link set " + bridge + " up",
	} {
		if err := tool("ip", args); err != nil {
			return nil, err
		}
	}
	return &Network{dir: dir}, nil
}

// Close kills every process of every host and waits for their ends.
func (n *Network) Close() {
	for _, h := range n.Hosts() {
		h.KillAll()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, end := range n.far {
		_ = end.Close() // what is on the way is lost
	}
}

// Hosts returns the hosts in the order in which they were added.
func (n *Network) Hosts() []*Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*Host(nil), n.hosts...)
}

// Host is one machine of the network.
type Host struct {
	// Name is also the name of its network namespace.
	Name string
	// Dir is the host's folder.
	Dir string
	// Addr is its address on the bridge.
	Addr netip.Addr

	port string // its end of the link at the bridge

	mu        sync.Mutex
	processes []*Process
}

// AddHost adds a host of that name (a short word), linked to the bridge at
// rate.
func (n *Network) AddHost(name string, rate Rate) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	number := len(n.hosts) + 1
	h := &Host{
		Name: name,
		Dir:  filepath.Join(n.dir, name),
		Addr: netip.AddrFrom4([4]byte{10, 77, 0, byte(number)}),
		port: fmt.Sprintf("port%d", number),
	}
	if err := os.MkdirAll(h.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	for _, args := range []string{
		"netns add " + name,
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", h.port, name),
		fmt.Sprintf("link set %s master %s up", h.port, bridge),
		fmt.Sprintf("-n %s addr add %s/24 dev eth0", name, h.Addr),
		fmt.Sprintf("-n %s link set eth0 up", name),
		fmt.Sprintf("-n %s link set lo up", name),
	} {
		if err := tool("ip", args); err != nil {
			return nil, fmt.Errorf("host %s: %w", name, err)
		}
	}
	if err := h.Shape(rate); err != nil {
		return nil, err
	}
	n.hosts = append(n.hosts, h)
	return h, nil
}

// Shape sets the rate of the host's link, in both directions.
func (h *Host) Shape(rate Rate) error {
	shape := shapeOf(rate)
	if err := tool("tc", "qdisc replace dev "+h.port+" "+shape); err != nil {
		return fmt.Errorf("shape %s: %w", h.Name, err)
	}
	if err := tool("tc", "-n "+h.Name+" qdisc replace dev eth0 "+shape); err != nil {
		return fmt.Errorf("shape %s: %w", h.Name, err)
	}
	return nil
}

// shapeOf is what tc is told of a link of that rate.
func shapeOf(rate Rate) string {
	if rate == 0 {
		return "root pfifo limit 1000"
	}
	burst := min(tbfBurst, max(twoFrames, int64(rate)/8*int64(burstTime)/int64(time.Second)))
	return fmt.Sprintf("root tbf rate %dbit burst %db latency %s", rate, burst, tbfLatency)
}

// Unplug cuts the host's link: from now on packets vanish, and nobody is told.
func (h *Host) Unplug() error { return tool("ip", "link set "+h.port+" down") }

// Plug undoes Unplug.
func (h *Host) Plug() error { return tool("ip", "link set "+h.port+" up") }

// Traffic returns how many bytes have gone over the host's link so far, in both
// directions together, headers included.
func (h *Host) Traffic(ctx context.Context) (int64, error) {
	received, sent, err := h.Moved(ctx)
	return received + sent, err
}

// Moved returns the same for each direction.
func (h *Host) Moved(ctx context.Context) (received, sent int64, err error) {
	return traffic(ctx, "-netns", h.Name, "link", "show", "dev", "eth0")
}

// traffic returns what has gone over the link that ip shows for args.
func traffic(ctx context.Context, args ...string) (received, sent int64, err error) {
	out, err := exec.CommandContext(ctx, "ip", append([]string{"-json", "-statistics"}, args...)...).Output()
	if err != nil {
		return 0, 0, fmt.Errorf("traffic of %v: %w", args, err)
	}
	type counter struct {
		Bytes int64 `json:"bytes"`
	}
	var links []struct {
		Stats struct{ RX, TX counter } `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		return 0, 0, fmt.Errorf("traffic of %v: ip said %q: %w", args, out, err)
	}
	return links[0].Stats.RX.Bytes, links[0].Stats.TX.Bytes, nil
}

// Listen listens on the TCP port of addr, which is one of the host's addresses.
// The listener may be used from anywhere.
func (h *Host) Listen(ctx context.Context, addr netip.Addr, port uint16) (net.Listener, error) {
	var l net.Listener
	err := h.inside(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(addr, port).String())
		return err
	})
	return l, err
}

// DialContext connects from the host to addr, an IP address and port.
func (h *Host) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		// A name would be looked up by another thread, outside the host.
		return nil, fmt.Errorf("dial from %s: %w", h.Name, err)
	}
	var c net.Conn
	err := h.inside(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Client returns an HTTP client on the host, which gives a request up after
// timeout (zero: never).
func (h *Host) Client(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext:        h.DialContext,
			DisableCompression: true,
			// A kept connection to a process that was killed and started again
			// would fail the first request to the new one.
			DisableKeepAlives: true,
		},
	}
}

// inside runs f on a thread in the host's network namespace. The thread ends
// with it: it stays locked, so that no other goroutine ever runs there.
func (h *Host) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open(h.netns())
			if err != nil {
				return err
			}
			defer func() { _ = ns.Close() }() // only read
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", h.Name, err)
			}
			return f()
		}()
	}()
	return <-done
}

func (h *Host) netns() string { return "/run/netns/" + h.Name }

// tool runs a program of iproute2.
func tool(name, args string) error {
	out, err := exec.Command(name, strings.Fields(args)...).CombinedOutput() //nolint:noctx // it only talks to the kernel and ends at once
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, args, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// pollInterval is how often Until asks. The conditions are a look at a counter
// or a request on loopback, and the shortest events waited for last 100 ms.
const pollInterval = 20 * time.Millisecond

// ErrGone ends an Until: what is waited for will not come.
var ErrGone = errors.New("will not happen any more")

// Until asks condition until it returns nil. After deadline, or once the
// condition's error is ErrGone, it returns the condition's last error.
func Until(ctx context.Context, deadline time.Duration, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := condition(ctx)
		if err == nil || errors.Is(err, ErrGone) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", deadline, err)
		case <-tick.C:
		}
	}
}

package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	circuitpb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"
)

// RelayLimits bound what a relay gives. Zero values mean the defaults.
type RelayLimits struct {
	// Rate is how many bytes are relayed in a second, over all circuits and in
	// both directions together; CircuitRate is that of one circuit.
	Rate, CircuitRate int64
	// Reservations is how many members can be reached over this one.
	Reservations int
	// Circuits is how many connections between members are relayed at a time.
	Circuits int
}

// The defaults: a fifth of a gigabit, of which one pair of members takes a
// quarter at most, and room for a few hundred members.
const (
	DefaultRelayRate         = 24 << 20
	DefaultRelayCircuitRate  = 6 << 20
	DefaultRelayReservations = 256
	DefaultRelayCircuits     = 512
)

const (
	// relayBuffer is what is read from a circuit at a time, in each direction,
	// in bytes: the limits are kept with that precision.
	relayBuffer = 32 << 10
	// memberCircuits bounds the circuits of one member.
	memberCircuits = 64
	// reservationLife is how long a reservation holds; members renew it.
	reservationLife = 30 * time.Minute
	// circuitLife ends a circuit: its members try again to reach each other
	// without a relay, and make a new one if they do not.
	circuitLife = time.Hour
)

// relay carries bytes between members that cannot reach each other: circuit
// relay v2 of libp2p with limits that fit pieces. libp2p's own count bytes and
// end a circuit, in the middle of a piece; here bytes are let through at a
// rate. Members have a TLS connection with each other through the circuit: a
// relay sees who talks to whom, and how much. Strangers do not get to it, as to
// nothing of this host (package pnet).
type relay struct {
	service *circuit.Relay
	limits  RelayLimits

	bytes                  atomic.Int64 // relayed since the start
	circuits, reservations atomic.Int64 // now
}

func (l RelayLimits) withDefaults() RelayLimits {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Rate, DefaultRelayRate)
	def(&l.CircuitRate, DefaultRelayCircuitRate)
	if l.Reservations <= 0 {
		l.Reservations = DefaultRelayReservations
	}
	if l.Circuits <= 0 {
		l.Circuits = DefaultRelayCircuits
	}
	return l
}

// startRelay serves members on h until close.
func startRelay(h host.Host, limits RelayLimits) (*relay, error) {
	r := &relay{limits: limits.withDefaults()}
	metered := &meteredHost{Host: h, all: limiter(r.limits.Rate), each: r.limits.CircuitRate, life: circuitLife}
	var err error
	r.service, err = circuit.New(metered,
		circuit.WithResources(circuit.Resources{
			ReservationTTL:  reservationLife,
			MaxReservations: r.limits.Reservations,
			// All of a site come from one address.
			MaxReservationsPerIP: r.limits.Reservations, MaxReservationsPerASN: r.limits.Reservations,
			MaxCircuits: memberCircuits,
			BufferSize:  relayBuffer,
		}),
		circuit.WithInfiniteLimits(), // those of libp2p; meteredHost has ours
		circuit.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true }), // private addresses, too
		circuit.WithACL(relayDoor{r}),
		circuit.WithMetricsTracer(relayCount{r}))
	if err != nil {
		return nil, fmt.Errorf("p2p: relay: %w", err)
	}
	return r, nil
}

func (r *relay) close() { _ = r.service.Close() } // it says nothing

// limiter lets bytes through at a rate, one buffer at once at least.
func limiter(bytesPerSecond int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(bytesPerSecond), max(relayBuffer, int(bytesPerSecond/20)))
}

// relayDoor says who may what: members whatever there is room for.
type relayDoor struct{ r *relay }

// AllowReserve is for everybody: the service counts reservations.
func (relayDoor) AllowReserve(peer.ID, ma.Multiaddr) bool { return true }

// AllowConnect bounds the circuits.
func (d relayDoor) AllowConnect(peer.ID, ma.Multiaddr, peer.ID) bool {
	return d.r.circuits.Load() < int64(d.r.limits.Circuits)
}

// relayCount counts what the service does.
type relayCount struct{ r *relay }

func (c relayCount) RelayStatus(bool)               {}
func (c relayCount) ConnectionOpened()              { c.r.circuits.Add(1) }
func (c relayCount) ConnectionClosed(time.Duration) { c.r.circuits.Add(-1) }
func (c relayCount) BytesTransferred(n int)         { c.r.bytes.Add(int64(n)) }
func (c relayCount) ReservationClosed(n int)        { c.r.reservations.Add(int64(-n)) }

func (c relayCount) ReservationAllowed(renewal bool) {
	if !renewal {
		c.r.reservations.Add(1)
	}
}

func (c relayCount) ConnectionRequestHandled(circuitpb.Status)  {}
func (c relayCount) ReservationRequestHandled(circuitpb.Status) {}

// meteredHost gives the service streams that keep to the limits. A circuit is a
// stream that came in, to ask for it, and one that was opened to the other end.
type meteredHost struct {
	host.Host
	all  *rate.Limiter
	each int64
	life time.Duration // of a circuit
}

// SetStreamHandler has the streams that come in metered.
func (m *meteredHost) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	m.Host.SetStreamHandler(id, func(s network.Stream) { handle(m.meter(s)) })
}

// NewStream opens the stream to the other end of a circuit, which ends with it.
func (m *meteredHost) NewStream(ctx context.Context, id peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	s, err := m.Host.NewStream(ctx, id, protocols...)
	if err != nil {
		return nil, err
	}
	metered := m.meter(s)
	metered.end = time.AfterFunc(m.life, func() {
		metered.over()
		_ = s.Reset() // the service resets the other stream then
	})
	return metered, nil
}

func (m *meteredHost) meter(s network.Stream) *meteredStream {
	ctx, cancel := context.WithCancel(context.Background())
	return &meteredStream{Stream: s, limits: []*rate.Limiter{limiter(m.each), m.all}, life: ctx, over: cancel}
}

// meteredStream is read no faster than the limits allow.
type meteredStream struct {
	network.Stream
	limits []*rate.Limiter // its own first
	life   context.Context // of the stream; ends waits
	over   context.CancelFunc
	end    *time.Timer // nil on streams that came in
}

// Read reads relayBuffer bytes at most, and returns when they may go on.
func (s *meteredStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p[:min(len(p), relayBuffer)])
	for _, l := range s.limits {
		if werr := l.WaitN(s.life, n); werr != nil {
			return 0, errors.Join(err, werr)
		}
	}
	return n, err
}

// Close and Reset end what was waited for.
func (s *meteredStream) Close() error {
	s.done()
	return s.Stream.Close()
}

// Reset ends the stream at once.
func (s *meteredStream) Reset() error {
	s.done()
	return s.Stream.Reset()
}

func (s *meteredStream) done() {
	s.over()
	if s.end != nil {
		s.end.Stop()
	}
}

package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"shoal/p2p/channel"
	"shoal/p2p/exchange"
	"shoal/p2p/penalty"
	"shoal/p2p/wire"
)

const (
	// requestTimeout bounds the wait for the header of a request on the piece
	// channel, idleTimeout that for the next one. Members keep connections
	// warm: a fresh one is slow (a fifth of 1 Gbit/s over its first 4 MiB).
	requestTimeout = 5 * time.Second
	idleTimeout    = 2 * time.Minute
	// maxRequestHeader bounds the header of a request, in bytes.
	maxRequestHeader = 16 << 10
	// drainTimeout is how long pieces that are being served may take to leave
	// when the node stops.
	drainTimeout = 2 * time.Second
)

// Node is a member of a swarm. Its methods may be called from any goroutine,
// before, while and after Run.
type Node struct {
	s       settings
	log     *slog.Logger
	metrics *metrics
	tasks   *tasks

	host     host.Host
	dht      *dht.IpfsDHT
	channel  *channel.Channel
	pieces   *channel.Listener
	streams  *channel.Listener // the same, over libp2p
	exchange *exchange.Exchange

	greeter   *greeter
	joiner    *joiner
	announcer *announcer
	spreader  *spreader
	preheater *preheater
	avoid     *penalty.Box // holders that could not be reached
	relay     *relay       // nil if it is none
	reserver  *reserver
	puncher   *puncher

	closing sync.Once
}

// New opens the sockets of a node. Errors: *OptionError for options that
// cannot be used, those of the system for addresses that cannot be had.
func New(o Options) (_ *Node, err error) {
	s, err := o.check()
	if err != nil {
		return nil, err
	}
	n := &Node{s: s, log: s.Logger.With("part", "p2p"), tasks: newTasks(), avoid: penalty.NewBox(unreachable())}
	defer func() {
		if err != nil {
			_ = n.Close()
		}
	}()
	if n.channel, err = channel.New(s.Identity, s.Key); err != nil {
		return nil, err
	}
	limits := channel.ListenOptions{MaxConns: max(16, openFiles()/4)}
	listener := s.PieceListener
	if listener == nil {
		var lc net.ListenConfig
		if listener, err = lc.Listen(context.Background(), "tcp", s.pieces); err != nil {
			return nil, fmt.Errorf("p2p: pieces %s: %w", s.pieces, rootCause(err))
		}
	}
	n.pieces = n.channel.NewListener(listener, limits)
	if n.metrics, err = newMetrics(s.Metrics, n); err != nil {
		return nil, err
	}
	if n.host, err = newHost(s); err != nil {
		return nil, err
	}
	if n.dht, err = newDHT(n.host); err != nil {
		return nil, err
	}
	if err = n.crossNATs(limits); err != nil {
		return nil, err
	}
	n.announcer = newAnnouncer(n)
	n.joiner = newJoiner(n)
	n.spreader = newSpreader(n)
	n.preheater = &preheater{n: n}
	n.exchange, err = exchange.New(exchange.Options{
		Identity: s.Identity, Cache: s.Cache, Channel: n.channel, Streams: streams{n}, Swarm: members{n}, Upload: s.Upload, Download: s.Download, Patience: s.Patience, Logger: n.log, Metrics: s.Metrics, Trace: s.Trace,
	})
	return n, err
}

// crossNATs opens what leads through NATs and over relays.
func (n *Node) crossNATs(limits channel.ListenOptions) error {
	inner, err := n.listenOnStreams()
	if err != nil {
		return err
	}
	n.streams = n.channel.NewListener(inner, limits)
	n.reserver = newReserver(n)
	if n.s.Relay != nil {
		if n.relay, err = startRelay(n.host, *n.s.Relay); err != nil {
			return err
		}
	}
	n.puncher = newPuncher(n)
	n.greeter = newGreeter(n) // after what it tells about, and has told
	return n.puncher.start()
}

// Run is a member of the swarm until ctx is done, and returns when everything
// that it started has ended; the node is closed then. It is called once.
func (n *Node) Run(ctx context.Context) error {
	defer func() { _ = n.Close() }()
	n.log.Info("swarm", "id", n.s.id, "addresses", n.Addrs(), "pieces", n.pieceAddrs(), "key", n.s.Key.String())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var failed error
	var once sync.Once
	start := func(run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				once.Do(func() { failed = err })
				cancel()
			}
		})
	}
	start(n.watch)
	start(n.announcer.run)
	start(n.announcer.follow)
	start(func(ctx context.Context) error { return n.servePieces(ctx, n.pieces) })
	start(func(ctx context.Context) error { return n.servePieces(ctx, n.streams) })
	start(n.reserver.run)
	start(n.spreader.run)
	start(func(ctx context.Context) error {
		<-ctx.Done()
		return n.exchange.Close() // fills end before the host does
	})
	start(func(ctx context.Context) error { n.joiner.run(ctx); return nil })
	start(func(ctx context.Context) error { n.exchange.KeepWarm(ctx); return nil })
	if !n.s.NoMDNS {
		start(func(ctx context.Context) error { n.searchLocally(ctx); return nil })
	}
	wg.Wait()
	return failed
}

// servePieces answers members on the piece channel.
func (n *Node) servePieces(ctx context.Context, from net.Listener) error {
	var handler http.Handler = n.exchange
	if n.s.WrapPieces != nil {
		handler = n.s.WrapPieces(handler)
	}
	srv := &http.Server{
		Handler:           handler,
		ConnContext:       channel.ConnContext,
		ReadHeaderTimeout: requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxRequestHeader,
		// What it would log are failed handshakes of strangers.
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if srv.Shutdown(drain) != nil {
			_ = srv.Close()
		}
	})
	err := srv.Serve(from)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("p2p: piece channel: %w", err)
}

// Close releases a node. Run does it by itself.
func (n *Node) Close() error {
	n.closing.Do(func() {
		if n.exchange != nil {
			_ = n.exchange.Close()
		}
		n.tasks.close()
		if n.streams != nil {
			n.streams.Close()
		}
		if n.puncher != nil {
			n.puncher.close()
		}
		if n.relay != nil {
			n.relay.close()
		}
		if n.dht != nil {
			_ = n.dht.Close()
		}
		if n.host != nil {
			_ = n.host.Close()
		}
		if n.pieces != nil {
			n.pieces.Close()
		}
	})
	return nil
}

// ID returns the peer ID of this node.
func (n *Node) ID() peer.ID { return n.s.id }

// Addrs returns the addresses that others can join this node by, with its ID.
// Those over relays are not among them: they come and go.
func (n *Node) Addrs() []ma.Multiaddr {
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: n.s.id, Addrs: slices.DeleteFunc(n.host.Addrs(), isCircuit)})
	if err != nil {
		return nil // only for an ID that is none
	}
	return addrs
}

// Zone returns the zone of this node.
func (n *Node) Zone() string { return n.s.Zone }

// Peers returns how many members are connected.
func (n *Node) Peers() int { return len(n.host.Network().Peers()) }

// Joined reports whether a member is connected.
func (n *Node) Joined() bool { return n.Peers() > 0 }

// JoinTried is closed when each entry of Options.Join was joined or tried
// once, at most 3 s after Run began.
func (n *Node) JoinTried() <-chan struct{} { return n.joiner.tried }

// pieceAddrs returns the "host:port" under which members reach the piece
// channel: the announced hosts, else the address that it listens on, else
// those of the libp2p host.
func (n *Node) pieceAddrs() []string {
	local, ok := n.pieces.Addr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	port := fmt.Sprint(local.Port)
	if len(n.s.Announce) == 0 && !local.IP.IsUnspecified() {
		return []string{net.JoinHostPort(local.IP.String(), port)}
	}
	var addrs []string
	for _, a := range n.host.Addrs() {
		host, _, err := hostPort(a)
		if err != nil {
			continue
		}
		addr := net.JoinHostPort(host, port)
		if !slices.Contains(addrs, addr) && len(addrs) < wire.MaxAddrs {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"shoal/blobcache"
	"shoal/blobcache/statement"
	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
	"shoal/cmd/shoal/internal/handover"
	"shoal/cmd/shoal/internal/pulls"
	"shoal/cmd/shoal/internal/runfile"
	"shoal/p2p"
	"shoal/p2p/swarmkey"
	"shoal/proxy"
	"shoal/proxy/origin"
	"shoal/proxy/pull"
	"shoal/seeder"
)

// service is a node: every part of it, opened and wired, not yet running.
type service struct {
	cfg     config.Config
	log     *slog.Logger
	metrics *prometheus.Registry

	cache  *blobcache.Cache
	budget int64 // of the cache, in bytes
	signer *statement.Signer
	limits *limits
	node   *p2p.Node
	origin *origin.Client
	proxy  *proxy.Proxy
	pulls  *pulls.Store
	seen   *pull.Recorder // of requests, for the reports
	mirror endpoint
	admin  endpoint
	files  endpoint // admin's, for those who hand files over; without a server if there is none

	seeder  *seeder.Seeder
	webhook endpoint         // without a server if there is none
	hangups <-chan os.Signal // SIGHUP; at each the settings are read again
	reread  func() (config.Config, error)

	stopping atomic.Bool
}

// newService opens files and sockets, so that what cannot work is an error
// before anything runs. What it opened is closed again on failure, and at the
// end of run.
func newService(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *service, err error) {
	s := &service{cfg: cfg, log: log, metrics: prometheus.NewRegistry()}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewBuildInfoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.limits = newLimits(cfg, s.metrics)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for _, open := range []func(context.Context) error{s.openCache, s.openPulls, s.listen, s.joinable, s.wire, s.openSeeder} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// openCache takes possession of the data directory.
func (s *service) openCache(context.Context) (err error) {
	dir := s.cfg.DataDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w; name another with --data-dir", err)
	}
	s.budget = s.cfg.CacheSize
	if s.budget == 0 {
		if s.budget, err = defaultCacheSize(dir); err != nil {
			return err
		}
	}
	if s.signer, err = s.signingKey(); err != nil {
		return err
	}
	s.cache, err = blobcache.Open(dir, blobcache.Options{
		Budget: s.budget, HighWater: s.cfg.HighWater, LowWater: s.cfg.LowWater, MinFree: s.cfg.MinFree, MaxAge: s.cfg.MaxAge,
		ScrubEvery: s.cfg.ScrubEvery, ScrubRate: s.cfg.ScrubRate, ReverifyAfter: s.cfg.Reverify, TrustedKeys: s.cfg.TrustedKeys, Signer: s.signer, Logger: s.log, Metrics: s.metrics,
	})
	return err
}

// signingKey reads the key with which the node signs; nil if it has none.
func (s *service) signingKey() (*statement.Signer, error) {
	path := s.cfg.SigningKey
	if path == "" {
		return nil, nil
	}
	signer, err := loadSigningKey(path)
	if err != nil {
		return nil, err
	}
	if readableByOthers(path) {
		s.log.Warn("everybody on this machine can read the signing key: chmod it to 600", "file", path)
	}
	s.log.Info("this node signs chains of blobs and leases of tags", "key", signer.Key().String())
	return signer, nil
}

// openPulls reads the reports of pulls.
func (s *service) openPulls(context.Context) (err error) {
	if s.pulls, err = pulls.Open(s.cfg.DataDir, s.log, s.metrics); err == nil {
		s.seen = pull.NewRecorder(s.pulls.Add)
	}
	return err
}

// listen opens the endpoints for runtimes and for the operator.
func (s *service) listen(ctx context.Context) (err error) {
	if s.mirror.listener, err = listen(ctx, "mirror", s.cfg.Mirror); err != nil {
		return err
	}
	if s.admin.listener, err = listen(ctx, "admin", s.cfg.Admin); err != nil {
		return err
	}
	if s.files.listener, err = handover.Listen(ctx); err != nil {
		s.log.Debug("archives will come and go by HTTP alone", "error", err)
	}
	return nil
}

// joinable makes this a member of the swarm that others can dial.
func (s *service) joinable(ctx context.Context) error {
	key, err := s.swarmKey()
	if err != nil {
		return err
	}
	identity, err := loadIdentity(filepath.Join(s.cfg.DataDir, identityFile))
	if err != nil {
		return err
	}
	if err := s.probeSwarm(ctx); err != nil {
		return err
	}
	s.node, err = p2p.New(p2p.Options{ //nolint:contextcheck // it lives until Run ends or Close
		Identity:    identity,
		Key:         key,
		Swarm:       s.cfg.Swarm,
		Announce:    s.cfg.Announce,
		Join:        s.cfg.Join,
		Pieces:      s.cfg.Pieces,
		NoMDNS:      !s.cfg.MDNS,
		Zone:        s.cfg.Zone,
		NAT:         s.nat(),
		Relay:       s.relay(),
		TrustedKeys: s.cfg.TrustedKeys,
		Obey:        s.obey,
		Lease:       s.lease,
		Upload:      s.limits.upload.Limiter,
		Download:    s.limits.download.Limiter,
		Patience:    s.cfg.Patience,
		Preheat:     s.fetchOrdered,
		Version:     version(),
		Cache:       s.cache,
		Logger:      s.log,
		Metrics:     s.metrics,
		Trace:       s.seen.Fill,
	})
	return err
}

// nat is what the operator says about it.
func (s *service) nat() p2p.NAT {
	switch s.cfg.BehindNAT {
	case config.ReachBehind:
		return p2p.BehindNAT
	case config.ReachOpen:
		return p2p.NoNAT
	}
	return p2p.NATUnknown
}

// relay returns the limits of a relay, nil if the node is none.
func (s *service) relay() *p2p.RelayLimits {
	r := s.cfg.Relay
	if !r.Enabled {
		return nil
	}
	return &p2p.RelayLimits{Rate: r.Rate, CircuitRate: r.CircuitRate, Reservations: r.Reservations, Circuits: r.Circuits}
}

// probeSwarm tries the addresses that package p2p is going to listen on.
func (s *service) probeSwarm(ctx context.Context) error {
	for _, m := range s.cfg.Swarm {
		addr, err := manet.ToNetAddr(m)
		if err != nil {
			return fmt.Errorf("--swarm: %w", err)
		}
		if err := probe(ctx, "swarm", addr.String()); err != nil {
			return err
		}
	}
	if s.cfg.Pieces == "" {
		return nil
	}
	return probe(ctx, "pieces", s.cfg.Pieces)
}

// swarmKey reads the key file; without one the swarm is that of the loopback
// interface.
func (s *service) swarmKey() (*swarmkey.Key, error) {
	path := s.cfg.SwarmKey
	if path == "" {
		return nil, nil
	}
	key, err := swarmkey.Load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; make it with \"shoal swarm-key new > %s\", or copy it from another member", err, path)
	case err != nil:
		return nil, fmt.Errorf("%w; it must be readable, and made by \"shoal swarm-key new\"", err)
	}
	if readableByOthers(path) {
		s.log.Warn("everybody on this machine can read the swarm key: chmod it to 600", "file", path)
	}
	return key, nil
}

// wire connects the parts that talk HTTP.
func (s *service) wire(context.Context) (err error) {
	s.origin, err = origin.New(origin.Options{
		Registries: s.cfg.Registries, Offline: s.cfg.Offline, MaxManifest: s.cfg.ManifestSize, Pace: s.limits.incoming(), UserAgent: "shoal/" + version(), Logger: s.log, Metrics: s.metrics,
	})
	if err != nil {
		return err
	}
	s.proxy, err = proxy.New(proxy.Options{
		Cache: s.cache, Fetcher: s.node, Origin: s.origin, Offline: s.cfg.Offline, MaxManifest: s.cfg.ManifestSize, Signer: s.signer, Lease: s.node.SpreadLease,
		Logger: s.log, Metrics: s.metrics, Pulls: s.seen,
	})
	if err != nil {
		return err
	}
	s.mirror.server = s.proxy.Server()
	s.admin.server = smallServer(admin.Handler(admin.Options{
		Gatherer: s.metrics, Status: s.status, Peers: s.peers, Invalidate: s.invalidate, Pulls: s.pulls, Limits: s.limits.state, SetLimits: s.setLimits, Cache: s.cacheVerbs(), Pull: s.pull, Preheat: s.preheat,
		Seeder: func() seeder.Report { return s.seeder.Report() }, Look: s.lookNow, Unready: s.unready, Logger: s.log,
	}), s.log)
	s.admin.server.ConnContext = handover.Context
	s.files.server = s.admin.server
	return nil
}

// smallServer serves small requests and answers.
func smallServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// unready returns why the node should not be used, or "".
func (s *service) unready() string {
	if s.stopping.Load() {
		return "stopping"
	}
	select {
	case <-s.node.JoinTried():
		return ""
	default:
		return "joining the swarm"
	}
}

// status is what the node knows of itself.
func (s *service) status() admin.Status {
	st := admin.Status{
		ID:      s.node.ID().String(),
		Version: version(),
		Joined:  s.node.Joined(),
		Offline: s.cfg.Offline,
		Members: []admin.Member{},
		Addrs:   s.addrs(),
		Mirror:  s.mirror.addr(),
		Zone:    s.node.Zone(),
		Cache:   admin.Cache{Budget: s.budget},
		Limits:  s.limits.state(),
		Fills:   []admin.Fill{},
	}
	reach := s.node.Reachability()
	st.Reachability = admin.Reachability{BehindNAT: reach.BehindNAT, Relays: []string{}, Relaying: admin.Relaying(reach.Relaying)}
	for _, a := range reach.Relays {
		st.Reachability.Relays = append(st.Reachability.Relays, a.String())
	}
	if s.files.listener != nil {
		st.Socket = s.files.addr()
	}
	for _, m := range s.node.Members() {
		st.Members = append(st.Members, admin.Member{ID: m.Peer.String(), Addr: m.Addr.String(), Zone: m.Zone, Way: m.Way})
	}
	st.Peers = len(st.Members)
	for _, f := range s.node.Fills() {
		st.Fills = append(st.Fills, admin.Fill{
			Digest: f.Blob.Digest.String(), Size: f.Blob.Size, Pieces: f.Pieces, Done: f.Done,
			Members: f.Members, FromOrigin: f.FromOrigin, FromPeers: f.FromPeers,
		})
	}
	return st
}

// peers lists the members that the node knows.
func (s *service) peers() []admin.Peer {
	peers := []admin.Peer{}
	for _, k := range s.node.Known() {
		peers = append(peers, peerOf(k))
	}
	return peers
}

// peerOf is a member as the admin endpoint shows it.
func peerOf(k p2p.Known) admin.Peer {
	p := admin.Peer{
		Member: admin.Member{ID: k.Peer.String(), Zone: k.Zone, Way: k.Way}, Version: k.Version, Connected: k.Addr != nil,
		RoundTrip: k.Trade.RoundTrip.Seconds(), Taken: admin.Traffic(k.Trade.Taken), Given: admin.Traffic(k.Trade.Given),
		Slow: k.Trade.Slow, Silent: k.Trade.Silent,
	}
	if p.Connected {
		p.Addr = k.Addr.String()
	}
	if ban := k.Trade.Ban; ban != nil {
		p.Ban = &admin.Ban{About: ban.Why, Until: ban.Until}
	}
	return p
}

// addrs returns the addresses by which others can join this node.
func (s *service) addrs() []string {
	addrs := []string{}
	for _, a := range s.node.Addrs() {
		addrs = append(addrs, a.String())
	}
	return addrs
}

// announce tells people and programs where the node listens.
func (s *service) announce() error {
	s.log.Info("listening", "mirror", s.mirror.addr(), "admin", s.admin.addr(), "swarm", s.addrs(),
		"id", s.node.ID().String(), "version", version(), "data_dir", s.cfg.DataDir, "cache_size", size(s.budget), "swarm_key", s.cfg.SwarmKey != "")
	if s.cfg.Offline {
		s.log.Warn("offline: no registry is asked, tags are what they were when one was, or what an import says")
	}
	return runfile.Write(s.cfg.DataDir, runfile.Listening{
		PID: os.Getpid(), ID: s.node.ID().String(), Mirror: s.mirror.addr(), Admin: s.admin.addr(), Addrs: s.addrs(),
	})
}

// close releases what newService opened, in the reverse order. The parts that
// ran have ended.
func (s *service) close() error {
	var errs []error
	if s.origin != nil {
		s.origin.Close()
	}
	if s.node != nil {
		errs = append(errs, s.node.Close())
	}
	for _, e := range s.endpoints() {
		if e.listener != nil {
			// It may have been closed by its server.
			_ = e.listener.Close()
		}
	}
	if s.cache != nil {
		errs = append(errs, s.cache.Close())
	}
	return errors.Join(errs...)
}

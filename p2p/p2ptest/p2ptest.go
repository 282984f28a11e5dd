// Package p2ptest makes swarms for tests: a cluster is a declaration, its
// nodes are real ones on loopback, in this process, each with a cache and a
// data directory of its own. Members can be stopped, their piece channels
// frozen, and they can be made to lie (lies.go).
//
// Everything ends with the test; a node whose Run fails, fails it.
package p2ptest

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p"
	"shoal/p2p/p2ptest/forge"
	"shoal/p2p/swarmkey"
)

// Options describe a cluster. The zero value is usable.
type Options struct {
	// Key closes the swarm; nil means a fresh one.
	Key *swarmkey.Key
	// Logger of all nodes; nil discards what they say.
	Logger *slog.Logger
	// Lies says how members misbehave on the piece channel, by their index.
	Lies map[int]Lie
	// Forges says what they say that is not so about the pieces they give, by
	// their index.
	Forges map[int]forge.Lie
	// Patience is how long members wait for each other; 0 is as nodes run.
	Patience time.Duration
	// Cache are the options of each cache; Metrics stays nil.
	Cache blobcache.Options
	// Configure changes the options of member i before it is made.
	Configure func(i int, o *p2p.Options)
}

// Cluster is a swarm of connected members.
type Cluster struct {
	Members []*Member

	t testing.TB
	o Options
}

// Member is one node of a cluster.
type Member struct {
	*p2p.Node
	Cache *blobcache.Cache
	Dir   string // data directory

	t    testing.TB
	gate *gate
	stop func()
}

// NewCluster starts n members, the first of which all others join, and returns
// when each has joined.
func NewCluster(tb testing.TB, n int, o Options) *Cluster {
	tb.Helper()
	if o.Key == nil {
		o.Key = swarmkey.New()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cluster{t: tb, o: o}
	for range n {
		c.start()
	}
	for _, m := range c.Members {
		m.joined()
	}
	return c
}

// Add starts one more member and returns when it has joined.
func (c *Cluster) Add() *Member {
	c.t.Helper()
	m := c.start()
	m.joined()
	return m
}

func (c *Cluster) start() *Member {
	c.t.Helper()
	i := len(c.Members)
	id, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	m := &Member{t: c.t, Dir: c.t.TempDir()}
	if m.Cache, err = blobcache.Open(m.Dir, c.o.Cache); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = m.Cache.Close() })
	var lc net.ListenConfig
	inner, err := lc.Listen(c.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	m.gate = newGate(inner)
	o := p2p.Options{
		Identity: id, Cache: m.Cache, Key: c.o.Key, Logger: c.o.Logger.With("member", i),
		Swarm:         []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		PieceListener: m.gate, NoMDNS: true, Patience: c.o.Patience,
	}
	if lie, ok := c.o.Lies[i]; ok {
		o.WrapPieces = lie.Wrap
	}
	if lie, ok := c.o.Forges[i]; ok {
		o.WrapPieces = func(honest http.Handler) http.Handler { return forger{lie, signer(c.t, id), honest} }
	}
	if i > 0 {
		o.Join = c.Members[0].Addrs()
	}
	if c.o.Configure != nil {
		c.o.Configure(i, &o)
	}
	if m.Node, err = p2p.New(o); err != nil {
		inner.Close()
		c.t.Fatal(err)
	}
	m.run()
	c.Members = append(c.Members, m)
	return m
}

func (m *Member) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		m.gate.thaw()
		cancel()
		if err := <-done; err != nil {
			m.t.Errorf("p2ptest: member %s: %v", m.ID(), err)
		}
	})
	m.t.Cleanup(m.stop)
}

func (m *Member) joined() {
	m.t.Helper()
	select {
	case <-m.JoinTried():
	case <-time.After(time.Minute):
		m.t.Fatal("p2ptest: a member has not even tried to join")
	}
}

// Stop ends the member, as a graceful stop of its process would. Its record in
// the DHT stays.
func (m *Member) Stop() { m.stop() }

// Freeze stops the member's piece channel in the middle of whatever it does,
// as SIGSTOP would: connections are accepted by the kernel and stay open, but
// no byte is read or written until Thaw or Stop.
func (m *Member) Freeze() { m.gate.freeze() }

// Thaw ends a Freeze.
func (m *Member) Thaw() { m.gate.thaw() }

// Seed stores content in the member's cache and returns its descriptor.
func (m *Member) Seed(content []byte) blob.Descriptor {
	m.t.Helper()
	d := blob.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := m.Cache.Put(m.t.Context(), d, strings.NewReader(string(content))); err != nil {
		m.t.Fatal(err)
	}
	return d
}

// AwaitHolders returns when a lookup by m yields all of these holders of the
// blob, and fails the test after a minute.
func (m *Member) AwaitHolders(d digest.Digest, holders ...*Member) {
	m.t.Helper()
	Eventually(m.t, "holders are not found", func() bool {
		missing := len(holders)
		for h := range m.Holders(m.t.Context(), d) {
			for _, want := range holders {
				if h.Peer == want.ID() {
					missing--
				}
			}
		}
		return missing == 0
	})
}

// Eventually returns when ok does, and fails the test after a minute: it is for what
// takes tenths of a second on an idle machine.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("after a minute: %s", what)
		}
		<-poll.C
	}
}

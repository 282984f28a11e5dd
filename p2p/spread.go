package p2p

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"shoal/blobcache/lru"
	"shoal/blobcache/statement"
	"shoal/p2p/wire"
)

// Statements of operators and seeders spread from member to member: each passes
// on what is new to it, once, to all that it is connected to. What a trusted key
// has signed is obeyed, too. What nobody here trusts is passed on rarely, for those behind
// this node who may: any member can make keys without end.
const (
	pushProtocol = protocol.ID(wire.PushProtocol)
	// pushTimeout bounds a push on an open connection: a round trip and less.
	pushTimeout = 2 * time.Second
	// pushTries is how often a member that is too busy for a push is tried.
	pushTries = 3
	// pushPause is the time between two tries.
	pushPause = time.Second
	// pushersMost bounds the pushes of one statement that are under way.
	pushersMost = 32
	// spreadWaiting bounds the statements that wait to be passed on, and
	// spreadWorkers those that are: a silent member must not hold up others.
	spreadWaiting = 256
	spreadWorkers = 4
	// seenMost bounds the statements that are known, by trusted keys and by
	// others: one that was forgotten is obeyed or passed on once more, within
	// its validity.
	seenMost = 4096
	// A member may push memberBurst statements at once, and memberRate a second.
	memberBurst = 256
	memberRate  = 8
	// Of what nobody here trusts so many are passed on at once, and one in
	// strangersEvery.
	strangersBurst = 8
	strangersEvery = 10 * time.Second
	// metersMost bounds the members whose pushes are metered at a time.
	metersMost = 1024
)

// Errors of Spread, beside those of package statement.
var (
	// ErrUntrusted: the key of a statement is not in Options.TrustedKeys.
	ErrUntrusted = errors.New("signed by a key that is not trusted here")
	// ErrKnown: the statement was here before.
	ErrKnown = errors.New("is known already")
)

// spreader takes in statements and passes them on.
type spreader struct {
	n     *Node
	queue chan spreading

	mu        sync.Mutex
	seen      *lru.Cache[[sha256.Size]byte, struct{}] // by trusted keys
	others    *lru.Cache[[sha256.Size]byte, struct{}]
	meters    *lru.Cache[peer.ID, *rate.Limiter]
	strangers *rate.Limiter
}

// spreading is a statement on its way.
type spreading struct {
	push []byte
	from peer.ID // who need not hear of it; "" if it began here
}

func newSpreader(n *Node) *spreader {
	return &spreader{
		n: n, queue: make(chan spreading, spreadWaiting),
		seen: lru.New[[sha256.Size]byte, struct{}](seenMost), others: lru.New[[sha256.Size]byte, struct{}](seenMost),
		meters: lru.New[peer.ID, *rate.Limiter](metersMost), strangers: rate.NewLimiter(rate.Every(strangersEvery), strangersBurst),
	}
}

// run takes in what members push, and passes it on, until ctx is done.
func (s *spreader) run(ctx context.Context) error {
	s.n.host.SetStreamHandler(pushProtocol, s.serve)
	defer s.n.host.RemoveStreamHandler(pushProtocol)
	s.n.host.SetStreamHandler(preheatProtocol, s.n.preheater.serve)
	defer s.n.host.RemoveStreamHandler(preheatProtocol)
	var g errgroup.Group
	for range spreadWorkers {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case w := <-s.queue:
					s.tell(ctx, w)
				}
			}
		})
	}
	return g.Wait()
}

// serve takes a push. libp2p runs it in a goroutine of its own, which ends with
// the connection or the deadline.
func (s *spreader) serve(stream network.Stream) {
	from := stream.Conn().RemotePeer()
	err := s.hear(stream, from)
	if err == nil {
		err = stream.Close()
	} else {
		_ = stream.Reset()
	}
	if err != nil {
		s.n.log.Debug("push refused", "peer", from, "error", err)
	}
}

func (s *spreader) hear(stream network.Stream, from peer.ID) error {
	if !s.meter(from).Allow() {
		s.n.metrics.statements.WithLabelValues("refused").Inc()
		return errors.New("too many pushes")
	}
	if err := stream.SetDeadline(time.Now().Add(pushTimeout)); err != nil {
		return err
	}
	kind, body, err := wire.ReadPush(stream)
	if err != nil {
		return err
	}
	err = s.take(kind, body, from)
	if errors.Is(err, ErrKnown) {
		return nil // as is usual: it comes from all sides
	}
	return err
}

func (s *spreader) meter(id peer.ID) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.meters.Get(id)
	if !ok {
		m = rate.NewLimiter(memberRate, memberBurst)
		s.meters.Add(id, m)
	}
	return m
}

// told is a statement of any kind that spreads.
type told struct {
	signer statement.Key
	image  string
	check  func(now time.Time) error
	obey   func(from peer.ID)
}

// parse reads the body of a push; nil if it is of a kind that is not known here.
func (s *spreader) parse(kind wire.PushKind, body []byte) (*told, error) {
	switch kind {
	case wire.PushInvalidation:
		i, err := statement.ParseInvalidation(body)
		return &told{i.Signer, i.Image, i.Check, func(from peer.ID) {
			s.n.log.Info("a trusted key has an image forgotten", "image", i.Image, "key", i.Signer.String(), "peer", from)
			if s.n.s.Obey != nil {
				s.n.s.Obey(i)
			}
		}}, err
	case wire.PushLease:
		l, err := statement.ParseLease(body)
		return &told{l.Signer, l.Tag, l.Check, func(from peer.ID) {
			s.n.log.Debug("lease of a tag", "tag", l.Tag, "key", l.Signer.String(), "peer", from)
			if s.n.s.Lease != nil {
				s.n.s.Lease(l)
			}
		}}, err
	}
	return nil, nil
}

// take obeys a statement that is new and trusted here, and has it passed on.
func (s *spreader) take(kind wire.PushKind, body []byte, from peer.ID) error {
	sum := sha256.Sum256(body)
	if s.known(sum) {
		return ErrKnown
	}
	said, err := s.parse(kind, body)
	if said == nil {
		return nil
	}
	if err == nil {
		err = said.check(time.Now())
	}
	if err != nil {
		s.n.metrics.statements.WithLabelValues("invalid").Inc()
		if errors.Is(err, statement.ErrTime) && s.n.trusts(said.signer) {
			s.n.log.Warn("statement of a trusted key ignored", "image", said.image, "peer", from, "error", err)
		}
		return err
	}
	push := wire.AppendPush(nil, kind, body)
	if !s.n.trusts(said.signer) {
		return s.passBy(sum, push, from)
	}
	if !s.first(s.seen, sum) {
		return ErrKnown
	}
	s.n.metrics.statements.WithLabelValues("obeyed").Inc()
	if from == "" { // Spread tells the others, and who called it is here
		return nil
	}
	said.obey(from)
	s.pass(push, from)
	return nil
}

// passBy passes on, now and then, what nobody here trusts.
func (s *spreader) passBy(sum [sha256.Size]byte, push []byte, from peer.ID) error {
	if from == "" {
		return ErrUntrusted
	}
	if !s.first(s.others, sum) {
		return ErrKnown
	}
	s.n.metrics.statements.WithLabelValues("ignored").Inc()
	if s.strangers.Allow() {
		s.pass(push, from)
	}
	return nil
}

func (s *spreader) known(sum [sha256.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Contains(sum) || s.others.Contains(sum)
}

// first notes a statement, and tells whether it was new.
func (s *spreader) first(in *lru.Cache[[sha256.Size]byte, struct{}], sum [sha256.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, _ := in.ContainsOrAdd(sum, struct{}{})
	return !before
}

// pass has a statement passed on.
func (s *spreader) pass(push []byte, from peer.ID) {
	select {
	case s.queue <- spreading{push, from}:
	default:
		s.n.log.Warn("statement not passed on: too many wait", "waiting", spreadWaiting)
	}
}

// tell pushes a statement to all connected members but the one that it came
// from, and returns how many took it.
func (s *spreader) tell(ctx context.Context, w spreading) int {
	var (
		g    errgroup.Group
		mu   sync.Mutex
		told int
	)
	g.SetLimit(pushersMost)
	for _, id := range s.n.host.Network().Peers() {
		if id == w.from {
			continue
		}
		g.Go(func() error {
			if s.push(ctx, id, w.push) {
				mu.Lock()
				told++
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait() // push tells
	return told
}

// push tells one member, and tells whether it took it.
func (s *spreader) push(ctx context.Context, id peer.ID, b []byte) bool {
	for try := 1; ; try++ {
		err := s.pushOnce(ctx, id, b)
		if err == nil {
			return true
		}
		s.n.log.Debug("push not taken", "peer", id, "try", try, "error", err)
		if try == pushTries || !s.n.connected(id) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pushPause):
		}
	}
}

func (s *spreader) pushOnce(ctx context.Context, id peer.ID, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	stream, err := s.n.host.NewStream(network.WithNoDial(ctx, "push"), id, pushProtocol)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	_, err = stream.Write(b)
	if err == nil {
		err = stream.CloseWrite()
	}
	if err == nil { // the other side closes when it has taken it
		var end [1]byte
		if _, err = stream.Read(end[:]); errors.Is(err, io.EOF) {
			return stream.Close()
		}
	}
	_ = stream.Reset()
	return fmt.Errorf("push: %w", err)
}

// trusts reports whether what the key has signed is obeyed here.
func (n *Node) trusts(k statement.Key) bool {
	return slices.Contains(n.s.TrustedKeys, k) && !n.s.Cache.Convicted(k)
}

// Spread tells the swarm what a trusted key has signed (statement.Invalidation,
// as it is printed). It returns how many members took it from this node; those
// pass it on. Here it is for the caller to obey, unless it is an error:
// ErrUntrusted, ErrKnown, or one of package statement.
func (n *Node) Spread(ctx context.Context, body []byte) (told int, err error) {
	ctx, end, ok := n.tasks.begin(ctx)
	if !ok {
		return 0, ErrClosed
	}
	defer end()
	if err := n.spreader.take(wire.PushInvalidation, body, ""); err != nil {
		return 0, err
	}
	return n.spreader.tell(ctx, spreading{push: wire.AppendPush(nil, wire.PushInvalidation, body)}), nil
}

// SpreadLease has the members that are connected told of a lease that this node
// has signed; those pass it on. It does not wait.
func (n *Node) SpreadLease(l statement.Lease) {
	body := l.Marshal()
	if n.spreader.first(n.spreader.seen, sha256.Sum256(body)) {
		n.spreader.pass(wire.AppendPush(nil, wire.PushLease, body), "")
	}
}

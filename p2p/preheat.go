package p2p

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"shoal/blobcache/statement"
	"shoal/p2p/wire"
)

// An order of a trusted key to fetch an image goes to the members that are meant,
// from the one that the operator asks, and no further. Each says how far it is on
// the stream of the order, and goes on when nobody listens any more. All begin at
// the same moment: then the exchange has every piece leave the origin once.
const (
	preheatProtocol = protocol.ID(wire.PreheatProtocol)
	// preheatsMost bounds the orders that a member works on at a time.
	preheatsMost = 16
	// tellEvery is how often a member says how far it is, if something has
	// changed, and stillThere if nothing has.
	tellEvery  = 250 * time.Millisecond
	stillThere = 5 * time.Second
	// silentFor is how long an asker waits for a word.
	silentFor = 4 * stillThere
)

// Errors of Preheat, beside those of Spread.
var (
	errBusy    = fmt.Errorf("%d orders are being worked on: ask again later", preheatsMost)
	errNotMe   = errors.New("it is for others")
	errNoOrder = errors.New("no order to fetch")
)

// preheater does what a trusted key orders to be fetched.
type preheater struct {
	n *Node

	mu      sync.Mutex
	running int
}

// order is one that is being worked on.
type order struct {
	done chan struct{}

	mu   sync.Mutex
	told []byte // last
}

func (o *order) tell(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = b
}

func (o *order) last() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told
}

// watch calls say with what is told, when it changes or after a while, and at the
// end, until ctx ends or say errs.
func (o *order) watch(ctx context.Context, say func([]byte) error) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	var said []byte
	at := time.Now()
	for ended := false; !ended; {
		select {
		case <-o.done:
			ended = true
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		now := o.last()
		if !ended && bytes.Equal(now, said) && time.Since(at) < stillThere {
			continue
		}
		said, at = now, time.Now()
		if err := say(now); err != nil {
			return err
		}
	}
	return nil
}

// take begins what a statement orders, if a trusted key has signed it, it is for
// this member, good now and new.
func (p *preheater) take(body []byte) (*order, error) {
	said, err := p.n.CheckPreheat(body)
	switch {
	case errors.Is(err, ErrUntrusted):
		p.n.metrics.statements.WithLabelValues("ignored").Inc()
		return nil, err
	case err != nil:
		p.n.metrics.statements.WithLabelValues("invalid").Inc()
		return nil, err
	case p.n.s.Preheat == nil || !said.For(p.n.s.id.String(), p.n.s.Zone):
		return nil, errNotMe
	}
	return p.begin(said, body)
}

func (p *preheater) begin(said statement.Preheat, body []byte) (*order, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running >= preheatsMost {
		return nil, errBusy
	}
	if !p.n.spreader.first(p.n.spreader.seen, sha256.Sum256(body)) {
		return nil, ErrKnown
	}
	ctx, end, ok := p.n.tasks.begin(context.Background())
	if !ok {
		return nil, ErrClosed
	}
	p.running++
	p.n.metrics.statements.WithLabelValues("obeyed").Inc()
	p.n.log.Info("a trusted key has an image fetched", "image", said.Image, "key", said.Signer.String())
	o := &order{done: make(chan struct{})}
	go func() {
		defer end()
		p.n.s.Preheat(ctx, said, o.tell)
		p.mu.Lock()
		p.running--
		p.mu.Unlock()
		close(o.done)
	}()
	return o, nil
}

// serve takes an order from a member, and tells it how far it is. libp2p runs it in
// a goroutine of its own; the node ends it with the host.
func (p *preheater) serve(stream network.Stream) {
	ctx, end, ok := p.n.tasks.begin(context.Background())
	if !ok {
		_ = stream.Reset()
		return
	}
	defer end()
	from := stream.Conn().RemotePeer()
	say := func(kind wire.PushKind, b []byte) error {
		if err := stream.SetWriteDeadline(time.Now().Add(pushTimeout)); err != nil {
			return err
		}
		_, err := stream.Write(wire.AppendPush(nil, kind, b))
		return err
	}
	o, err := p.hear(stream, from)
	if err != nil {
		p.n.log.Warn("an order to fetch was refused", "peer", from, "error", err)
		_ = say(wire.PushRefusal, []byte(err.Error()))
		_ = stream.Close()
		return
	}
	err = o.watch(ctx, func(b []byte) error { return say(wire.PushProgress, b) })
	if err == nil {
		err = stream.Close()
	}
	if err != nil {
		p.n.log.Debug("nobody hears how far an order is", "peer", from, "error", err)
		_ = stream.Reset()
	}
}

func (p *preheater) hear(stream network.Stream, from peer.ID) (*order, error) {
	if !p.n.spreader.meter(from).Allow() {
		return nil, errors.New("too many orders of one member")
	}
	if err := stream.SetReadDeadline(time.Now().Add(pushTimeout)); err != nil {
		return nil, err
	}
	kind, body, err := wire.ReadPush(stream)
	if err == nil && kind != wire.PushPreheat {
		err = errNoOrder
	}
	if err != nil {
		return nil, err
	}
	return p.take(body)
}

// ask has a member do what is ordered, and calls hear with what it tells until it
// has ended.
func (p *preheater) ask(ctx context.Context, id peer.ID, body []byte, hear func([]byte)) error {
	opening, cancel := context.WithTimeout(network.WithNoDial(ctx, "preheat"), pushTimeout)
	defer cancel()
	stream, err := p.n.host.NewStream(opening, id, preheatProtocol)
	if err != nil {
		return fmt.Errorf("not asked, is its version of shoal older? %w", err)
	}
	defer func() { _ = stream.Reset() }() // of no effect after its end
	defer context.AfterFunc(ctx, func() { _ = stream.Reset() })()
	if err := stream.SetWriteDeadline(time.Now().Add(pushTimeout)); err != nil {
		return err
	}
	if _, err := stream.Write(wire.AppendPush(nil, wire.PushPreheat, body)); err != nil {
		return err
	}
	for heard := false; ; heard = true {
		if err := stream.SetReadDeadline(time.Now().Add(silentFor)); err != nil {
			return err
		}
		kind, b, err := wire.ReadPush(stream)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && heard:
			return nil
		case err != nil:
			return fmt.Errorf("it left before it was done: %w", err)
		case kind == wire.PushRefusal:
			return fmt.Errorf("it refuses: %s", Printable(string(b)))
		case kind == wire.PushProgress:
			hear(b)
		}
	}
}

// Printable is what a member says, fit for one line.
func Printable(said string) string {
	const most = 500
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, said[:min(len(said), most)])
}

// CheckPreheat reads a statement, and returns nil if a key that is trusted here has
// said it and it is good now. Errors: ErrUntrusted, and those of package statement.
func (n *Node) CheckPreheat(body []byte) (statement.Preheat, error) {
	said, err := statement.ParsePreheat(body)
	if err == nil {
		err = said.Check(time.Now())
	}
	if err == nil && !n.trusts(said.Signer) {
		err = ErrUntrusted
	}
	return said, err
}

// Heard is what was heard of a member that was asked to fetch.
type Heard struct {
	Peer  peer.ID
	Zone  string
	Told  []byte // what its Options.Preheat told; nil: nothing
	Error error  // why it did not, at the end
	Ended bool
}

// Preheat has the connected members that a statement (statement.Preheat, as it is
// printed) is for do it, and this node in any case, and calls hear, from one
// goroutine at a time, with what each tells, until all have ended or ctx does.
// They go on then. Errors: ErrUntrusted, ErrKnown, or one of package statement.
func (n *Node) Preheat(ctx context.Context, body []byte, hear func(Heard)) error {
	ctx, end, ok := n.tasks.begin(ctx)
	if !ok {
		return ErrClosed
	}
	defer end()
	said, err := n.CheckPreheat(body)
	if err != nil {
		return err
	}
	own, err := n.preheater.begin(said, body) //nolint:contextcheck // who asks may leave, and it goes on
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	one := func(h Heard, do func(func([]byte)) error) {
		tell := func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			h.Told = b
			hear(h)
		}
		wg.Go(func() {
			err := do(tell)
			mu.Lock()
			defer mu.Unlock()
			h.Error, h.Ended = err, true
			hear(h)
		})
	}
	for _, m := range n.Members() {
		if said.For(m.Peer.String(), m.Zone) {
			one(Heard{Peer: m.Peer, Zone: m.Zone}, func(tell func([]byte)) error { return n.preheater.ask(ctx, m.Peer, body, tell) })
		}
	}
	one(Heard{Peer: n.s.id, Zone: n.s.Zone}, func(tell func([]byte)) error {
		return own.watch(ctx, func(b []byte) error { tell(b); return nil })
	})
	wg.Wait()
	return context.Cause(ctx)
}

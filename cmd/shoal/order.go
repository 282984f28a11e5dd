package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"shoal/blobcache/statement"
	"shoal/cmd/shoal/internal/admin"
	"shoal/p2p"
	"shoal/seeder"
)

// ordersAtOnce bounds the images of one request that a swarm fetches at a time.
const ordersAtOnce = 4

// maxReason bounds what members tell each other of why an image fails, in bytes.
const maxReason = 500

// fetchOrdered fetches what a trusted key orders, and tells how far it is.
func (s *service) fetchOrdered(ctx context.Context, said statement.Preheat, tell func([]byte)) {
	say := func(p seeder.Progress) {
		p.Error = p.Error[:min(len(p.Error), maxReason)]
		text, err := json.Marshal(p)
		if err != nil {
			panic(err) // strings and numbers always marshal
		}
		tell(text)
	}
	var words []string
	if said.Platforms != "" {
		words = strings.Split(said.Platforms, ",")
	}
	pulls, err := s.newPulls([]string{said.Image}, words)
	if err != nil {
		say(seeder.Progress{Image: said.Image, State: seeder.Failed, Error: err.Error()})
		return
	}
	runPulls(ctx, pulls, func(now []seeder.Progress) { say(now[0]) })
}

// parties are the nodes that fetch, and how far each was when it was heard last.
type parties struct {
	mu  sync.Mutex
	all map[party]admin.Progress
	one map[party]bool // that told something, or ended
}

type party struct {
	image string
	peer  peer.ID
}

// hear takes in what a member says. It is a stranger's word: nothing of it is
// shown but what is checked here.
func (p *parties) hear(image string, h p2p.Heard) {
	now := admin.Progress{Node: h.Peer.String(), Zone: h.Zone, Progress: seeder.Progress{Image: image, State: seeder.Waiting}}
	var told seeder.Progress
	if json.Unmarshal(h.Told, &told) == nil && slices.Contains([]seeder.State{seeder.Waiting, seeder.Fetching, seeder.Unchanged, seeder.Fetched, seeder.Failed}, told.State) {
		now.State, now.Bytes, now.Done, now.Missing, now.Stale = told.State, told.Bytes, told.Done, told.Missing, told.Stale
		now.Error = p2p.Printable(told.Error)
	}
	switch {
	case h.Error != nil && !errors.Is(h.Error, context.Canceled):
		now.State, now.Error = seeder.Failed, h.Error.Error()
	case h.Ended && h.Error == nil && !now.Ended():
		now.State, now.Error = seeder.Failed, "it left before it was done"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := party{image, h.Peer}
	p.all[key] = now
	p.one[key] = p.one[key] || h.Ended || now.State != seeder.Waiting
}

// snapshot returns how far all are, in the order of images and nodes.
func (p *parties) snapshot() (all []admin.Progress, begun bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	begun = true
	for key, now := range p.all {
		all = append(all, now)
		begun = begun && p.one[key]
	}
	slices.SortFunc(all, func(a, b admin.Progress) int { return strings.Compare(a.Image+" "+a.Node, b.Image+" "+b.Node) })
	return all, begun
}

// preheat has this node and members fetch what a trusted key has signed.
func (s *service) preheat(ctx context.Context, ask admin.Preheat, tell func([]admin.Progress)) error {
	p := &parties{all: map[party]admin.Progress{}, one: map[party]bool{}}
	var said []statement.Preheat
	for _, b := range ask.Statements {
		one, err := s.node.CheckPreheat(b)
		if errors.Is(err, p2p.ErrUntrusted) {
			err = fmt.Errorf("%w: add %s to its trusted-keys", err, one.Signer)
		}
		if err == nil {
			_, err = imageNames([]string{one.Image})
		}
		if err != nil {
			return fmt.Errorf("%w: %w", admin.ErrRefused, err)
		}
		said = append(said, one)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	if ask.Wait {
		g.SetLimit(ordersAtOnce)
	}
	for _, one := range said {
		meant := one.To == statement.ToAll || one.For(s.node.ID().String(), s.node.Zone())
		p.hear(one.Image, p2p.Heard{Peer: s.node.ID(), Zone: s.node.Zone()})
		for _, m := range s.node.Members() {
			if one.For(m.Peer.String(), m.Zone) {
				p.hear(one.Image, p2p.Heard{Peer: m.Peer, Zone: m.Zone})
				meant = true
			}
		}
		if !meant {
			return fmt.Errorf("%w: no member that it is connected to is meant by %s", admin.ErrRefused, one.To)
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i, one := range said {
			g.Go(func() error {
				err := s.node.Preheat(ctx, ask.Statements[i], func(h p2p.Heard) { p.hear(one.Image, h) })
				if err != nil && ctx.Err() == nil {
					p.hear(one.Image, p2p.Heard{Peer: s.node.ID(), Zone: s.node.Zone(), Error: err, Ended: true})
				}
				return nil
			})
		}
		_ = g.Wait()
	}()
	every(ended, func() bool {
		now, begun := p.snapshot()
		tell(now)
		return ask.Wait || !begun
	})
	cancel() // of what is only listened to; who fetches goes on
	<-ended
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/statement"
	"shoal/p2p"
	"shoal/seeder"
)

// swarm is the node among others, for its seeder.
type swarm struct {
	node   *p2p.Node
	signer *statement.Signer // nil: it signs nothing
}

// Members is of seeder.Swarm.
func (s swarm) Members() (self seeder.Member, others []seeder.Member) {
	for _, m := range s.node.Members() {
		others = append(others, seeder.Member{ID: m.Peer.String(), Zone: m.Zone})
	}
	return seeder.Member{ID: s.node.ID().String(), Zone: s.node.Zone()}, others
}

// Holders is of seeder.Swarm.
func (s swarm) Holders(ctx context.Context, d digest.Digest, ask []seeder.Member, enough func([]seeder.Member) bool) (found []seeder.Member) {
	asked := map[string]bool{}
	add := func(m seeder.Member) (done bool) {
		asked[m.ID] = true
		id, err := peer.Decode(m.ID)
		if err != nil {
			return false
		}
		if has, err := s.node.Whole(ctx, id, d); err == nil && has {
			found = append(found, m)
		}
		return enough(found) || ctx.Err() != nil
	}
	for _, m := range ask {
		if add(m) {
			return found
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of the lookup, when enough are found
	for h := range s.node.Holders(ctx, d) {
		if m := (seeder.Member{ID: h.Peer.String(), Zone: h.Zone}); !asked[m.ID] && add(m) {
			break
		}
	}
	return found
}

// Order is of seeder.Swarm.
func (s swarm) Order(ctx context.Context, image string, platforms []string, members []seeder.Member) []error {
	errs := make([]error, len(members))
	ids := make([]string, len(members))
	for i, m := range members {
		ids[i] = m.ID
	}
	said, err := s.sign(statement.Preheat{Image: image, Platforms: strings.Join(platforms, ","), To: statement.ToMembers(ids...)})
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	body := said.Marshal()
	var orders sync.WaitGroup
	for i, id := range ids {
		orders.Go(func() { errs[i] = s.order(ctx, id, body) })
	}
	orders.Wait()
	return errs
}

func (s swarm) sign(p statement.Preheat) (statement.Preheat, error) {
	if s.signer == nil { // the setting came with a SIGHUP
		return p, errors.New("signing-key was not set when this node started: restart it")
	}
	return s.signer.Preheat(p, time.Now())
}

// order has one member do what body says.
func (s swarm) order(ctx context.Context, id string, body []byte) error {
	to, err := peer.Decode(id)
	if err != nil {
		return err
	}
	var last seeder.Progress
	err = s.node.Order(ctx, to, body, func(told []byte) {
		last = seeder.Progress{}
		_ = json.Unmarshal(told, &last) // what is no progress is none
	})
	switch {
	case err != nil:
		return err
	case last.State == seeder.Fetched || last.State == seeder.Unchanged:
		return nil
	case last.State == seeder.Failed:
		return errors.New(p2p.Printable(last.Error))
	}
	return errors.New("it left before it was done")
}

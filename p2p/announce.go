package p2p

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p-kad-dht/amino"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/provider/keystore"
	"github.com/multiformats/go-multihash"
	"github.com/opencontainers/go-digest"

	"shoal/p2p/exchange"
)

const (
	// renewAfter and renewDelay: a record is renewed after renewAfter, at most
	// renewDelay late, so that one round may fail before it runs out.
	renewAfter = recordValidity / 3
	renewDelay = recordValidity / 6
	// announcers is how many new blobs are announced at the same time. Each
	// takes some milliseconds of CPU and a few round trips.
	announcers = 4
	// growthCheck is how often the size of the routing table is looked at.
	growthCheck = time.Second
	// announceLatest is how long a new blob waits for fills to end, those of this
	// node and those of members that follow it. In a crowd of twelve nodes and ten
	// layers announcements, and what they asked of others, took a sixth of the
	// processor time; when each node waited for its own fills only, the first to
	// end took it from the last.
	announceLatest = 10 * time.Second
	// fillsCheck is how often is looked whether they have ended: members wait
	// longer for one that a lookup names.
	fillsCheck = 50 * time.Millisecond
)

// mayWait reports whether a blob that came some time ago need not be announced
// yet: fills run here or at members that follow them, which need the processors,
// and every member asks this node without having heard of it.
func mayWait(since time.Duration, fills, connected int) bool {
	return fills > 0 && connected <= exchange.MaxNear && since < announceLatest
}

// announcer keeps the swarm informed about the blobs of this node. New ones
// are announced one by one, by the DHT's own Provide: it returns when the
// record is on its way to where others will look. In a small swarm that waits
// until fills are over (mayWait). All are renewed in bulk by kad-dht's
// SweepingProvider, at a twentieth of the cost.
//
// The bulk announcement also runs as soon as the first member appears, since
// what a lonely node announces reaches nobody, and again each time that the
// swarm has about doubled (see grown): the members that a young swarm told are
// not those that a grown one will ask.
type announcer struct {
	n     *Node
	woken chan struct{}

	mu    sync.Mutex
	names map[digest.Digest]cid.Cid // everything announced
	fresh []fresh                   // of these, not announced yet
	gone  []multihash.Multihash     // not to be renewed any more
}

// fresh is a blob that came a while ago.
type fresh struct {
	blob digest.Digest
	came time.Time
}

func newAnnouncer(n *Node) *announcer {
	return &announcer{n: n, woken: make(chan struct{}, 1), names: make(map[digest.Digest]cid.Cid)}
}

// follow announces what is in the cache, what comes, and not what went, until
// ctx is done.
func (a *announcer) follow(ctx context.Context) error {
	events, cancel := a.n.s.Cache.Subscribe()
	defer cancel()
	for _, d := range a.n.s.Cache.Blobs() {
		a.add(false, d.Digest)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			switch {
			case !ok: // the cache was closed
				return nil
			case e.Gone:
				a.remove(e.Blob.Digest)
			default:
				a.add(true, e.Blob.Digest)
			}
		}
	}
}

// add announces blobs from now on: soon if fresh, else with the bulk.
func (a *announcer) add(isFresh bool, blobs ...digest.Digest) {
	now := time.Now()
	a.mu.Lock()
	for _, d := range blobs {
		if _, known := a.names[d]; known || a.n.hidden(d) {
			continue
		}
		a.names[d] = a.n.s.Key.CID(d)
		if isFresh {
			a.fresh = append(a.fresh, fresh{d, now})
		}
	}
	a.mu.Unlock()
	a.wake()
}

// remove stops announcing a blob; its record runs out by itself.
func (a *announcer) remove(d digest.Digest) {
	a.mu.Lock()
	if name, known := a.names[d]; known {
		delete(a.names, d)
		a.gone = append(a.gone, name.Hash())
	}
	a.mu.Unlock()
	a.wake()
}

func (a *announcer) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.names)
}

func (a *announcer) wake() {
	select {
	case a.woken <- struct{}{}:
	default:
	}
}

// due is take, as things are.
func (a *announcer) due(now time.Time) (names []cid.Cid, gone []multihash.Multihash) {
	return a.take(now, len(a.n.Fills())+a.n.exchange.Followed(), a.n.Peers())
}

// take returns what there is to do while so many fills run and members are
// connected: names to announce now, and to renew no longer.
func (a *announcer) take(now time.Time, fills, connected int) (names []cid.Cid, gone []multihash.Multihash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var later []fresh
	for _, f := range a.fresh {
		name, there := a.names[f.blob]
		switch {
		case !there:
		case mayWait(now.Sub(f.came), fills, connected):
			later = append(later, f)
		default:
			names = append(names, name)
		}
	}
	gone, a.fresh, a.gone = a.gone, later, nil
	return names, gone
}

// all returns everything that is announced.
func (a *announcer) all() []multihash.Multihash {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]multihash.Multihash, 0, len(a.names))
	for _, name := range a.names {
		all = append(all, name.Hash())
	}
	return all
}

// holds reports whether new blobs wait for fills to end.
func (a *announcer) holds() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.fresh) > 0
}

// run announces until ctx is done.
func (a *announcer) run(ctx context.Context) error {
	var bulk *renewal
	defer func() { bulk.close() }()
	tick := time.NewTicker(growthCheck)
	defer tick.Stop()
	soon := time.NewTicker(fillsCheck)
	defer soon.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, announcers)
	for {
		fresh, gone := a.due(time.Now())
		for _, name := range fresh {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			wg.Go(func() {
				defer func() { <-slots }()
				if err := a.n.provide(ctx, name); err != nil && ctx.Err() == nil {
					a.n.log.Debug("blob not announced yet", "name", name, "err", err)
				}
			})
		}
		size := a.n.dht.RoutingTable().Size()
		if bulk == nil && size > 0 {
			var err error
			if bulk, err = newRenewal(ctx, a.n, a.all(), size); err != nil {
				if ctx.Err() != nil {
					return nil // the node stops
				}
				return err
			}
		} else if err := bulk.update(ctx, size, fresh, gone, a.all); err != nil {
			if ctx.Err() != nil {
				return nil // the node stops
			}
			return err
		}
		var fillsEnd <-chan time.Time
		if a.holds() {
			fillsEnd = soon.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.woken:
		case <-fillsEnd:
		case <-tick.C:
		}
	}
}

// renewal announces all blobs in bulk, again and again. It is made when there
// is somebody to tell: its provider begins with everything in the keystore,
// and drops what it is given before it has seen the network. A nil renewal
// does nothing.
type renewal struct {
	provider *provider.SweepingProvider
	keys     keystore.Keystore
	told     int // size of the routing table when everything was announced
}

func newRenewal(ctx context.Context, n *Node, all []multihash.Multihash, size int) (*renewal, error) {
	keys, err := keystore.NewKeystore(dssync.MutexWrap(datastore.NewMapDatastore()))
	if err != nil {
		return nil, fmt.Errorf("announcing: %w", err)
	}
	if _, err := keys.Put(ctx, all...); err != nil {
		_ = keys.Close()
		return nil, fmt.Errorf("announcing: %w", err)
	}
	p, err := provider.New(
		provider.WithHost(n.host),
		provider.WithRouter(n.dht),
		provider.WithMessageSender(n.dht.MessageSender()),
		provider.WithSelfAddrs(n.dht.FilteredAddrs),
		provider.WithAddLocalRecord(func(ctx context.Context, h multihash.Multihash) error {
			return n.dht.Provide(ctx, cid.NewCidV1(cid.Raw, h), false)
		}),
		provider.WithKeystore(keys),
		provider.WithResumeCycle(false),
		provider.WithReprovideInterval(renewAfter),
		provider.WithMaxReprovideDelay(renewDelay),
		provider.WithConnectivityCheckOnlineInterval(10*time.Second),
		provider.WithSendProviderRecordTimeout(dialTimeout),
	)
	if err != nil {
		_ = keys.Close()
		return nil, fmt.Errorf("announcing: %w", err)
	}
	return &renewal{provider: p, keys: keys, told: size}, nil
}

// update brings the renewal up to date; all is asked for everything that is
// announced if the swarm has grown.
func (r *renewal) update(
	ctx context.Context, size int, fresh []cid.Cid, gone []multihash.Multihash, all func() []multihash.Multihash,
) error {
	if r == nil {
		return nil
	}
	if len(gone) > 0 {
		if err := r.provider.StopProviding(gone...); err != nil {
			return fmt.Errorf("announcing: %w", err)
		}
	}
	if len(fresh) > 0 {
		names := make([]multihash.Multihash, len(fresh))
		for i, name := range fresh {
			names[i] = name.Hash()
		}
		if _, err := r.keys.Put(ctx, names...); err != nil {
			return fmt.Errorf("announcing: %w", err)
		}
		if err := r.provider.AddToSchedule(names...); err != nil {
			return fmt.Errorf("announcing: %w", err)
		}
	}
	switch {
	case size == 0:
		r.told = 0 // alone again: tell those who come
	case grown(r.told, size):
		r.told = size
		if err := r.provider.StartProviding(true, all()...); err != nil {
			return fmt.Errorf("announcing: %w", err)
		}
	}
	return nil
}

// grown reports whether a swarm has about doubled while the routing table went
// from told members to size. Up to one bucket the table holds the whole swarm;
// from there on each doubling of the swarm fills one more bucket. So about half
// of those who will be asked for a blob have been told of it at any time.
func grown(told, size int) bool {
	return size >= 2*told || size >= told+amino.DefaultBucketSize
}

func (r *renewal) close() {
	if r == nil {
		return
	}
	_ = r.provider.Close()
	_ = r.keys.Close()
}

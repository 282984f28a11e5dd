package exchange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
	"shoal/blobcache/statement"
	"shoal/blobcache/trace"
	"shoal/p2p/channel"
	"shoal/p2p/penalty"
	"shoal/p2p/plan"
)

// ErrClosed means that the exchange has been closed.
var ErrClosed = errors.New("exchange is closed")

// Holder is a member that may have a blob.
type Holder struct {
	Peer peer.ID
	// Pieces are the "host:port" of its piece channel, best first.
	Pieces []string
	// Zone names the place that it is in; empty means that nobody said.
	Zone string
}

// Swarm finds members.
type Swarm interface {
	// Self returns this node as others are to find it.
	Self() Holder
	// Near returns connected members, in a slice that is the caller's, and how
	// many are connected in all. It does not wait.
	Near(most int) (near []Holder, connected int)
	// Find searches for members that announced the blob and yields each as
	// soon as it is reached. The channel is closed when the search has ended,
	// within some seconds, or ctx is done.
	Find(ctx context.Context, d digest.Digest) <-chan Holder
	// Announce tells the swarm that this node has the blob or is filling it.
	Announce(ctx context.Context, d digest.Digest) error
}

// Options say what an Exchange works with.
type Options struct {
	// Identity is this member's Ed25519 key, with which it answers for what it
	// took from the origin. Required.
	Identity crypto.PrivKey
	Cache    *blobcache.Cache // required
	Channel  *channel.Channel // required: how members are reached
	Streams  Streams          // how others are reached; nil: not at all
	Swarm    Swarm            // required
	// Upload and Download limit the bytes of pieces to members and from them; nil
	// does not. What comes from the origin is paced by who opens it, for the
	// pace.Flow of its context.
	Upload, Download *pace.Limiter
	// Patience is how long members are waited for before anybody else is asked,
	// so that a busy machine does not change what happens in a test. 0: as nodes
	// run.
	Patience time.Duration
	Logger   *slog.Logger          // required
	Metrics  prometheus.Registerer // nil: none
	// Trace is shown each fill when it begins; nil: none is recorded.
	Trace func(*trace.Live)
}

// Exchange serves members, as an http.Handler behind a channel.Listener, and
// fills the cache. Its methods may be called from any goroutine.
type Exchange struct {
	cache   *blobcache.Cache
	swarm   Swarm
	log     *slog.Logger
	metrics *metrics
	self    peer.ID // this member
	zone    string  // that it is in
	signer  *statement.Signer
	trace   func(*trace.Live) // nil: nothing is recorded
	met     *acquaintances
	client  *client
	uploads uploads

	upload, download *pace.Limiter

	followers *followers   // who wants to know what is here
	follows   *follows     // what others have
	warmth    warmth       // to whom there is a connection for pieces
	bans      *penalty.Box // who lied
	silent    *penalty.Box // who did not answer
	slow      *penalty.Box // who has blobs, and was slower than registries
	doubted   *penalty.Box // who said a wrong size
	members   *budget      // pieces in memory from members
	origin    *budget      // and from the origin
	turns     *turns
	around    surroundings
	limits    limits

	// originRate is what fills measured last, in bytes a second (float bits).
	originRate atomic.Uint64
	ranged     atomic.Bool  // the origin served ranges
	company    atomic.Int64 // until when this node is part of a crowd (Unix, in ns)
	inflow     inflow

	life context.Context // done when the exchange closes; of no single call
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	wg      sync.WaitGroup // drivers, and connections that follow
	drivers map[key]*driver
}

// key names a fill: a size is part of it, because it is a claim.
// blob.UnknownSize is a size of its own.
type key struct {
	digest digest.Digest
	size   int64
}

// limits are the deadlines of fills; tests shorten them.
type limits struct {
	plan    plan.Tuning
	degrees plan.Degrees
	// swarmFirst is the time that members have to say that they have a blob
	// before the origin is asked as well, swarmSmall the same for blobs of
	// one piece, and swarmMore the time when a lookup has named a member that
	// is connected and has not answered yet: it is worth as much as a holder
	// that stalls.
	swarmFirst, swarmSmall, swarmMore time.Duration
	// answer is how long a member that was asked is waited for: then it is
	// taken for silent, and nothing waits for it until it has said something. A
	// frozen member costs a node this once. One that is well answers in a round
	// trip: of 510 first answers between six nodes on two processors, each
	// pulling 400 MB, all came within 51 ms, without what the node that asked
	// was late itself.
	answer time.Duration
	// distant is the shortest round trip of members that are not waited for at
	// all: with the first bytes it would be twice as long.
	distant time.Duration
	// commit bounds the time until a source has committed itself; a blob that
	// cannot be had is a 404 within ten seconds.
	commit time.Duration
	// retry is how long an origin that is unavailable is tried before the
	// first source has committed itself.
	retry time.Duration
	// alone is how long a fill goes on without anybody to ask.
	alone time.Duration
	// stalled is how long a fill goes on without a new piece.
	stalled time.Duration
	// frozen is how long a member that is followed may say nothing, though it
	// owes a frame each beatEvery: then it is taken for dead.
	frozen time.Duration
}

func defaults() limits {
	return limits{
		plan:       plan.Defaults(),
		degrees:    plan.DefaultDegrees(),
		swarmFirst: 150 * time.Millisecond,
		swarmSmall: 100 * time.Millisecond,
		swarmMore:  time.Second,
		answer:     100 * time.Millisecond,
		distant:    50 * time.Millisecond,
		commit:     8 * time.Second,
		retry:      2 * time.Second,
		alone:      5 * time.Second,
		stalled:    time.Minute,
		frozen:     3 * beatEvery,
	}
}

// patient returns the limits of nodes that wait for members so long; 0 changes
// nothing.
func (l limits) patient(long time.Duration) limits {
	if long > 0 {
		l.swarmFirst, l.swarmSmall, l.swarmMore = long, long, long
		l.answer, l.distant, l.frozen = long/2, long, long
		l.plan.StallAfter, l.plan.DeadAfter = long/2, long
		l.plan.SlowSwarm, l.plan.SlowStart = 0, long
	}
	return l
}

// New returns an exchange without fills.
func New(o Options) (*Exchange, error) {
	if o.Cache == nil || o.Channel == nil || o.Swarm == nil || o.Logger == nil {
		return nil, errors.New("exchange: cache, channel, swarm and logger are required")
	}
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, err
	}
	signer, err := newSigner(o.Identity)
	if err != nil {
		return nil, err
	}
	met, err := newAcquaintances(o.Channel.ID())
	if err != nil {
		return nil, fmt.Errorf("exchange: %w", err)
	}
	life, end := context.WithCancel(context.Background())
	pool := newPool()
	x := &Exchange{
		cache: o.Cache, swarm: o.Swarm, log: o.Logger, metrics: m,
		self: o.Channel.ID(), zone: o.Swarm.Self().Zone, signer: signer, trace: o.Trace, met: met, client: newClient(life, o, met),
		uploads: newUploads(), upload: o.Upload, download: o.Download,
		bans:    penalty.NewBox(forLies()),
		silent:  penalty.NewBox(forSilence()),
		slow:    penalty.NewBox(forSlowness()),
		doubted: penalty.NewBox(forLies()),
		members: newBudget(memberPieces, pool),
		origin:  newBudget(originPieces, pool),
		turns:   newTurns(),
		limits:  defaults().patient(o.Patience),
		life:    life, end: end,
		drivers: make(map[key]*driver),
	}
	x.followers, x.follows = newFollowers(x), newFollows(x)
	return x, nil
}

// begin counts one more goroutine that Close waits for, which calls wg.Done
// then. It is false once the exchange closes.
func (x *Exchange) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.closed {
		x.wg.Add(1)
	}
	return !x.closed
}

// Close ends all fills, waits for everything that they started, and closes
// idle connections to members.
func (x *Exchange) Close() error {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.end()
	x.wg.Wait()
	x.client.close()
	return nil
}

// Fetch returns the fill of d, joined or started, as soon as some source has
// committed itself to it: a member that has pieces, or the origin's answer. ctx
// governs the wait for that only; the fill goes on without it, and is started
// even if ctx has ended. origin may be nil, and is kept as one more source if the fill is running. d.Size may be
// blob.UnknownSize: then the first source that tells one is believed, and the
// fill is of that size. Nothing is waited for longer than 10 s.
//
// Errors, wrapped: blob.ErrNotFound if nobody has it; what the origin said
// (blob.ErrDenied, blob.ErrUnavailable, blob.ErrStalled); those of Cache.Fill;
// ErrClosed.
func (x *Exchange) Fetch(ctx context.Context, d blob.Descriptor, origin blob.Source) (*blobcache.Fill, error) {
	if known, ok := x.cache.Stat(d.Digest); ok && d.Size < 0 {
		d.Size = known.Size
	}
	for {
		dr, started, err := x.drive(d, origin)
		if err != nil {
			return nil, fmt.Errorf("fetch %s: %w", d.Digest, err)
		}
		if err := await(ctx, dr.committed); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", d.Digest, err)
		}
		if dr.err != nil {
			return nil, fmt.Errorf("fetch %s: %w", d.Digest, dr.err)
		}
		if started || dr.fill.Err() == nil {
			return dr.fill, nil
		}
		// What was joined had failed already: it makes way for a new one.
		if err := await(ctx, dr.forgotten); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", d.Digest, err)
		}
	}
}

func await(ctx context.Context, what <-chan struct{}) error {
	select {
	case <-what:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drive returns the driver of d, and whether it was started now.
func (x *Exchange) drive(d blob.Descriptor, origin blob.Source) (dr *driver, started bool, err error) {
	if _, err := blob.ParseDigest(d.Digest.String()); err != nil {
		return nil, false, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil, false, ErrClosed
	}
	k := key{d.Digest, max(d.Size, blob.UnknownSize)}
	dr = x.drivers[k]
	if started = dr == nil; started {
		dr = newDriver(x, k, d)
		x.drivers[k] = dr
	}
	dr.addOrigin(origin)
	if started {
		if origin != nil && dr.takesTurns() {
			dr.turn.expect(time.Now(), origin)
		}
		x.wg.Go(func() { dr.run(x.life) })
	}
	return dr, started, nil
}

func (x *Exchange) forget(dr *driver) {
	x.mu.Lock()
	delete(x.drivers, dr.key)
	x.mu.Unlock()
	close(dr.forgotten)
	x.followers.changed(dr.key.digest)
}

// FillStatus is the state of a running fill, for people to look at.
type FillStatus struct {
	Blob         blob.Descriptor
	Pieces, Done int
	// Members is how many members it is fetched from.
	Members int
	// FromOrigin and FromPeers are bytes fetched so far.
	FromOrigin, FromPeers int64
}

// Fills lists the running fills, in no order.
func (x *Exchange) Fills() []FillStatus {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []FillStatus
	for _, dr := range x.drivers {
		if s, ok := dr.status(); ok {
			all = append(all, s)
		}
	}
	return all
}

// convict bans a member and says so, once.
func (x *Exchange) convict(id peer.ID, reason string, d digest.Digest, piece int) {
	ban := x.bans.AddFor(id, time.Now(), lieAbout(reason, d, piece))
	if ban == 0 {
		return
	}
	x.metrics.bans.WithLabelValues(reason).Inc()
	x.client.drop(id)
	x.log.Warn("member lied and is banned", "peer", id, "about", reason, "digest", d, "piece", piece, "for", ban)
}

func (x *Exchange) learnOriginRate(rate float64) { x.originRate.Store(math.Float64bits(rate)) }

func (x *Exchange) knownOriginRate() float64 { return math.Float64frombits(x.originRate.Load()) }

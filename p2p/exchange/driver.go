package exchange

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/trace"
	"shoal/p2p/plan"
	"shoal/p2p/wire"
)

// driver brings one blob into the cache. Its goroutine (run) owns the plan and
// all fields that have no lock; the goroutines that do I/O post what happened
// to it.
type driver struct {
	x    *Exchange
	key  key
	want blob.Descriptor
	log  *slog.Logger

	committed chan struct{} // closed when fill or err is set for good
	forgotten chan struct{} // closed when the next Fetch begins anew
	fill      *blobcache.Fill
	err       error

	origins origins
	turn    *turn  // among the fills of this node
	counts  counts // for status
	trace   *trace.Recorder
	traces  int // the origin's number in it, from 1 on; 0: it has none
	search  *search
	said    atomic.Pointer[word] // what followers are told
	size    atomic.Int64         // that it is of

	begun   time.Time
	asleep  time.Duration // for which the process did not run
	held    time.Duration // for which it ran when it should: members had the time to answer
	board   board
	plan    *plan.Plan
	io      sync.WaitGroup
	events  chan func()
	flights map[plan.ID]flight
	sources map[peer.ID]*source
	byID    map[plan.Member]*source
	lastID  plan.Member
	sizes   map[peer.ID]int64 // claims of other sizes
	first   *opened           // the origin's stream that told the size
	bytes   fetched

	stored      time.Time // when the last piece was stored
	busy        time.Time // when there was last somebody to ask
	rounds      int       // failed closures
	solo        *source   // after a failed closure without an origin: one at a time
	settled     bool      // committed is closed
	volunteered bool
	small       bool          // the swarm is one in which everybody knows everybody
	smallZone   bool          // or the zone is
	aimed       bool          // the plan knows the origin
	learnt      time.Duration // what held was when a member told the size
	believed    peer.ID       // the member whose word the size is; empty if it is nobody's
	answered    bool          // the origin has answered with bytes
	originErr   error         // what it said last; nil if it was bytes
	ill         time.Time     // since when it has said nothing else; zero if it is well
	chains      chains
}

// source is a member that has something of the blob, or fills it.
type source struct {
	holder  Holder
	id      plan.Member
	info    wire.Info // what it said last
	moved   time.Time // when it last had more than before
	rest    time.Time // not part of the plan before, because it failed
	whole   bool
	joined  bool // part of the plan
	far     bool // in another zone
	chained bool // was asked for its chain
	tried   bool // was alone to give the blob, and it was wrong
	odd     int  // pieces in conflict with others
	refused bool // the fill takes nothing from it any more
	traced  int  // its number in the trace, from 1 on; 0: it has none
	failed  int  // requests in a row
}

// flight is a request in flight.
type flight struct {
	plan.Request
	cancel context.CancelFunc
	source int // in the trace
}

// fetched counts bytes by source.
type fetched struct {
	origin, peers int64
	read          int64 // from the origin, also of pieces that are not whole yet
	beside        beside
}

// beside is what other fills of the node fetched, as a plan knows it.
type beside struct{ all, peers int64 }

// inflow is the bytes of pieces that came, over all fills.
type inflow struct{ all, peers atomic.Int64 }

// beside returns what came but what one fill fetched itself.
func (i *inflow) beside(own fetched) beside {
	return beside{all: i.all.Load() - own.origin - own.peers, peers: i.peers.Load() - own.peers}
}

// counts is what status shows.
type counts struct {
	mu sync.Mutex
	s  FillStatus
	ok bool
}

func newDriver(x *Exchange, k key, d blob.Descriptor) *driver {
	dr := &driver{
		x: x, key: k, turn: x.turns.next(), search: newSearch(x, d), want: d, log: x.log.With("digest", d.Digest),
		committed: make(chan struct{}), forgotten: make(chan struct{}),
		events:  make(chan func(), 64),
		flights: make(map[plan.ID]flight),
		sources: make(map[peer.ID]*source),
		byID:    make(map[plan.Member]*source),
		sizes:   make(map[peer.ID]int64),
		chains:  chains{unfit: make(map[[sha256.Size]byte]error), fetched: make(map[peer.ID]int)},
		origins: origins{changed: make(chan struct{}, 1)},
	}
	dr.size.Store(d.Size)
	dr.said.Store(filling())
	return dr
}

func (d *driver) addOrigin(src blob.Source) { d.origins.add(src) }

// status returns the state of the fill, false before there is one.
func (d *driver) status() (FillStatus, bool) {
	d.counts.mu.Lock()
	defer d.counts.mu.Unlock()
	return d.counts.s, d.counts.ok
}

// run drives the fill to its end.
func (d *driver) run(life context.Context) {
	ctx, cancel := context.WithCancel(life)
	d.begun = time.Now()
	d.record()
	d.x.followers.changed(d.key.digest)
	d.search.begin(d.x.followers.of(d.key.digest))
	d.io.Go(func() { d.search.run(ctx) })
	err := d.begin(ctx)
	if err != nil || d.plan != nil { // or else there is nothing to drive
		d.trace.Open()
	}
	if err == nil && d.plan != nil {
		err = d.loop(ctx)
	}
	d.trace.End(err)
	cancel()
	d.first.close()
	d.await()
	d.turn.leave(time.Now())
	d.x.forget(d) // who comes now starts anew
	d.finish(err)
}

// await waits for everything that does I/O; what it still posts is dropped.
func (d *driver) await() {
	done := make(chan struct{})
	go func() { d.io.Wait(); close(done) }()
	for {
		select {
		case <-d.events:
		case <-done:
			return
		}
	}
}

// begin learns the size if it must, and starts the fill. There is no plan
// after it if there is nothing to drive.
func (d *driver) begin(ctx context.Context) error {
	var known []found
	if d.want.Size < 0 {
		var err error
		if known, err = d.resolve(ctx); err != nil {
			return err
		}
		d.size.Store(d.want.Size)
	}
	fill, started, err := d.x.cache.Fill(d.want)
	if err != nil {
		return err
	}
	d.fill = fill
	if ended(fill) || !started && d.elsewhere() {
		d.settle(nil)
		return nil
	}
	d.plan = plan.New(plan.Config{
		Size: d.want.Size, PieceSize: blob.PieceSize, Here: fill.Have(),
		Self: ownership(string(d.x.self)), Key: ownership(d.want.Digest.String()),
		Seed: rand.Uint64(), Tuning: d.x.tuning(),
	})
	d.stored, d.busy = time.Now(), time.Now()
	d.trace.Sized(d.want.Size, d.here(fill.Have()))
	d.bytes.beside = d.x.inflow.beside(d.bytes)
	_, d.board.chain = d.x.cache.Chain(d.want)
	d.board.untold = true // what was left from an earlier fill
	d.look()
	for _, f := range known {
		d.found(f)
	}
	if d.plan.Done() { // restored whole: closure decides
		d.settle(nil)
	}
	d.recallOrigin()
	d.volunteer(ctx)
	return nil
}

func ended(f *blobcache.Fill) bool {
	select {
	case <-f.Done():
		return true
	default:
		return false
	}
}

// elsewhere reports whether another driver has the fill of the size that was
// resolved, and hands the origins over to it.
func (d *driver) elsewhere() bool {
	d.x.mu.Lock()
	other := d.x.drivers[key{d.want.Digest, d.want.Size}]
	d.x.mu.Unlock()
	if other == nil || other == d {
		return false
	}
	for _, o := range d.origins.all() {
		other.addOrigin(o)
	}
	return true
}

// settle tells those who wait that a source has committed itself, or that none
// will.
func (d *driver) settle(err error) {
	if d.settled {
		return
	}
	d.settled, d.err = true, err
	close(d.committed)
}

// now is the time of the plan. It stands still while this process does.
func (d *driver) now() time.Duration { return time.Since(d.begun) - d.asleep }

// woke notes that the driver slept for elapsed instead of at most wait. A process
// that was stopped, suspended, or starved of CPU must not take its own absence
// for the silence of others. Where the answer of members takes several turns of
// the processors, little is enough: what they are late counts even less there.
func (d *driver) woke(wait, elapsed time.Duration) {
	const noise, little = 50 * time.Millisecond, 2 * time.Millisecond
	if late := elapsed - wait; late > noise {
		d.asleep += late
	}
	d.held += min(elapsed, wait+little)
}

// post hands what happened to the driver, which takes it until all I/O has
// ended.
func (d *driver) post(do func()) { d.events <- do }

// loop drives the plan until the fill ends. It returns why the fill was given
// up, or nil.
func (d *driver) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		began := time.Now()
		wait, armed := d.step(ctx), time.Now()
		d.held += armed.Sub(began) // news may come so fast that it never sleeps
		timer.Reset(wait)
		idle := false
		select {
		case do := <-d.events:
			do()
			d.drain()
		case <-d.search.fresh:
		case <-d.fill.Rejected():
			d.drain() // what was stored before it was rejected
			d.rejected()
		case <-d.origins.changed:
		case <-d.turn.awake:
		case <-timer.C:
			idle = true
		case <-d.fill.Done():
			d.drain() // what was stored last
			return d.fill.Err()
		case <-ctx.Done():
			return ErrClosed
		}
		d.board.untold = d.board.untold || !idle
		d.woke(wait, time.Since(armed))
		if err := d.hopeless(); err != nil {
			return err
		}
	}
}

// drain handles all events that are there.
func (d *driver) drain() {
	for {
		select {
		case do := <-d.events:
			do()
		default:
			return
		}
	}
}

// maxStarts bounds the requests to members that begin in one step.
const maxStarts = 16

// tick is the longest time between two looks at the deadlines.
const tick = 250 * time.Millisecond

// step carries out what the plan wants and returns when to look again.
func (d *driver) step(ctx context.Context) time.Duration {
	d.listen() // before anything is asked for that somebody claims
	d.aimOrigin()
	d.auditable()
	d.reconcile()
	d.fillUp()
	d.askChains(ctx)
	d.stepIn(ctx)
	d.lookBeside()
	d.hurry()
	granted, asked := d.reserve(), 0
	room := plan.Room{Members: d.x.members.take(d.x.starts()), Origin: granted.slots}
	orders := d.plan.Next(d.now(), room)
	for _, id := range orders.Cancel {
		d.cancel(id)
	}
	full := room.Members == 0 && room.Origin == 0
	for _, r := range orders.Start {
		d.start(ctx, r)
		if r.Member == plan.Origin {
			asked++
		} else if room.Members--; room.Members == 0 {
			full = true // there may be more to ask
		}
	}
	d.x.members.give(room.Members)
	if d.use(granted, asked) {
		full = true
	}
	d.publish()
	wait := d.tell()
	if full {
		wait = 10 * time.Millisecond // for memory
	}
	now := d.now()
	if wake, ok := d.plan.NextWake(now); ok {
		wait = min(wait, max(0, wake-now))
	}
	if !d.settled {
		wait = min(wait, 10*time.Millisecond) // for the search to have ended
	}
	return wait
}

// lookBeside tells the plan what other fills got.
func (d *driver) lookBeside() {
	was, is := d.bytes.beside, d.x.inflow.beside(d.bytes)
	if all, peers := is.all-was.all, is.peers-was.peers; all > 0 {
		d.plan.Beside(d.now(), all, peers)
		d.bytes.beside = is
	}
}

// reconcile finds pieces that the plan thinks are here and the fill has
// dropped: a piece can be rejected before its arrival was reported.
func (d *driver) reconcile() {
	if d.rounds == 0 || !d.plan.Done() {
		return
	}
	have := d.fill.Have()
	for i := range blob.PieceCount(d.want.Size) {
		if !have.Test(uint(i)) {
			d.plan.Lost(i, plan.Origin, true)
		}
	}
}

func (d *driver) publish() {
	n := blob.PieceCount(d.want.Size)
	joined := 0
	for _, s := range d.sources {
		if s.joined {
			joined++
		}
	}
	d.trace.Show()
	d.counts.mu.Lock()
	defer d.counts.mu.Unlock()
	d.counts.ok = true
	d.counts.s = FillStatus{
		Blob: d.want, Pieces: n, Done: n - d.plan.Missing(), Members: joined,
		FromOrigin: d.bytes.origin, FromPeers: d.bytes.peers,
	}
}

// cancel breaks a request off.
func (d *driver) cancel(id plan.ID) {
	if f, ok := d.flights[id]; ok {
		delete(d.flights, id)
		d.trace.Answered(f.source)
		f.cancel()
	}
}

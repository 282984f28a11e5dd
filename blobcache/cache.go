// Package blobcache keeps blobs and manifests on disk under a byte budget, and
// is the only judge of what is proven. It holds whole blobs (Get), and fills:
// blobs on their way in, whose pieces anybody may write in any order while any
// number of readers follow behind. It never fetches: a driver writes the
// pieces, and is told which ones to bring again.
//
// What always holds:
//   - a file under blobs/ was proven against its digest before it got there,
//     was on disk before it got its name, and is proven again before use when
//     the file has changed or the proof has aged;
//   - a reader gets a byte only if it is proven, or agrees with a chain that a
//     trusted key has signed, or by the one rule for bytes that this node itself
//     took from the origin (Reader);
//   - a reader never comes to a clean end before its blob is proven that far;
//   - nobody is convicted by anything but a chain that closed here, and a key
//     that has signed another one is not trusted any more;
//   - what came by way of few is marked so (Reach) on disk before its first
//     byte is kept;
//   - a piece is given to members only if it is proven or somebody answers for
//     it, and never as anything else than what it was said to be (Loan);
//   - what somebody reads, what is on its way and what is pinned is not evicted;
//   - memory does not grow with the size of blobs, but for some 250 bytes a
//     piece of a running fill, most of it for its voucher.
//
// On disk, under one directory that one process owns:
//
//	blobs/sha256/HEX          whole and proven, as in an OCI layout
//	partial/HEX-SIZE/data     a fill's sparse file
//	partial/HEX-SIZE/pieces   which pieces of it are on disk (see bitmap)
//	meta.db                   records, closed chains and who has signed them,
//	                          what manifests told, what is not for everybody,
//	                          tags, names, pins
//
// Goroutines: Run owns the periodic ones. Those that hash, prove and commit
// are started as fills need them and belong to the Cache; Close waits for them.
package blobcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"shoal/blobcache/blob"
	"shoal/blobcache/internal/meta"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
)

// Errors beside those of package blob.
var (
	// ErrClosed: the cache or the fill has ended.
	ErrClosed = errors.New("closed")
	// ErrConflict: bytes and a chain, or two chains, disagree and neither is
	// proven. Nobody is convicted: ask another source.
	ErrConflict = errors.New("conflicts with what is not proven")
	// ErrRefused: the origin has shown who answers for the bytes to be wrong
	// about others. Ask another source.
	ErrRefused = errors.New("comes from who was wrong before")
	// ErrInUse: another process owns the directory.
	ErrInUse = errors.New("in use by another process")
)

const (
	// defaultReverify is the age at which a proof of bytes on disk is renewed.
	defaultReverify = 24 * time.Hour
	// buried is how long a digest is answered as corrupt after bytes that
	// proved wrong had flowed to clients, so that none resumes on top of them.
	buried = 60 * time.Second
)

// Options are the settings of a Cache. The zero value is usable.
type Options struct {
	// Budget bounds whole and partial blobs together, in bytes. 0: only the
	// disk is the bound.
	Budget int64
	// ReverifyAfter is the age at which a blob is hashed again before it is
	// served; 0 means 24 hours.
	ReverifyAfter time.Duration
	// TrustedKeys are those whose endorsements of chains are believed; see
	// Fill.OfferEndorsed for what that means.
	TrustedKeys []statement.Key
	// Signer endorses the chains of blobs that were proven here; nil: nobody.
	Signer *statement.Signer
	// HighWater and LowWater are shares of the budget: when more than HighWater of
	// it is used, Run evicts until no more than LowWater is, before a fill has to
	// wait for it. 0: only what is needed is evicted, when it is.
	HighWater, LowWater float64
	// MinFree is how many bytes of the disk stay free, whatever the budget says.
	MinFree int64
	// MaxAge is how long what was not used stays; 0 is for ever.
	MaxAge time.Duration
	// ScrubEvery is how often each blob is proven again by Run; 0 is never.
	// ScrubRate bounds how many bytes a second are read for it; 0 does not.
	ScrubEvery time.Duration
	ScrubRate  int64
	// Logger takes what operators should know; nil discards it.
	Logger *slog.Logger
	// Metrics takes the collectors; nil keeps them to ourselves.
	Metrics prometheus.Registerer
}

// Cache is an open directory. All methods may be called from any goroutine.
type Cache struct {
	dir     string
	budget  int64
	minFree int64
	// In bytes; 0: none.
	highWater, lowWater int64
	maxAge              time.Duration
	scrubEvery          time.Duration
	scrubRate           int64
	reverify            time.Duration
	log                 *slog.Logger
	metrics             *metrics
	lock                *os.File
	meta                *meta.Store
	disk                disk
	chains              bool         // chains are supported by this runtime
	trust               trust        // whose endorsements are believed
	pieces              sync.Pool    // of *[blob.PieceSize]byte
	putting             atomic.Int32 // calls of Put that read

	unflushed atomic.Bool // it was logged that records are not written

	committing sync.Mutex      // one commit at a time; before mu
	life       context.Context // ends with Close; for work that outlives its caller
	end        context.CancelFunc
	work       sync.WaitGroup

	mu       sync.Mutex // before any Fill.mu
	closed   bool
	blobs    map[digest.Digest]*entry
	partials map[fillKey]*entry // not running
	idle     lru                // of both, the pinned ones included
	fills    map[fillKey]*Fill
	graves   map[digest.Digest]time.Time                  // corrupt until then
	marks    map[digest.Digest]mark                       // of what is not for everybody
	marked   uint64                                       // grows with every restriction
	onDisk   uint64                                       // what marked was when the last ones reached the disk
	used     int64                                        // bytes of blobs, partials and fills
	pinned   int64                                        // bytes of blobs in use
	refs     map[digest.Digest][]digest.Digest            // what manifests name that are here or on their way
	parents  map[digest.Digest]map[digest.Digest]struct{} // refs, the other way round
	pins     map[string]digest.Digest                     // the operator's, by name; "" is not here yet
	keptSet  map[digest.Digest]bool                       // of pinned images; nil: to be computed
	full     time.Time                                    // when a lack of room was last logged
	trashed  int                                          // names used for trash
	subs     map[*subscription]struct{}
}

// fillKey tells fills apart. A size is a claim until the blob is proven, so
// that conflicting claims get separate fills.
type fillKey struct {
	digest digest.Digest
	size   int64
}

func (k fillKey) String() string { return fmt.Sprintf("%s-%d", k.digest.Encoded(), k.size) }

// Open opens or creates the cache in dir. ErrInUse if another process has it
// open. Blobs that were whole at the last shutdown are there at once; those
// that a crash left without a record are proven by Run first.
func Open(dir string, o Options) (*Cache, error) {
	c := &Cache{
		dir:      dir,
		budget:   o.Budget,
		reverify: o.ReverifyAfter,
		log:      o.Logger,
		metrics:  newMetrics(o.Metrics),
		disk:     realDisk(),
		chains:   proof.Supported(),
		trust:    newTrust(o.TrustedKeys, o.Signer),
		blobs:    map[digest.Digest]*entry{},
		partials: map[fillKey]*entry{},
		fills:    map[fillKey]*Fill{},
		graves:   map[digest.Digest]time.Time{},
		marks:    map[digest.Digest]mark{},
		subs:     map[*subscription]struct{}{},
		refs:     map[digest.Digest][]digest.Digest{},
		parents:  map[digest.Digest]map[digest.Digest]struct{}{},
		pins:     map[string]digest.Digest{},

		minFree:    o.MinFree,
		highWater:  int64(o.HighWater * float64(o.Budget)),
		lowWater:   int64(o.LowWater * float64(o.Budget)),
		maxAge:     o.MaxAge,
		scrubEvery: o.ScrubEvery,
		scrubRate:  o.ScrubRate,
	}
	c.metrics.budget.Set(float64(o.Budget))
	c.pieces.New = func() any { return new([blob.PieceSize]byte) }
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.reverify == 0 {
		c.reverify = defaultReverify
	}
	if !c.chains {
		c.log.Warn("this Go runtime hides the state of SHA-256: blobs are proven as a whole only")
	}
	if err := c.open(); err != nil {
		if c.meta != nil {
			err = errors.Join(err, c.meta.Close())
		}
		if c.lock != nil {
			err = errors.Join(err, c.lock.Close())
		}
		return nil, fmt.Errorf("blob cache: %w", err)
	}
	c.life, c.end = context.WithCancel(context.Background())
	return c, nil
}

func (c *Cache) open() error {
	for _, d := range []string{c.dir, c.blobDir(), c.partialDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	lock, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	c.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s is %w: stop it or choose another data directory", c.dir, ErrInUse)
		}
		return fmt.Errorf("lock %s: %w", c.dir, err)
	}
	if err := c.openMeta(); err != nil {
		return err
	}
	if err := c.loadBlobs(); err != nil {
		return err
	}
	if err := c.loadPartials(); err != nil {
		return err
	}
	if err := c.loadMarks(); err != nil {
		return err
	}
	if err := c.loadPins(); err != nil {
		return err
	}
	c.rank()
	return nil
}

// openMeta opens meta.db, starting over when it is broken: all that is lost is
// time, since blobs without a record are proven again.
func (c *Cache) openMeta() error {
	path := filepath.Join(c.dir, "meta.db")
	store, err := meta.Open(path)
	if err != nil && !errors.Is(err, meta.ErrFormat) && !errors.Is(err, unix.ENOSPC) {
		aside, errAway := meta.PutAway(path)
		if errAway != nil {
			return errors.Join(err, errAway)
		}
		c.log.Error("records of the cache are broken: starting over, all blobs will be proven again", "error", err, "kept", aside)
		store, err = meta.Open(path)
	}
	c.meta = store
	return err
}

// Close ends all fills, whose partial files stay for the next time, waits for
// the cache's goroutines and releases the directory. Blobs that are still open
// stay readable. Run must have returned.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	fills := make([]*Fill, 0, len(c.fills))
	for _, f := range c.fills {
		fills = append(fills, f)
	}
	for s := range c.subs {
		s.close()
	}
	clear(c.subs)
	c.mu.Unlock()

	c.end()
	for _, f := range fills {
		f.Fail(ErrClosed)
	}
	c.work.Wait()
	c.keepUses()
	return errors.Join(c.meta.Close(), c.lock.Close())
}

func (c *Cache) blobDir() string    { return filepath.Join(c.dir, "blobs", "sha256") }
func (c *Cache) partialDir() string { return filepath.Join(c.dir, "partial") }

func (c *Cache) blobPath(d digest.Digest) string {
	return filepath.Join(c.blobDir(), d.Encoded())
}

func (c *Cache) fillDir(k fillKey) string { return filepath.Join(c.partialDir(), k.String()) }

// Stat tells whether d is here, whole and proven, without touching the disk.
func (c *Cache) Stat(d digest.Digest) (blob.Descriptor, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blobs[d]
	if e == nil || e.proven.IsZero() || c.buried(d) {
		return blob.Descriptor{}, false
	}
	return e.desc, true
}

// Blobs lists the blobs that are here, whole and proven, in no order.
func (c *Cache) Blobs() []blob.Descriptor {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]blob.Descriptor, 0, len(c.blobs))
	for d, e := range c.blobs {
		if !e.proven.IsZero() && !c.buried(d) {
			all = append(all, e.desc)
		}
	}
	return all
}

// Chain returns the chain of d if it ever closed here, also when the blob is
// gone since: what agrees with it is proven. d.Size must be the blob's size.
func (c *Cache) Chain(d blob.Descriptor) (proof.Chain, bool) {
	if d.Size < 0 || d.Size > blob.MaxSize {
		return nil, false
	}
	if blob.PieceCount(d.Size) <= 1 {
		return proof.Chain{}, true // the digest alone decides over one piece
	}
	if !c.chains {
		return nil, false
	}
	chain, ok, err := c.meta.Chain(d)
	if err != nil {
		c.log.Warn("chain is unreadable", "digest", d.Digest, "error", err)
	}
	return chain, ok
}

// Remember keeps what a manifest said about blobs that may not be here yet:
// size and media type. It is for the word of manifests that were proven, never
// of peers. Descriptors without a size are left out.
func (c *Cache) Remember(ds ...blob.Descriptor) {
	for _, d := range ds {
		if d.Size < 0 {
			continue
		}
		if err := c.meta.Remember(d); err != nil {
			c.log.Warn("descriptor is not remembered", "digest", d.Digest, "error", err)
		}
	}
}

// Lookup returns what is known of d: of a whole blob what is so, otherwise
// what a manifest said.
func (c *Cache) Lookup(d digest.Digest) (blob.Descriptor, bool) {
	known, whole := c.Stat(d)
	if whole && known.MediaType != "" {
		return known, true
	}
	told, ok, err := c.meta.Told(d)
	if err != nil {
		c.log.Warn("descriptor is unreadable", "digest", d, "error", err)
	}
	if whole {
		known.MediaType = told.MediaType
		return known, true
	}
	return told, ok
}

// buried tells whether d is answered as corrupt. The caller holds mu.
func (c *Cache) buried(d digest.Digest) bool {
	until, ok := c.graves[d]
	return ok && time.Now().Before(until)
}

// bury has d answered as corrupt for a while.
func (c *Cache) bury(d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(c.graves, func(_ digest.Digest, until time.Time) bool { return !now.Before(until) })
	c.graves[d] = now.Add(buried)
}

// errBuried is what the digest d is answered with while it is buried.
func errBuried(d digest.Digest) error {
	return fmt.Errorf("%s: %w: wrong bytes went out less than %v ago: %w", d, blob.ErrNotFound, buried, blob.ErrCorrupt)
}

package blobcache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/bits-and-blooms/bitset"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
)

// Fill is a blob on its way in. A driver writes its pieces, in any order and
// from any goroutine, and minds Rejected; readers follow behind. It ends by
// closure, when the pieces lead to the digest (Err is then nil and the blob is
// in the cache), by Fail, or with the Cache; Done is closed then.
type Fill struct {
	c       *Cache
	key     fillKey
	n       int          // pieces
	held    atomic.Int64 // bytes of the pieces that are here
	promise atomic.Int64 // bytes that it will take in all; 0 once it is a blob

	opened   chan struct{} // closed when file is there, or err
	done     chan struct{}
	rejected chan struct{}  // holds a value while rejections wait
	unsaved  atomic.Bool    // it was logged that progress is not kept
	saving   sync.Mutex     // one write of the bitmap at a time; before mu
	inflight sync.WaitGroup // users of file; added to under mu while running
	// writing is held for one write of the file at a time. The kernel takes
	// them in turn anyway, and who waits there spins (5 % of the processor
	// time of a fill from four streams).
	writing sync.Mutex

	mu   sync.Mutex
	desc blob.Descriptor
	file *os.File
	path string // of file's name at present
	err  error  // why it failed; nil while it runs
	// whole: the pieces led to the digest. All are proven, nothing is written.
	whole   bool
	leaving bool // err or whole, and nobody new may use file
	ended   bool // done is closed
	dirty   bool // have is newer than the bitmap on disk

	have    *bitset.BitSet // written
	proven  *bitset.BitSet // see package proof; all or nothing unless sealed
	busy    *bitset.BitSet // being written now
	from    []uint32       // index into sources, by piece
	sources []Provenance   // sources[0] is nobody: restored from disk
	index   map[Provenance]uint32

	front   int  // pieces 0 to front-1 have been hashed in order
	hashing bool // somebody hashes piece front, and owns hasher
	judging bool // a failed closure is being sorted out; nobody may hash
	hasher  *proof.Hasher
	sealed  proof.Chain // the proven chain, nil if none is known
	offer               // a stranger's chain

	endorsing // what trusted keys have said of it

	run     int // pieces 0 to run-1 come from one upstream identity
	flowed  int // pieces 0 to flowed-1 may have gone out before they were proven
	readers int
	pinned  *entry        // the blob once committed; readers pin it
	changed chan struct{} // closed when something to wait for changes; nil if nobody waits

	trial   // what is held against whom
	lending // what members may have of it
}

// Provenance tells who answers for the bytes of a piece: exactly one of the
// fields is set.
type Provenance struct {
	// Peer names the peer that sent them, or that vouched for them.
	Peer string
	// Identity is the blob.Stream.Identity of the origin stream that they were
	// read from by this node itself. It must be given only if the stream's
	// Size was the size of the fill: such bytes may flow to clients early.
	Identity string
}

func (p Provenance) String() string {
	switch {
	case p.Peer != "":
		return "peer " + p.Peer
	case p.Identity != "":
		return "upstream " + p.Identity
	}
	return "disk"
}

// Fill returns the fill of d, whose size must be known, and whether this call
// started it: the starter drives it. A partial one that was left on disk goes
// on from there. If d is here already, the Fill has ended and serves readers
// from the whole blob.
//
// Errors: blob.ErrNoSpace if it cannot fit, blob.ErrTooLarge beyond
// blob.MaxSize, blob.ErrDigestInvalid, blob.ErrCorrupt if the size is known to
// be wrong or the digest is buried (see Get), ErrClosed.
func (c *Cache) Fill(d blob.Descriptor) (f *Fill, started bool, err error) {
	if _, err := blob.ParseDigest(d.Digest.String()); err != nil {
		return nil, false, err
	}
	if d.Size < 0 {
		return nil, false, fmt.Errorf("fill %s: its size is not known", d.Digest)
	}
	if d.Size > blob.MaxSize {
		return nil, false, fmt.Errorf("fill %s: %w: %d bytes", d.Digest, blob.ErrTooLarge, d.Size)
	}
	if d.Size == 0 && d.Digest != digest.FromBytes(nil) {
		return nil, false, fmt.Errorf("fill %s: %w: it is not empty", d.Digest, blob.ErrCorrupt)
	}
	for {
		f, started, err = c.join(d)
		if started {
			err = f.openFiles()
		}
		switch {
		case errors.Is(err, blob.ErrNoSpace):
			return nil, false, c.outOfSpace(fmt.Errorf("fill %s: %w", d.Digest, err))
		case err != nil:
			return nil, false, fmt.Errorf("fill %s: %w", d.Digest, err)
		case started:
			return f, true, nil
		}
		<-f.opened
		if !f.failing() {
			f.learn(d.MediaType)
			return f, false, nil
		}
		<-f.done // it is giving up: short, and its file is ours then
	}
}

// join returns the fill of d, and whether it is new; then the caller must open
// its files.
func (c *Cache) join(d blob.Descriptor) (f *Fill, started bool, err error) {
	key := fillKey{d.Digest, d.Size}
	sealed, _ := c.Chain(d)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false, ErrClosed
	}
	if c.buried(d.Digest) {
		return nil, false, errBuried(d.Digest)
	}
	if e := c.blobs[d.Digest]; e != nil && !e.proven.IsZero() {
		if e.desc.Size != d.Size {
			return nil, false, fmt.Errorf("%w: a size of %d is claimed, it is %d", blob.ErrCorrupt, d.Size, e.desc.Size)
		}
		return endedFill(c, e.desc), false, nil
	}
	if f := c.fills[key]; f != nil {
		return f, false, nil
	}
	partial, had := c.partials[key], int64(0)
	if partial != nil {
		had = partial.bytes
	}
	if err := c.fits(d.Size, had); err != nil {
		return nil, false, err
	}
	if partial != nil {
		delete(c.partials, key)
		c.idle.remove(partial)
		c.addUsed(-partial.bytes)
	}
	f = newFill(c, d, sealed)
	f.inflight.Add(1) // until its files are open
	c.fills[key] = f
	c.metrics.running.Inc()
	return f, true, nil
}

func newFill(c *Cache, d blob.Descriptor, sealed proof.Chain) *Fill {
	n := blob.PieceCount(d.Size)
	f := &Fill{
		c: c, key: fillKey{d.Digest, d.Size}, n: n, desc: d, sealed: sealed,
		opened:   make(chan struct{}),
		done:     make(chan struct{}),
		rejected: make(chan struct{}, 1),
		have:     bitset.New(uint(n)),
		proven:   bitset.New(uint(n)),
		busy:     bitset.New(uint(n)),
		offer:    offer{linked: bitset.New(uint(n))},
		from:     make([]uint32, n),
		sources:  make([]Provenance, 1),
		index:    map[Provenance]uint32{{}: 0},
		hasher:   proof.NewHasher(),
		trial:    newTrial(n),

		endorsing: newEndorsing(n),
		lending:   newLending(n),
	}
	f.promise.Store(d.Size)
	return f
}

// endedFill returns the fill of a blob that is whole already.
func endedFill(c *Cache, d blob.Descriptor) *Fill {
	n := uint(blob.PieceCount(d.Size))
	f := &Fill{
		c: c, key: fillKey{d.Digest, d.Size}, n: int(n), desc: d, whole: true, ended: true,
		opened:   make(chan struct{}),
		done:     make(chan struct{}),
		rejected: make(chan struct{}, 1),
		have:     bitset.New(n).FlipRange(0, n),
		proven:   bitset.New(n).FlipRange(0, n),
	}
	close(f.opened)
	close(f.done)
	return f
}

// openFiles creates or restores the partial files and sets the fill going. It
// is called once, by the starter, and fails the fill if it fails.
func (f *Fill) openFiles() error {
	err := f.openData()
	if noSpace(err) {
		err = fmt.Errorf("%w: %w", blob.ErrNoSpace, err)
	}
	f.c.addBytes(f.held.Load())
	f.mu.Lock()
	if err != nil {
		f.fail(err)
	} else {
		f.begin()
	}
	f.mu.Unlock()
	close(f.opened)
	f.inflight.Done()
	return err
}

// openData opens the file, and finds out what is in it.
func (f *Fill) openData() error {
	dir := f.c.fillDir(f.key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f.path = filepath.Join(dir, dataName)
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	f.file = file
	if err := f.restore(dir); err != nil {
		return err
	}
	return reserveBitmap(dir, f.key.size)
}

// restore finds out what of the blob is in the file already.
func (f *Fill) restore(dir string) error {
	st, err := f.file.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	p, err := readBitmap(dir, f.key.size, st.Size())
	if err != nil {
		f.c.log.Warn("partial blob starts over", "digest", f.key.digest, "size", f.key.size, "error", err)
		return f.file.Truncate(0)
	}
	if st.Size() > f.key.size {
		if err := f.file.Truncate(f.key.size); err != nil {
			return err
		}
	}
	f.have, f.flowed = p.have, p.flowed
	for i, ok := f.have.NextSet(0); ok; i, ok = f.have.NextSet(i + 1) {
		f.held.Add(blob.Piece(int(i), f.key.size).Length)
	}
	if f.have.Any() {
		f.c.log.Info("partial blob goes on", "digest", f.key.digest, "size", f.key.size, "pieces", f.have.Count(), "of", f.n)
	}
	return nil
}

// Running returns a fill of d that is running, of whatever claimed size.
func (c *Cache) Running(d digest.Digest) (*Fill, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best *Fill
	for k, f := range c.fills {
		if k.digest == d && f.ready() && (best == nil || f.held.Load() > best.held.Load()) {
			best = f
		}
	}
	return best, best != nil
}

// Descriptor returns what is known of the blob; the size is a claim until Done.
func (f *Fill) Descriptor() blob.Descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.desc
}

// named returns digest and claimed size, which never change.
func (f *Fill) named() blob.Descriptor {
	return blob.Descriptor{Digest: f.key.digest, Size: f.key.size}
}

func (f *Fill) learn(mediaType string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.desc.MediaType == "" {
		f.desc.MediaType = mediaType
	}
}

// Have returns the pieces that are here, proven or not.
func (f *Fill) Have() *bitset.BitSet {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have.Clone()
}

// Proven returns the pieces that are here and proven: those that match a chain
// that closed here earlier, or all of them after closure.
func (f *Fill) Proven() *bitset.BitSet {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.proven.Clone()
}

// Done is closed when the fill has ended: committed or failed, all its files
// closed.
func (f *Fill) Done() <-chan struct{} { return f.done }

// Err returns nil while the fill runs and after it was committed; otherwise
// what it failed of.
func (f *Fill) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *Fill) failing() bool { return f.Err() != nil }

// ready tells whether f can be written and read.
func (f *Fill) ready() bool {
	select {
	case <-f.opened:
		return !f.failing()
	default:
		return false
	}
}

// read reads piece i into buf. The caller is counted in inflight.
func (f *Fill) read(i int, buf []byte) ([]byte, error) {
	r := blob.Piece(i, f.key.size)
	n, err := f.file.ReadAt(buf[:r.Length], r.Offset)
	if int64(n) == r.Length {
		err = nil
	}
	return buf[:n], err
}

// Fail ends the fill because its driver gives up: readers get err, and what is
// on disk stays for the next Fill. It does nothing once the pieces have led to
// the digest.
func (f *Fill) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail(err)
}

// fail does it. The caller holds mu.
func (f *Fill) fail(err error) {
	if f.err != nil || f.whole {
		return
	}
	f.err = err
	f.wake()
	f.share()
	f.c.work.Go(f.retire)
}

// wake lets everybody look again who waits for a change. The caller holds mu.
func (f *Fill) wake() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// wait returns a channel that is closed at the next change. The caller holds
// mu.
func (f *Fill) wait() <-chan struct{} {
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

package exchange

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
	"shoal/p2p/plan"
	"shoal/p2p/wire"
)

const (
	// reportBytes and reportEvery: progress is told to the plan for so many
	// bytes, or after so much time.
	reportBytes = blob.PieceSize / 4
	reportEvery = 100 * time.Millisecond
	// maxFailures is how many requests in a row may fail before a member is
	// not asked any more for this blob, unless it is found again.
	maxFailures = 6
	// maxOdd is how many pieces of a member may be in conflict with those of
	// others before it is not asked any more for this blob. Nobody is
	// convicted by that; but somebody who sends something else each time
	// would keep a fill from its end.
	maxOdd = 16
)

// errDisk marks errors of storing a piece: the source is not to blame.
var errDisk = errors.New("piece cannot be stored")

// start carries out a request, for which a piece was reserved in the budget.
func (d *driver) start(ctx context.Context, r plan.Request) {
	ctx, cancel := context.WithCancel(ctx)
	d.flights[r.ID] = flight{r, cancel, d.traced(r.Member)}
	d.trace.Asked(d.flights[r.ID].source)
	src := d.byID[r.Member]
	if r.Member == plan.Origin {
		origin, first := d.origins.current(), d.first
		d.first = nil
		d.io.Go(func() {
			err := d.fromOrigin(ctx, r, origin, first)
			if d.takesTurns() {
				d.turn.ended(time.Now())
			}
			d.post(func() { d.ended(r, src, err) })
			cancel()
		})
		return
	}
	holder := src.holder // what is known of it may change
	d.io.Go(func() {
		err := d.fromMember(ctx, r, holder)
		d.post(func() { d.ended(r, src, err) })
		cancel()
	})
}

// fromMember fetches a run of pieces from a member.
func (d *driver) fromMember(ctx context.Context, r plan.Request, h Holder) error {
	buf := d.x.members.buffer()
	defer d.x.members.done(buf)
	begun := time.Now()
	pieces, err := d.x.client.pieces(ctx, h.Peer, wire.Request{
		Kind: wire.KindPieces, Digest: d.want.Digest, Size: d.want.Size, First: r.First, Count: r.Count,
	})
	if err != nil {
		return err
	}
	defer pieces.body.Close()
	in := run{Request: r, from: blobcache.Provenance{Peer: h.Peer.String()}, account: d.x.met.meet(h.Peer), begun: begun}
	if pieces.chain != nil {
		in.chain = pieces.chain.Sum
	}
	if in.backings, err = d.examine(ctx, h.Peer, r.First, pieces); err != nil {
		return err
	}
	wanted := func(b backing) bool { return b.unwanted == nil }
	if !slices.ContainsFunc(in.backings, wanted) {
		return in.backings[0].unwanted
	}
	return d.receive(in, pace.Limits{d.x.download}.Reader(ctx, pieces.body, d.flow), buf)
}

// run is a run of pieces on its way in.
type run struct {
	plan.Request
	from     blobcache.Provenance
	backings []backing         // one for each; nil from the origin
	chain    [sha256.Size]byte // that some are said to agree with
	account  *account          // of the member; nil of the origin
	begun    time.Time         // when the member was asked
}

// receive reads the pieces of a run and stores each as it comes.
func (d *driver) receive(r run, body io.Reader, buf *[blob.PieceSize]byte) error {
	for i := r.First; i < r.First+r.Count; i++ {
		data := buf[:blob.Piece(i, d.want.Size).Length]
		if err := d.read(r.ID, body, data); err != nil {
			return fmt.Errorf("piece %d: %w", i, err)
		}
		begun := time.Now()
		err := d.store(r, i, data)
		var wrong *wrongPiece
		switch {
		case err == nil:
			took := time.Since(begun)
			d.post(func() {
				d.delivered(r, i, int64(len(data)))
				d.trace.Kept(d.traced(r.Member), int64(len(data)), took)
			})
		case errors.As(err, &wrong):
			return err
		case errors.Is(err, blobcache.ErrConflict), errors.Is(err, blobcache.ErrRefused), errors.Is(err, errUnwanted):
			d.post(func() { d.conflict(r, i, err) })
		default:
			return fmt.Errorf("%w: %w", errDisk, err)
		}
	}
	return nil
}

// read fills data from body and tells the plan of the progress.
func (d *driver) read(id plan.ID, body io.Reader, data []byte) error {
	told, last := 0, time.Now()
	tell := func(n int) {
		bytes := int64(n - told)
		told, last = n, time.Now()
		d.post(func() { d.progress(id, bytes) })
	}
	for n := 0; n < len(data); {
		k, err := body.Read(data[n:])
		n += k
		if n == len(data) || n-told >= reportBytes || n > told && time.Since(last) >= reportEvery {
			tell(n)
		}
		if err != nil && n < len(data) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// progress tells the plan of bytes that came.
func (d *driver) progress(id plan.ID, bytes int64) {
	d.plan.Progress(d.now(), id, bytes)
	f, mine := d.flights[id]
	if !mine {
		return // cancelled
	}
	d.trace.Came(f.source, bytes)
	if f.Member == plan.Origin {
		d.bytes.read += bytes
	}
}

// delivered tells the plan that a piece was stored.
func (d *driver) delivered(r run, i int, bytes int64) {
	d.plan.Delivered(d.now(), r.ID)
	d.plan.Stored(i) // also if the request was given up meanwhile
	d.x.inflow.all.Add(bytes)
	d.stored = time.Now()
	if r.Member == plan.Origin {
		d.bytes.origin += bytes
		d.x.metrics.fetched.WithLabelValues("origin").Add(float64(bytes))
		return
	}
	d.bytes.peers += bytes
	d.x.inflow.peers.Add(bytes)
	r.account.took(d.want.Digest, bytes, r.begun, d.stored)
	d.x.metrics.fetched.WithLabelValues("peers").Add(float64(bytes))
	if src := d.byID[r.Member]; src != nil {
		src.failed = 0
		if src.far {
			d.x.metrics.otherZones.Add(float64(bytes))
		}
	}
}

// conflict tells the plan that a piece was not stored, because it disagrees
// with what others say: another source is asked.
func (d *driver) conflict(r run, i int, err error) {
	d.log.Debug("piece is in doubt", "piece", i, "from", r.from.String(), "error", err)
	d.x.metrics.pieceErrors.Inc()
	d.plan.Delivered(d.now(), r.ID)
	d.plan.Lost(i, r.Member, false)
	src := d.byID[r.Member]
	switch {
	case src == nil, r.backings != nil && r.backings[i-r.First].signer != "" && r.backings[i-r.First].signer != src.holder.Peer:
		// Others answer for it.
	case errors.Is(err, blobcache.ErrRefused):
		src.refused = true
		d.leave(src)
	default:
		if src.odd++; src.odd >= maxOdd {
			d.leave(src)
		}
	}
}

// ended handles the end of a request.
func (d *driver) ended(r plan.Request, src *source, err error) {
	f, mine := d.flights[r.ID]
	if !mine {
		return // cancelled
	}
	delete(d.flights, r.ID)
	d.trace.Answered(f.source)
	switch {
	case err == nil:
		return
	case errors.Is(err, errDisk):
		d.fill.Fail(err)
	case r.Member == plan.Origin:
		d.originFailed(r, err)
	default:
		d.memberFailed(r, src, err)
	}
}

// memberFailed handles a request that a member did not bring to its end.
func (d *driver) memberFailed(r plan.Request, src *source, err error) {
	now := d.now()
	busy := errors.Is(err, errBusy) || errors.Is(err, errUnwanted)
	var wrong *wrongPiece
	if errors.Is(err, errUnwanted) {
		for i := range r.Count {
			d.plan.Lost(r.First+i, r.Member, false)
		}
	}
	d.plan.Failed(now, r.ID, !busy)
	switch {
	case errors.As(err, &wrong):
		d.x.metrics.pieceErrors.Inc()
		d.ban(src.holder.Peer, wrong.about, wrong.piece)
	case errors.Is(err, errGone):
		d.leave(src)
	case !busy:
		if src.failed++; src.failed >= maxFailures {
			d.leave(src)
		}
	}
	if errors.Is(err, errLie) && src.failed == 1 { // and not for each of the tries that follow
		d.log.Warn("member breaks the protocol", "peer", src.holder.Peer, "first", r.First, "count", r.Count, "error", err)
		return
	}
	d.log.Debug("member failed", "peer", src.holder.Peer, "first", r.First, "count", r.Count, "error", err)
}

// flow is in whose name the bytes of the fill pass limits: it is in the
// background while nobody reads.
func (d *driver) flow() pace.Flow {
	f, ok := d.x.cache.Running(d.key.digest)
	return pace.Flow{Name: string(d.key.digest), Background: ok && !f.Read()}
}

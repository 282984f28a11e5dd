package exchange

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
	"shoal/p2p/channel"
	"shoal/p2p/wire"
)

const (
	// sendSize is how much is written to a connection at a time. Large writes
	// are what makes TLS cheap.
	sendSize = 256 << 10
	// sendTimeout bounds one such write: a member that takes less than 26
	// kB/s for that long is cut off.
	sendTimeout = 10 * time.Second
	// maxUploads bounds requests that are being answered, and maxPerMember
	// those of one member: some fills, four requests each. Others are told to
	// come back.
	maxUploads   = 256
	maxPerMember = 48
)

// uploads counts the requests that are being answered.
type uploads struct {
	buffers *sync.Pool // of *[sendSize]byte
	begun   atomic.Uint64

	mu    sync.Mutex
	total int
	by    map[peer.ID]int
}

func newUploads() uploads {
	return uploads{
		buffers: &sync.Pool{New: func() any { return new([sendSize]byte) }},
		by:      make(map[peer.ID]int),
	}
}

// enter reports whether a request of id may be answered; leave follows then.
func (u *uploads) enter(id peer.ID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.total >= maxUploads || u.by[id] >= maxPerMember {
		return false
	}
	u.total++
	u.by[id]++
	return true
}

func (u *uploads) leave(id peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.total--
	if u.by[id]--; u.by[id] == 0 {
		delete(u.by, id)
	}
}

// ServeHTTP answers a member, as package wire says.
func (x *Exchange) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	// The deadline of an answer before on this connection may have passed.
	patience(w)
	id, ok := channel.RemotePeer(req.Context())
	if !ok {
		http.Error(w, "members only", http.StatusForbidden)
		return
	}
	x.met.meet(id)
	if req.URL.Path == wire.FollowPath { // lasts, and takes nobody's slot
		x.serveFollow(w, req, id)
		return
	}
	if !x.uploads.enter(id) {
		x.metrics.refused.WithLabelValues("busy").Inc()
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	defer x.uploads.leave(id)
	r, err := wire.ParseRequest(req.URL.Path)
	if err != nil || req.Method != http.MethodGet {
		x.refuse(w, id, err)
		return
	}
	if x.hidden(r.Digest) { // as if it were not here
		notFound(w)
		return
	}
	// A body is never expected; the deadline of the header covers it.
	switch r.Kind {
	case wire.KindInfo:
		x.serveInfo(w, r)
	case wire.KindChain:
		x.serveChain(w, req, r)
	case wire.KindPieces:
		x.servePieces(w, req, r, id)
	}
}

// hidden reports whether the swarm is to hear nothing of a blob: who has it is
// for its registry to say.
func (x *Exchange) hidden(d digest.Digest) bool { return x.cache.Reach(d) == blobcache.Permitted }

// refuse answers what is no request of the protocol.
func (x *Exchange) refuse(w http.ResponseWriter, id peer.ID, err error) {
	x.metrics.refused.WithLabelValues("malformed").Inc()
	x.log.Debug("request refused", "peer", id, "error", err)
	http.Error(w, "malformed request", http.StatusBadRequest)
}

func notFound(w http.ResponseWriter) { http.Error(w, "not here", http.StatusNotFound) }

func (x *Exchange) serveInfo(w http.ResponseWriter, r wire.Request) {
	var info wire.Info
	if d, ok := x.cache.Stat(r.Digest); ok {
		info = wire.Info{Size: d.Size, Whole: true}
	} else if f, ok := x.cache.Running(r.Digest); ok {
		info = wire.Info{Size: f.Descriptor().Size}
		info.Have, info.Proven, info.Vouched = inventory(f)
	} else {
		notFound(w)
		return
	}
	_, info.Chain = x.cache.Chain(blob.Descriptor{Digest: r.Digest, Size: info.Size})
	x.answer(w, info.Marshal())
}

// answer sends a short body.
func (x *Exchange) answer(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body) //nolint:errcheck // the member has gone; it will ask again
}

// patience gives the next write its time.
func patience(w http.ResponseWriter) {
	// A closed connection fails at the write; tests use writers without.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendTimeout))
}

// send writes length bytes of src, which are of the blob d, as the body of the
// answer, each member's at an equal pace. An answer that cannot be finished is
// broken off.
func (x *Exchange) send(ctx context.Context, w http.ResponseWriter, src io.Reader, length int64, d digest.Digest) {
	to, _ := channel.RemotePeer(ctx) // ServeHTTP lets nobody else in
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	w.Header().Set("Content-Type", "application/octet-stream") // nothing to sniff
	began, sent, order := time.Now(), int64(0), x.uploads.begun.Add(1)
	defer func() { x.met.meet(to).gave(d, sent, began, time.Now()) }()
	for length > sent {
		n, err := x.upload.Take(ctx, pace.Flow{Name: string(to), Order: order}, int(min(sendSize, length-sent)))
		if err == nil {
			n, err = x.sendPart(w, src, n)
			sent += int64(n)
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				x.metrics.refused.WithLabelValues("slow").Inc()
			}
			x.log.Debug("answer broken off", "peer", to, "error", err)
			panic(http.ErrAbortHandler) // the connection is closed: no clean end
		}
	}
}

// sendPart writes n bytes of src, sendSize at most. No buffer is held while a
// member waits for its turn.
func (x *Exchange) sendPart(w http.ResponseWriter, src io.Reader, n int) (int, error) {
	buf := x.uploads.buffers.Get().(*[sendSize]byte)
	defer x.uploads.buffers.Put(buf)
	if _, err := io.ReadFull(src, buf[:n]); err != nil {
		return 0, err
	}
	patience(w)
	n, err := w.Write(buf[:n])
	x.metrics.served.Add(float64(n))
	if err == nil && x.upload.Rate() != pace.Unlimited { // small parts are not to wait for each other
		err = http.NewResponseController(w).Flush()
	}
	return n, err
}

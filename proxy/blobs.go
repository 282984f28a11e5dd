package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/request"
)

// reprovePatience is how long a client waits for the headers of a blob that the
// cache hashes anew. Its size is known, so that the headers can go out before
// the bytes may: containerd leaves after 30 s without headers, and a large blob
// on a slow disk takes longer.
const reprovePatience = 5 * time.Second

// blob answers GET and HEAD of a blob.
func (x *exchange) blob(ctx context.Context) error {
	if until, ok := x.rotten.Get(x.req.Digest); ok && time.Now().Before(until) {
		return fmt.Errorf("%w: %w: wrong bytes of it went out less than %v ago", blob.ErrNotFound, blob.ErrCorrupt, buried)
	}
	lookup, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	if err := x.admit(lookup, x.req.Digest); err != nil {
		return err
	}
	mine, err := x.mine(lookup, x.req.Digest)
	switch {
	case err != nil:
		return err
	case x.r.Method == http.MethodHead:
		return x.headBlob(lookup, mine)
	case !mine || !blob.Shared(x.req.Digest):
		return x.passThrough(ctx)
	}
	whole, err := x.get(ctx)
	if err == nil {
		defer whole.Close()
		if err = x.still(lookup, x.req.Digest); err == nil { // it may have come just now
			return x.sendWhole(whole)
		}
	}
	switch {
	case errors.Is(err, errPast):
		return x.passThrough(ctx)
	case !errors.Is(err, blob.ErrNotFound):
		return err
	case x.status != 0: // the headers went out, but the blob was rotten
		lookup = ctx
	}
	fill, err := x.fetch(lookup, x.known(), x.blobs())
	if err == nil {
		err = x.still(lookup, x.req.Digest)
	}
	if err == nil {
		err = x.sendFill(ctx, fill)
	}
	if x.sent == 0 && (errors.Is(err, blob.ErrNoSpace) || errors.Is(err, errPast)) {
		return x.passThrough(ctx)
	}
	return err
}

// known returns what is known about the blob without asking anybody.
func (x *exchange) known() blob.Descriptor {
	if d, ok := x.cache.Lookup(x.req.Digest); ok {
		return d
	}
	return blob.Descriptor{Digest: x.req.Digest, Size: blob.UnknownSize}
}

// get opens the blob if the cache has it whole. When that takes long, because
// the cache hashes it anew, the headers go out meanwhile.
func (x *exchange) get(ctx context.Context) (*blobcache.Blob, error) {
	soon, cancel := context.WithTimeout(ctx, x.reprovePatience)
	defer cancel()
	whole, err := x.cache.Get(soon, x.req.Digest)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return whole, err
	}
	d, ok := x.cache.Stat(x.req.Digest)
	if !ok {
		return nil, err
	}
	if err := x.begin(d.Size); err != nil {
		return nil, err
	}
	return x.cache.Get(ctx, x.req.Digest)
}

// headBlob answers from what is known, else by a HEAD of the upstream. It moves
// no bytes: what a manifest of this repository names, or a fill is bringing, is
// there for a GET. What is not mine is not known here.
func (x *exchange) headBlob(ctx context.Context, mine bool) error {
	d := blob.Descriptor{Digest: x.req.Digest, Size: blob.UnknownSize}
	if mine {
		d = x.known()
	}
	if mine && d.Size < 0 {
		if fill, ok := x.cache.Running(x.req.Digest); ok {
			d = fill.Descriptor()
		}
	}
	if d.Size < 0 {
		var err error
		if d, err = x.repo.Stat(ctx, d); err != nil {
			return err
		}
	}
	if d.Size < 0 {
		return fmt.Errorf("%w: the upstream tells no size of %s", blob.ErrUnavailable, d.Digest)
	}
	return x.begin(d.Size)
}

// begin sends the headers of the blob, once, and notes in x.want which bytes
// the client wants.
func (x *exchange) begin(size int64) error {
	if x.status != 0 {
		if size != x.size {
			return fmt.Errorf("%w: a size of %d was told, it is %d", blob.ErrCorrupt, x.size, size)
		}
		return nil
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", x.req.Digest.String())
	h.Set("Etag", request.ETag(x.req.Digest))
	h.Set("Accept-Ranges", "bytes")
	x.size = size
	if request.Unchanged(x.r.Header, x.req.Digest) {
		x.header(http.StatusNotModified)
		return nil
	}
	partial := false
	x.want = blob.Range{Length: size}
	if x.r.Method == http.MethodGet { // RFC 9110 defines Range for GET alone
		var err error
		if x.want, partial, err = request.Bytes(x.r.Header, x.req.Digest, size); err != nil {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
			return err
		}
	}
	h.Set("Content-Length", strconv.FormatInt(x.want.Length, 10))
	if !partial {
		x.header(http.StatusOK)
		return nil
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", x.want.Offset, x.want.Offset+x.want.Length-1, size))
	x.header(http.StatusPartialContent)
	return nil
}

// flush sends the headers on their way without waiting for the body.
func (x *exchange) flush() {
	// A writer that cannot flush has sent them already, or will fail later.
	_ = http.NewResponseController(x.w).Flush()
}

// sink returns the body of the answer, whose bytes are counted as from source.
func (x *exchange) sink(source string) *sink {
	counter := x.metrics.served.WithLabelValues(source)
	x.seenFrom(origins[source])
	return &sink{w: x.w, onWrite: func(n int64, since, until time.Time) {
		if x.sent == 0 && n > 0 {
			x.metrics.firstByte.Observe(until.Sub(x.start).Seconds())
		}
		x.sent += n
		counter.Add(float64(n))
		x.seenWrite(n, since, until)
	}}
}

// sendWhole sends from the cache.
func (x *exchange) sendWhole(whole *blobcache.Blob) error {
	if err := x.begin(whole.Descriptor().Size); err != nil || x.want.Length == 0 {
		return err
	}
	file := whole.File()
	if _, err := file.Seek(x.want.Offset, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(x.sink(fromCache), file, x.want.Length)
	return err
}

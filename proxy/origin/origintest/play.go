package origintest

import (
	"context"
	"maps"
	"net/http"
	"strconv"
)

// play sends p over the link.
func (r *Registry) play(w *logged, req *http.Request, p *reply) {
	ctx := req.Context()
	if err := sleep(ctx, r.o.Latency+p.delay); err != nil {
		panic(http.ErrAbortHandler)
	}
	if p.mute {
		if p.closeAt < 0 {
			<-ctx.Done()
		}
		panic(http.ErrAbortHandler)
	}
	if _, lied := p.header["Content-Length"]; !lied && !p.chunked {
		p.header.Set("Content-Length", strconv.FormatInt(p.n, 10))
	}
	maps.Copy(w.Header(), p.header)
	w.content = p.of
	w.WriteHeader(p.status)
	if p.chunked {
		// Without this net/http would count a short body itself.
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if req.Method == http.MethodHead {
		return
	}
	if err := r.send(ctx, w, p); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// send writes the body of p in slices. An error means that the connection
// must not be used again.
func (r *Registry) send(ctx context.Context, w http.ResponseWriter, p *reply) error {
	r.link.begin()
	defer r.link.end()
	buf := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	size := r.link.slice
	if p.trickle.n > 0 {
		size = min(size, p.trickle.n)
	}
	for sent := int64(0); sent < p.n; {
		n := min(int64(size), p.n-sent)
		for _, stop := range []int64{p.silentAt, p.closeAt} {
			if stop >= 0 {
				n = min(n, stop-sent)
			}
		}
		if n <= 0 {
			return stop(ctx, w, sent == p.silentAt)
		}
		if err := r.slice(ctx, w, p, (*buf)[:n], sent); err != nil {
			return err
		}
		sent += n
	}
	return nil
}

// slice writes len(buf) bytes of p's body from sent on.
func (r *Registry) slice(ctx context.Context, w http.ResponseWriter, p *reply, buf []byte, sent int64) error {
	if _, err := p.body.ReadAt(buf, p.off+sent); err != nil && sent+int64(len(buf)) < p.n {
		return err
	}
	if at := p.corruptAt - p.off - sent; p.corruptAt >= 0 && at >= 0 && at < int64(len(buf)) {
		buf[at] ^= 0x10
	}
	if err := r.link.wait(ctx, len(buf)); err != nil {
		return err
	}
	if _, err := w.Write(buf); err != nil {
		return err
	}
	if p.trickle.n == 0 {
		return nil
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	return sleep(ctx, p.trickle.every)
}

// stop flushes what was sent and ends the answer before its time.
func stop(ctx context.Context, w http.ResponseWriter, silent bool) error {
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	if silent {
		<-ctx.Done()
	}
	return http.ErrAbortHandler
}

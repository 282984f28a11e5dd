package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/trace"
	"shoal/proxy/manifest"
	"shoal/proxy/pull"
	"shoal/proxy/request"
)

// origins says what a source of bytes is to a report. A head start is a part of
// what comes by a fill.
var origins = map[string]pull.Origin{ //nolint:gochecknoglobals // a table; nobody writes it
	fromCache: pull.FromCache, fromFill: pull.FromFill, fromHeadStart: pull.FromFill, fromPassthrough: pull.Past,
}

// maxAgent bounds the name that a client gives itself, in bytes.
const maxAgent = 64

// see tells the recorder of pulls that a request for a manifest or a blob has come.
func (x *exchange) see() {
	if x.pulls == nil || x.req.Kind != request.Manifest && x.req.Kind != request.Blob {
		return
	}
	q := x.pulls.Request()
	q.Client, q.Repository, q.Tag, q.Digest = asker(x.r), x.named, x.req.Tag, x.req.Digest
	q.Manifest, q.Head = x.req.Kind == request.Manifest, x.r.Method == http.MethodHead
	q.Begun, q.Source = x.start, pull.FromFill
	x.seen = q
	x.pulls.Begin(q)
}

// asker is who has sent r.
func asker(r *http.Request) pull.Asker {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	all := r.UserAgent()
	agent, _, _ := strings.Cut(all, " ")
	agent = strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' {
			return -1
		}
		return c
	}, agent[:min(len(agent), maxAgent)])
	if len(all) > 4*maxAgent {
		agent = strings.Clone(agent) // what is kept of it does not keep all
	}
	return pull.Asker{Address: host, Agent: agent}
}

// seenFrom notes where the bytes of the answer come from.
func (x *exchange) seenFrom(o pull.Origin) {
	if x.seen != nil {
		x.seen.Source = o
	}
}

// seenManifest notes which manifest is told of.
func (x *exchange) seenManifest(d blob.Descriptor) {
	if x.seen != nil {
		x.seen.Digest, x.seen.Size = d.Digest, d.Size
	}
}

// seenNames notes what a manifest that is sent names.
func (x *exchange) seenNames(m *manifest.Manifest) {
	if x.seen == nil {
		return
	}
	x.seen.First, x.seen.Sent = time.Now(), x.seen.Size
	x.seen.Blobs = make([]digest.Digest, 0, len(m.Blobs))
	for _, b := range m.Blobs {
		x.seen.Blobs = append(x.seen.Blobs, b.Digest)
	}
	for _, c := range m.Children {
		child := pull.Child{Digest: c.Digest}
		if p := c.Platform; p != nil {
			child.Platform = strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
		}
		x.seen.Children = append(x.seen.Children, child)
	}
}

// seenWrite notes that n bytes went out that were on their way between two times.
func (x *exchange) seenWrite(n int64, since, until time.Time) {
	if x.seen == nil {
		return
	}
	if x.seen.Writing == nil {
		x.seen.Writing = new(trace.Series)
	}
	if n > 0 && x.seen.First.IsZero() {
		x.seen.First = until
	}
	x.seen.Writing.AddSpan(since.Sub(x.start), until.Sub(x.start))
}

// seenOff tells the recorder that the request was answered, or of what that failed.
func (x *exchange) seenOff(ctx context.Context, err error) {
	q := x.seen
	if q == nil {
		return
	}
	q.Ended, q.Status = time.Now(), x.status
	q.Left = err != nil && (ctx.Err() != nil || errors.Is(err, errClient))
	if !q.Manifest && !q.Head {
		q.Size, q.From, q.Sent = x.size, x.want.Offset, x.sent
	}
	if err != nil && !q.Left {
		f, told := x.refuse(err)
		if !told {
			f = explain(err, x.req)
		}
		if q.Err = f.message; q.Status == 0 {
			q.Status = f.status
		}
	}
	x.seen = nil // it is the recorder's now
	x.pulls.End(q)
}

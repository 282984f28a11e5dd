package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/manifest"
	"shoal/proxy/request"
)

// HEADs of manifests are the most frequent requests of a node: of a tag one for
// each pull and each look for changes. What their answers need is kept as it is
// sent.

// maxHeads bounds the manifests whose headers are kept: some 500 bytes each,
// and a HEAD of any other costs a file that is read.
const maxHeads = 4096

// head is what a HEAD tells of a manifest. All answers share its headers: net/http
// copies them, and nobody writes to them.
type head struct {
	blob.Descriptor
	mediaType, size, digest, etag []string
}

func newHead(d blob.Descriptor) head {
	return head{
		Descriptor: d, mediaType: []string{d.MediaType}, size: []string{strconv.FormatInt(d.Size, 10)},
		digest: []string{d.Digest.String()}, etag: []string{request.ETag(d.Digest)},
	}
}

// manifestHeader sends the headers of a manifest, or that the client has it.
func (x *exchange) manifestHeader(m head) {
	h := x.w.Header()
	x.seenManifest(m.Descriptor)
	h["Date"] = x.date.header(x.start)
	h["Etag"] = m.etag
	if request.Unchanged(x.r.Header, m.Digest) {
		x.header(http.StatusNotModified)
		return
	}
	h["Content-Type"] = m.mediaType
	h["Content-Length"] = m.size
	h["Docker-Content-Digest"] = m.digest
	x.header(http.StatusOK)
}

// date is the Date header of the last second in which one was sent. net/http
// would format one for each answer.
type date struct{ last atomic.Pointer[dateHeader] }

type dateHeader struct {
	second int64
	header []string
}

func (d *date) header(now time.Time) []string {
	last := d.last.Load()
	if last == nil || last.second != now.Unix() {
		last = &dateHeader{now.Unix(), []string{now.UTC().Format(http.TimeFormat)}}
		d.last.Store(last)
	}
	return last.header
}

// Bounds on the Accept headers that are remembered: runtimes have a handful.
const (
	maxAccepts      = 64
	maxAcceptLength = 1 << 10 // bytes; that of dockerd has 400
)

// accepts is what a client accepts.
type accepts struct {
	types []string // in canonical order, or all that are known if it takes anything; not to be written to
	key   string   // of fixed length, for the names of questions
}

// accepted returns the media types that a client asks for.
func (x *exchange) accepted() accepts {
	header := strings.Join(x.r.Header["Accept"], ",") // fields are a list as well
	a, ok := x.accepts.Get(header)
	if !ok {
		a = newAccepts(acceptedTypes(header))
		if len(header) <= maxAcceptLength {
			x.accepts.Add(header, a)
		}
	}
	return a
}

func acceptedTypes(header string) []string {
	var types []string
	for t := range strings.SplitSeq(header, ",") {
		t, _, _ = strings.Cut(t, ";")
		t = strings.TrimSpace(t)
		if t == "*/*" || t == "" {
			continue
		}
		types = append(types, t)
	}
	if len(types) == 0 {
		return manifest.Accept()
	}
	slices.Sort(types)
	return slices.Compact(types)
}

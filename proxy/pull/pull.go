// Package pull tells from the requests of runtimes which of them belong to the
// pull of one image, and where the time of a pull went: out of requests and of
// the traces of fills it makes a Report. To recognise (Recogniser) and to analyse
// (Analyse) are pure: times come with the events. Recorder puts a lock and a clock
// around them, and is what the proxy tells of its requests.
//
// # What belongs to a pull
//
// No runtime says so; it follows from the order in which they all ask: a tag or a
// digest, an index, the manifest of a platform, config and layers.
//
//   - A client is an address and the first word of its User-Agent.
//   - A GET of a manifest begins a pull, unless a pull of this client waits for that
//     digest: because a HEAD of a tag was answered with it, or an index names it.
//     That HEAD is where the pull began. A HEAD alone is no pull: nothing is
//     pulled, somebody looks for changes. One that fails is.
//   - A blob belongs to every open pull of this client of which a manifest names
//     it: runtimes fetch a layer that two images share only once. A blob that no
//     manifest named begins a pull of its own, to which others of the same
//     repository belong.
//   - A pull has ended when no request of it is open, all that was asked for went
//     out whole, and nothing came for Quiet; or, if something failed or was cut,
//     for QuietAfterFailure, because runtimes try again. The client's next request
//     of the same tag ends a pull that is whole at once. After Longest it ends in
//     any case.
//   - A request for a token is no failure: an answer of 401 is left out.
//
// # Limits
//
// So many pulls are open (MaxOpen), have so many rows (MaxRows; what is more is
// counted in the last one), and of a row so many requests are told apart.
package pull

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/trace"
)

// Limits, see the package's documentation.
const (
	Quiet             = 5 * time.Second
	QuietAfterFailure = 30 * time.Second
	Longest           = 6 * time.Hour
	MaxOpen           = 32
	MaxRows           = 200
	maxRequests       = 12 // that a row tells apart
	maxNamed          = 4096
	maxWaiting        = 512 // HEADs that were answered, and traces
	headCounts        = time.Minute
)

// Origin is where the bytes of an answer came from, as the proxy knows.
type Origin string

// The values of Origin.
const (
	FromCache Origin = "cache"
	FromFill  Origin = "fill"
	Past      Origin = "past" // from the registry, past the cache
)

// Asker is a client: an address and the first word of what it calls itself.
type Asker struct{ Address, Agent string }

// String is both, as reports have it.
func (a Asker) String() string { return strings.TrimSpace(a.Address + " " + a.Agent) }

// Request is a request for a manifest or a blob, and its answer. It belongs to the
// goroutine that answers it, from Recorder.Begin to Recorder.End.
type Request struct {
	Client     Asker
	Repository string // registry and name
	Tag        string // empty if it was asked for by digest
	// Digest is what was asked for, or what the tag is.
	Digest   digest.Digest
	Manifest bool // or else a blob
	Head     bool

	Begun, First, Ended time.Time // First is of the body; zero if there was none
	Size                int64     // of the whole content, in bytes
	From, Sent          int64     // of it went out: the offset, and how much
	Source              Origin
	// Writing is the time, in nanoseconds since Begun, in which bytes were on their
	// way to the client, and it did not take more of them; empty, or nil, if none went out.
	Writing *trace.Series
	Status  int
	Err     string // why it failed; empty if it did not
	Left    bool   // because the client has left

	// What a manifest names: Blobs begin with the config, Children are those of an
	// index.
	Blobs    []digest.Digest
	Children []Child

	pulls []*Pull // that it belongs to
}

// Child is a manifest that an index names.
type Child struct {
	Digest   digest.Digest
	Platform string // as linux/arm64/v8; may be empty
}

// failed tells whether the client did not get what it asked for, not counting
// that it was asked for a token.
func (r *Request) failed() bool { return r.Err != "" || r.Left || r.Status >= http.StatusBadRequest }

// Kinds of rows.
const (
	KindTag      = "tag"
	KindIndex    = "index"
	KindManifest = "manifest"
	KindConfig   = "config"
	KindLayer    = "layer"
	KindBlob     = "blob"   // that no manifest named
	KindOthers   = "others" // what found no row of its own
)

// Pull is a pull that is open, or has ended. It belongs to its Recogniser until
// then.
type Pull struct {
	Client     Asker
	Repository string
	Tag        string
	Digest     digest.Digest // that it began with
	Begun      time.Time

	rows    []*row
	named   map[digest.Digest]string        // kind of what manifests named
	parents map[digest.Digest]digest.Digest // of blobs and manifests
	system  map[digest.Digest]string        // platform of manifests
	active  int                             // requests
	last    time.Time                       // of an event
	ended   bool                            // nothing is added any more
}

// row is a manifest or blob of a pull.
type row struct {
	kind     string
	digest   digest.Digest
	size     int64
	requests []*Request
	count    int // of requests, also of those that are not told apart
}

// manifest tells whether the row is no blob.
func (w *row) manifest() bool {
	return w.kind == KindTag || w.kind == KindIndex || w.kind == KindManifest
}

// whole tells whether the client got all that it asked for of the row: by each of
// its requests, or by those of a blob together. Runtimes go on behind what was cut,
// and some break off what they have enough of.
func (w *row) whole() bool {
	if !slices.ContainsFunc(w.requests, (*Request).failed) {
		return true
	}
	if w.manifest() || w.kind == KindOthers {
		return !w.requests[len(w.requests)-1].failed()
	}
	parts := slices.SortedFunc(slices.Values(w.requests), func(a, b *Request) int { return int(min(1, max(-1, a.From-b.From))) })
	end := int64(0)
	for _, p := range parts {
		if p.From <= end {
			end = max(end, p.From+p.Sent)
		}
	}
	return w.size > 0 && end >= w.size
}

func newPull(q *Request) *Pull {
	return &Pull{
		Client: q.Client, Repository: q.Repository, Tag: q.Tag, Digest: q.Digest, Begun: q.Begun, last: q.Begun,
		named: map[digest.Digest]string{}, parents: map[digest.Digest]digest.Digest{}, system: map[digest.Digest]string{},
	}
}

// name notes what a manifest names.
func (p *Pull) name(q *Request) {
	add := func(d digest.Digest, kind string) {
		if _, known := p.named[d]; !known && len(p.named) < maxNamed {
			p.named[d], p.parents[d] = kind, q.Digest
		}
	}
	for i, d := range q.Blobs {
		if i == 0 {
			add(d, KindConfig)
		} else {
			add(d, KindLayer)
		}
	}
	for _, c := range q.Children {
		if add(c.Digest, KindManifest); c.Platform != "" && len(p.system) < maxNamed {
			p.system[c.Digest] = c.Platform
		}
	}
}

// add puts an answered request into its row, and tells whether that keeps it.
func (p *Pull) add(q *Request) (kept bool) {
	kind := p.named[q.Digest]
	switch {
	case q.Manifest && q.Head:
		kind = KindTag
	case q.Manifest && len(q.Children) > 0:
		kind = KindIndex
	case q.Manifest:
		kind = KindManifest
	case kind == "":
		kind = KindBlob
	}
	i := slices.IndexFunc(p.rows, func(w *row) bool { return w.digest == q.Digest && w.kind == kind })
	switch {
	case i >= 0:
	case len(p.rows) < MaxRows:
		p.rows = append(p.rows, &row{kind: kind, digest: q.Digest})
		i = len(p.rows) - 1
	case len(p.rows) == MaxRows:
		p.rows = append(p.rows, &row{kind: KindOthers})
		fallthrough
	default:
		i = MaxRows
	}
	w := p.rows[i]
	w.size = max(w.size, q.Size)
	if q.Ended.After(p.last) {
		p.last = q.Ended
	}
	return w.add(q)
}

// add takes an answered request in, and tells whether it keeps it.
func (w *row) add(q *Request) (kept bool) {
	if w.count++; w.count <= maxRequests {
		w.requests = append(w.requests, q)
		return true
	}
	last := w.requests[maxRequests-1]
	if w.count == maxRequests+1 { // from now on it stands for all that follow, in this pull alone
		own := *last
		last, w.requests[maxRequests-1] = &own, &own
	}
	last.Ended, last.Sent, last.Status, last.Err, last.Left = q.Ended, last.Sent+q.Sent, q.Status, q.Err, q.Left
	return false
}

// whole tells whether all that was asked for went out.
func (p *Pull) whole() bool {
	return !slices.ContainsFunc(p.rows, func(w *row) bool { return !w.whole() })
}

// over tells whether the pull has ended. What failed for want of a manifest has:
// the runtime asks elsewhere.
func (p *Pull) over(now time.Time) bool {
	quiet := Quiet
	if slices.ContainsFunc(p.rows, func(w *row) bool { return !w.manifest() && !w.whole() }) {
		quiet = QuietAfterFailure
	}
	return p.active == 0 && now.Sub(p.last) >= quiet || now.Sub(p.Begun) >= Longest
}

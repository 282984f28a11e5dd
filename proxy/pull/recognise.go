package pull

import (
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/lru"
)

// Recogniser sorts requests into pulls. It is told of each when it begins and when
// it has been answered, in any order of different ones. It is no more than that:
// pure, for one goroutine at a time.
type Recogniser struct {
	open  []*Pull // the one that began first first
	over  []*Pull // that Ended has not told yet
	heads *lru.Cache[head, *look]
}

// head is by what the GET is known that follows the HEAD of a tag.
type head struct {
	client     Asker
	repository string
	digest     digest.Digest
}

// look is the last HEAD of its kind.
type look struct{ last *Request }

// NewRecogniser returns one that knows of nothing.
func NewRecogniser() *Recogniser { return &Recogniser{heads: lru.New[head, *look](maxWaiting)} }

// Begin is called when q has come.
func (r *Recogniser) Begin(q *Request) {
	if q.Head {
		return // what is moved by it is nothing
	}
	if q.Digest != "" {
		for _, p := range r.open {
			if p.Client == q.Client && p.named[q.Digest] != "" && (!q.Manifest || p.Repository == q.Repository) {
				q.pulls = append(q.pulls, p)
			}
		}
	}
	if len(q.pulls) == 0 && !q.Manifest {
		q.pulls = append(q.pulls, r.stray(q))
	}
	for _, p := range q.pulls {
		p.active++
	}
}

// stray returns the pull of a blob that no manifest named.
func (r *Recogniser) stray(q *Request) *Pull {
	for _, p := range r.open {
		if p.Client == q.Client && p.Repository == q.Repository && p.onlyBlobs() {
			return p
		}
	}
	p := newPull(q)
	r.start(p)
	return p
}

// start opens a pull. When there are too many, the one ends of which nothing was
// heard for longest.
func (r *Recogniser) start(p *Pull) {
	if len(r.open) >= MaxOpen {
		r.end(slices.MinFunc(r.open, func(a, b *Pull) int { return a.last.Compare(b.last) }))
	}
	r.open = append(r.open, p)
}

func (r *Recogniser) end(p *Pull) {
	p.ended = true
	r.open = slices.DeleteFunc(r.open, func(o *Pull) bool { return o == p })
	r.over = append(r.over, p)
}

// End is called when q has been answered, as it says now. It returns a request that
// is not needed any more: q, or one that q has taken the place of, or nil.
func (r *Recogniser) End(q *Request) (spare *Request) {
	begun := len(q.pulls) > 0
	q.pulls = slices.DeleteFunc(q.pulls, func(p *Pull) bool { return p.ended }) // too late for their reports
	for _, p := range q.pulls {
		p.active--
		p.last = q.Ended
	}
	switch {
	case q.Status == http.StatusUnauthorized:
		q.pulls = nil
	case !q.Manifest && q.Head: // who looks whether a blob is there pulls nothing
	case q.Manifest && q.Head && !q.failed():
		return r.looked(q)
	case q.Manifest && !begun:
		q.pulls = append(q.pulls, r.begun(q))
	}
	spare = q
	for _, p := range q.pulls {
		if p.add(q) {
			spare = nil
		}
		if q.Manifest && !q.failed() {
			p.name(q)
		}
	}
	clear(q.pulls) // what is kept of it may be for long
	q.pulls = q.pulls[:0]
	return spare
}

// looked remembers a HEAD, and ends the pull of what it asked for if that is over. It
// returns the one before, which nothing else refers to.
func (r *Recogniser) looked(q *Request) (before *Request) {
	key := head{q.Client, q.Repository, q.Digest}
	if l, ok := r.heads.Get(key); ok {
		before, l.last = l.last, q
	} else {
		r.heads.Add(key, &look{q})
	}
	r.again(q)
	return before
}

// again ends a pull that is whole when its client asks for the same again.
func (r *Recogniser) again(q *Request) {
	for _, p := range r.open {
		if p.is(q) && p.active == 0 && p.hasBlobs() && p.whole() {
			r.end(p)
			return
		}
	}
}

// is tells whether q asks for what p began with.
func (p *Pull) is(q *Request) bool {
	return p.Client == q.Client && p.Repository == q.Repository && p.Tag == q.Tag && (q.Tag != "" || p.Digest == q.Digest)
}

// onlyBlobs tells whether no manifest was asked for.
func (p *Pull) onlyBlobs() bool {
	return !slices.ContainsFunc(p.rows, func(w *row) bool { return w.kind != KindBlob })
}

func (p *Pull) hasBlobs() bool {
	return slices.ContainsFunc(p.rows, func(w *row) bool { return w.kind == KindLayer || w.kind == KindConfig })
}

// begun returns the pull that a manifest begins: one that is open already if it is
// asked for the same.
func (r *Recogniser) begun(q *Request) *Pull {
	first := q
	if l, ok := r.heads.Get(head{q.Client, q.Repository, q.Digest}); ok && q.Begun.Sub(l.last.Ended) < headCounts && (q.Tag == "" || q.Tag == l.last.Tag) {
		r.heads.Remove(head{q.Client, q.Repository, q.Digest})
		first = l.last
	}
	r.again(first)
	for _, p := range r.open {
		if p.is(first) {
			return p
		}
	}
	p := newPull(first)
	if first != q {
		p.add(first)
		p.named[q.Digest] = KindManifest
	}
	r.start(p)
	return p
}

// Ended returns the pulls that have ended by now, each once. What they were is
// for Analyse.
func (r *Recogniser) Ended(now time.Time) []*Pull {
	for _, p := range slices.Clone(r.open) {
		if p.over(now) {
			r.end(p)
		}
	}
	over := r.over
	r.over = nil
	return over
}

// Close returns all pulls, ended or not.
func (r *Recogniser) Close() []*Pull {
	all := append(r.over, r.open...)
	r.over, r.open = nil, nil
	for _, p := range all {
		p.ended = true
	}
	return slices.DeleteFunc(all, func(p *Pull) bool { return len(p.rows) == 0 })
}

package pull

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/lru"
	"shoal/blobcache/trace"
)

// Recorder recognises pulls as they go on, and hands their reports over. A request
// costs it a short lock twice, whatever its size, and no memory but for the few that
// pulls keep. Its methods may be called from any goroutine; a nil one records nothing.
type Recorder struct {
	report func(Report)
	fills  *lru.Cache[digest.Digest, *trace.Live] // the last one of each blob
	spare  sync.Pool                              // of *Request

	mu   sync.Mutex
	seen *Recogniser
}

// NewRecorder returns a Recorder that calls report, in Run's goroutine, for every
// pull that has ended.
func NewRecorder(report func(Report)) *Recorder {
	return &Recorder{report: report, fills: lru.New[digest.Digest, *trace.Live](maxWaiting), seen: NewRecogniser()}
}

// Fill is told of each fill when it begins.
func (r *Recorder) Fill(l *trace.Live) { r.fills.Add(l.Fill().Digest, l) }

// Request returns an empty one, for the goroutine that answers it until End.
func (r *Recorder) Request() *Request {
	q, ok := r.spare.Get().(*Request)
	if !ok {
		return &Request{}
	}
	*q = Request{pulls: q.pulls, Writing: q.Writing}
	if q.Writing != nil {
		q.Writing.Reset()
	}
	return q
}

// Begin is called when a request has come.
func (r *Recorder) Begin(q *Request) {
	if r == nil || q.Head { // which Begin does nothing with
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen.Begin(q)
}

// End is called when it has been answered; q is the Recorder's from then on.
func (r *Recorder) End(q *Request) {
	if r == nil {
		return
	}
	r.mu.Lock()
	spare := r.seen.End(q)
	r.mu.Unlock()
	if spare != nil {
		r.spare.Put(spare)
	}
}

// Run looks for pulls that have ended until ctx is done, and takes those that are
// open for ended then.
func (r *Recorder) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.mu.Lock()
			left := r.seen.Close()
			r.mu.Unlock()
			r.tell(left)
			return context.Cause(ctx)
		case now := <-tick.C:
			r.mu.Lock()
			ended := r.seen.Ended(now)
			r.mu.Unlock()
			r.tell(ended)
		}
	}
}

func (r *Recorder) tell(ended []*Pull) {
	for _, p := range ended {
		r.report(Analyse(p, r.fill))
	}
}

// fill returns what is known of the last fill of a blob.
func (r *Recorder) fill(d digest.Digest) *trace.Fill {
	if l, ok := r.fills.Get(d); ok {
		return l.Fill()
	}
	return nil
}

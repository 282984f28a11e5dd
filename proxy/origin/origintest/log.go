package origintest

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// logMax is how many requests the log keeps; the counters go on.
const logMax = 1 << 17

// Request is one request as the registry saw it, in order of arrival.
type Request struct {
	Kind   Kind
	Method string
	Host   string // of the Host header
	Path   string
	Query  string
	Ref    string // tag or digest, if any
	Range  string // Range header
	Accept string // Accept headers, joined
	Auth   string // Authorization header
	Agent  string // User-Agent header
	Remote string // address of the client's end of the connection

	Status int   // 0 until the headers left
	Body   int64 // body bytes that left so far
}

// String is the request in one line, such as
// "GET blob sha256:1f... bytes=0-99 -> 206".
func (q Request) String() string {
	parts := []string{q.Method, string(q.Kind)}
	for _, s := range []string{q.Ref, q.Range} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return fmt.Sprintf("%s -> %d", strings.Join(parts, " "), q.Status)
}

// Stats are counters since New or ResetStats.
type Stats struct {
	// Requests by method and kind, such as "GET blob".
	Requests map[string]int
	// BodyBytes is all body bytes that left, of errors and tokens too.
	BodyBytes int64
	// Content is the body bytes of blobs and manifests that left, by digest;
	// tags are counted as what they point to.
	Content map[digest.Digest]int64
}

func newStats() Stats {
	return Stats{Requests: map[string]int{}, Content: map[digest.Digest]int64{}}
}

// ContentBytes returns the body bytes of all blobs and manifests that left.
func (s Stats) ContentBytes() int64 {
	var n int64
	for _, b := range s.Content {
		n += b
	}
	return n
}

// record is the log and the counters.
type record struct {
	mu       sync.Mutex
	requests []*Request
	stats    Stats
}

// Requests returns the log in order of arrival: the first requests since New
// or ResetStats, at most 131,072.
func (r *Registry) Requests() []Request {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	out := make([]Request, len(r.log.requests))
	for i, q := range r.log.requests {
		out[i] = *q
	}
	return out
}

// Lines returns the log as Request.String gives it, for tables of exact round
// trips.
func (r *Registry) Lines() []string {
	var out []string
	for _, q := range r.Requests() {
		out = append(out, q.String())
	}
	return out
}

// Stats returns the counters.
func (r *Registry) Stats() Stats {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	s := r.log.stats
	s.Requests, s.Content = maps.Clone(s.Requests), maps.Clone(s.Content)
	return s
}

// ResetStats empties log and counters.
func (r *Registry) ResetStats() {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.requests, r.log.stats = nil, newStats()
}

// arrive logs a request before it is answered.
func (l *record) arrive(q question, req *http.Request) *Request {
	entry := &Request{
		Kind:   q.kind,
		Method: q.method,
		Host:   req.Host,
		Path:   req.URL.Path,
		Query:  req.URL.RawQuery,
		Ref:    q.ref,
		Range:  req.Header.Get("Range"),
		Accept: strings.Join(req.Header.Values("Accept"), ","),
		Auth:   req.Header.Get("Authorization"),
		Agent:  req.Header.Get("User-Agent"),
		Remote: req.RemoteAddr,
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Requests[q.method+" "+string(q.kind)]++
	if len(l.requests) < logMax {
		l.requests = append(l.requests, entry)
	}
	return entry
}

// logged is a ResponseWriter that keeps the log up to date.
type logged struct {
	http.ResponseWriter
	log     *record
	entry   *Request
	content digest.Digest // what the body is of, if anything
}

// Unwrap is for http.ResponseController.
func (w *logged) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *logged) WriteHeader(status int) {
	w.log.mu.Lock()
	w.entry.Status = status
	w.log.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

// Write counts before it writes: a client that has the last byte finds it counted.
func (w *logged) Write(p []byte) (int, error) {
	w.count(len(p))
	n, err := w.ResponseWriter.Write(p)
	w.count(n - len(p))
	return n, err
}

func (w *logged) count(n int) {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.entry.Body += int64(n)
	w.log.stats.BodyBytes += int64(n)
	if w.content != "" {
		w.log.stats.Content[w.content] += int64(n)
	}
}

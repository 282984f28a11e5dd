package origintest

import (
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

// never is the offset of a fault that does not happen.
const never = -1

// Fault declares that matching requests are answered wrongly. Several faults
// may match one request; their effects apply in the order of declaration.
type Fault struct {
	// Kind and Method narrow the requests; empty matches all.
	Kind   Kind
	Method string
	// Ref is the tag or digest that is asked for; empty matches all.
	Ref string
	// Skip requests that match are served well before the first that is not.
	Skip int
	// Times is how many requests are harmed; 0 is all that follow.
	Times int
	// Effect is what happens.
	Effect Effect
}

// Effect changes an answer.
type Effect func(*reply)

// injected is a Fault with its count, guarded by Registry.mu.
type injected struct {
	Fault
	seen int
}

// Fault injects f until ClearFaults.
func (r *Registry) Fault(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, &injected{Fault: f})
}

// ClearFaults ends all faults for the requests that follow.
func (r *Registry) ClearFaults() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = nil
}

// effects counts q and returns what befalls it.
func (r *Registry) effects(q question) []Effect {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Effect
	for _, f := range r.faults {
		if f.Kind != "" && f.Kind != q.kind || f.Method != "" && f.Method != q.method || f.Ref != "" && f.Ref != q.ref {
			continue
		}
		f.seen++
		if f.seen > f.Skip && (f.Times == 0 || f.seen <= f.Skip+f.Times) {
			out = append(out, f.Effect)
		}
	}
	return out
}

// Status answers with an error of that status.
func Status(status int) Effect {
	return func(p *reply) { *p = *problem(status, "DECLARED") }
}

// TooMany answers 429 with Retry-After in seconds.
func TooMany(retryAfter time.Duration) Effect {
	return func(p *reply) {
		*p = *problem(http.StatusTooManyRequests, "TOOMANYREQUESTS")
		p.header.Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	}
}

// Challenge answers 401 with that WWW-Authenticate.
func Challenge(header string) Effect {
	return func(p *reply) {
		*p = *problem(http.StatusUnauthorized, "UNAUTHORIZED")
		p.header.Set("Www-Authenticate", header)
	}
}

// Redirect answers 307 with that Location.
func Redirect(location string) Effect {
	return func(p *reply) {
		*p = *document(http.StatusTemporaryRedirect, "text/plain", nil)
		p.header.Set("Location", location)
	}
}

// HTML answers 200 with a page, as captive portals and login pages do.
func HTML() Effect {
	return func(p *reply) {
		*p = *document(http.StatusOK, "text/html; charset=utf-8", []byte("<html><body>please sign in</body></html>"))
	}
}

// Body answers with other bytes under the same headers, Content-Length
// excepted.
func Body(data []byte) Effect {
	return func(p *reply) { p.body, p.off, p.n, p.of = bytesContent(data), 0, int64(len(data)), "" }
}

// LieType states another Content-Type.
func LieType(mediaType string) Effect { return Header("Content-Type", mediaType) }

// LieDigest states another Docker-Content-Digest.
func LieDigest(d digest.Digest) Effect { return Header("Docker-Content-Digest", d.String()) }

// LieRange answers 206 with that Content-Range, whatever is sent.
func LieRange(contentRange string) Effect {
	return func(p *reply) {
		p.status = http.StatusPartialContent
		p.header.Set("Content-Range", contentRange)
	}
}

// LieLength states a Content-Length that is wrong by delta bytes. With a
// longer one the body ends early and the connection is closed; with a shorter
// one the body is cut, and the answer looks well formed.
func LieLength(delta int64) Effect {
	return func(p *reply) {
		p.header.Set("Content-Length", strconv.FormatInt(p.n+delta, 10))
		p.n = min(p.n, p.n+delta)
	}
}

// Chunked leaves Content-Length away.
func Chunked() Effect {
	return func(p *reply) { p.chunked = true }
}

// Header sets a header of the answer; an empty value leaves it away.
func Header(key, value string) Effect {
	return func(p *reply) {
		p.header.Del(key)
		if value != "" {
			p.header.Set(key, value)
		}
	}
}

// CloseEarly closes the connection after n bytes of the body; with 0 no body
// byte follows the headers.
func CloseEarly(n int64) Effect {
	return func(p *reply) { p.closeAt = n }
}

// Drop closes the connection without an answer.
func Drop() Effect {
	return func(p *reply) { p.mute, p.closeAt = true, 0 }
}

// Silence never answers, and keeps the connection open until the client or
// the server leaves.
func Silence() Effect {
	return func(p *reply) { p.mute = true }
}

// SilenceAfter stops sending after n bytes of the body, like Silence.
func SilenceAfter(n int64) Effect {
	return func(p *reply) { p.silentAt = n }
}

// Delay passes before the headers, on top of the latency.
func Delay(d time.Duration) Effect {
	return func(p *reply) { p.delay += d }
}

// Then calls f when the answer is fixed and before it leaves: f may change the
// content for requests to come.
func Then(f func()) Effect {
	return func(*reply) { f() }
}

// Trickle sends n bytes, waits for every, and so on.
func Trickle(n int, every time.Duration) Effect {
	return func(p *reply) { p.trickle = trickle{n: n, every: every} }
}

// Corrupt flips a bit of the byte at that offset of the content, if it is
// within what is sent.
func Corrupt(offset int64) Effect {
	return func(p *reply) { p.corruptAt = offset }
}

// IgnoreRange answers with the whole content.
func IgnoreRange() Effect {
	return func(p *reply) {
		if p.status == http.StatusPartialContent {
			p.status, p.off, p.n = http.StatusOK, 0, p.body.Size()
			p.header.Del("Content-Range")
		}
	}
}

// trickle slows a body down; the zero value does not.
type trickle struct {
	n     int
	every time.Duration
}

package admin

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"shoal/seeder"
)

const (
	pullPath    = "/api/v1/pull"
	preheatPath = "/api/v1/preheat"
	// MaxImages bounds the images of one pull.
	MaxImages = 100
	// MaxPreheats bounds those of a preheat.
	MaxPreheats = 16
	// tellPatience is how long a client may take to hear how far its images are.
	tellPatience = 30 * time.Second
)

// Pull asks a node to fetch images. It stops if the asker leaves.
type Pull struct {
	Images []string `json:"images"`
	// Platforms are OS/ARCHITECTURE[/VARIANT], or "all"; none is the node's own.
	Platforms []string `json:"platforms,omitempty"`
}

// Preheat has a node, and the members that signed statements name, fetch images.
// They go on if the asker leaves.
type Preheat struct {
	Statements [][]byte `json:"statements"` // statement.Preheat, base64 in JSON
	// Wait: until all have ended; else until all have begun, or refused.
	Wait bool `json:"wait,omitempty"`
}

// Progress is how far an image is on a node.
type Progress struct {
	Node string `json:"node,omitempty"` // its peer ID; empty for a pull
	Zone string `json:"zone,omitempty"`
	seeder.Progress
}

// Pulling is how far the images are. The answer is one of these a line, the last
// one with Done.
type Pulling struct {
	Images []Progress `json:"images"`
	Done   bool       `json:"done"`
}

// servePull answers POST of a Pull.
func (o Options) servePull(w http.ResponseWriter, r *http.Request) {
	var ask Pull
	usable := func() bool { return len(ask.Images) > 0 && len(ask.Images) <= MaxImages }
	if readAsk(w, r, &ask, usable, fmt.Sprintf(`{"images": [NAME, ...]}, at most %d, and "platforms"`, MaxImages)) {
		o.serveProgress(w, r, func(ctx context.Context, tell func([]Progress)) error { return o.Pull(ctx, ask, tell) })
	}
}

// servePreheat answers POST of a Preheat.
func (o Options) servePreheat(w http.ResponseWriter, r *http.Request) {
	var ask Preheat
	usable := func() bool { return len(ask.Statements) > 0 && len(ask.Statements) <= MaxPreheats }
	if readAsk(w, r, &ask, usable, fmt.Sprintf(`{"statements": [BASE64, ...]}, at most %d, and "wait"`, MaxPreheats)) {
		o.serveProgress(w, r, func(ctx context.Context, tell func([]Progress)) error { return o.Preheat(ctx, ask, tell) })
	}
}

// serveProgress answers with what fetch tells for as long as it does.
func (o Options) serveProgress(w http.ResponseWriter, r *http.Request, fetch func(ctx context.Context, tell func([]Progress)) error) {
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{}) // the server's would be the asker's end
	var last []Progress
	send := func(p Pulling) {
		_ = out.SetWriteDeadline(time.Now().Add(tellPatience)) // every ResponseWriter of a server has one
		if err := json.NewEncoder(w).Encode(p); err == nil {
			_ = out.Flush() // whoever has left is found by r's context
		}
	}
	err := fetch(r.Context(), func(now []Progress) {
		if last == nil {
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.Header().Set("Cache-Control", "no-store")
		}
		last = now
		send(Pulling{Images: now})
	})
	switch {
	case last != nil:
		send(Pulling{Images: last, Done: true})
	default:
		o.failed(w, r.URL.Path, err)
	}
}

// Do has the node whose admin endpoint is at addr fetch, and calls show with what
// it tells. It returns how it ended. Error: ErrRefused among others.
func (p Pull) Do(ctx context.Context, addr string, show func([]Progress)) ([]Progress, error) {
	return fetchAt(ctx, addr, pullPath, p, show)
}

// Do is Pull's.
func (p Preheat) Do(ctx context.Context, addr string, show func([]Progress)) ([]Progress, error) {
	return fetchAt(ctx, addr, preheatPath, p, show)
}

func fetchAt(ctx context.Context, addr, path string, ask any, show func([]Progress)) ([]Progress, error) {
	req, err := newPost(ctx, addr, path, ask)
	if err != nil {
		return nil, err
	}
	body, err := open(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxAnswerSize)
	var last Pulling
	for !last.Done {
		var now Pulling
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &now) != nil || len(now.Images) == 0 {
			return last.Images, fmt.Errorf("the node left before all was done: %w", cmp.Or(lines.Err(), io.ErrUnexpectedEOF))
		}
		if last = now; !last.Done {
			show(now.Images)
		}
	}
	return last.Images, nil
}

package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
)

const (
	invalidatePath = "/api/v1/cache/invalidate"
	// maxBody bounds the body of a request, in bytes: a statement in base64 has
	// a thousand.
	maxBody = 8 << 10
)

// ErrRefused means that a node does not do what it is asked, for the reason that
// the error tells in one line.
var ErrRefused = errors.New("refused")

// Invalidate asks a node to forget what it knows of an image: either of its name,
// here, or of a signed statement.Invalidation, here and in the whole swarm.
type Invalidate struct {
	Image     string `json:"image,omitempty"`
	Statement []byte `json:"statement,omitempty"` // base64 in JSON
}

// Invalidated is what came of it.
type Invalidated struct {
	Image     string `json:"image"`     // with registry and all
	Forgotten int    `json:"forgotten"` // things, on this node
	Members   int    `json:"members"`   // that took the statement from this node
}

// fromProgram reports whether a request that is to change something may, and
// answers it if not. Pages of other sites, and those of names that were made to
// lead here, can have a browser send requests, but browsers say so, and none
// sends JSON to another site unasked.
func fromProgram(w http.ResponseWriter, r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Origin") != "", r.Header.Get("Sec-Fetch-Site") != "":
		http.Error(w, "not for web pages", http.StatusForbidden)
		return false
	case err != nil || kind != "application/json":
		http.Error(w, "Content-Type must be application/json", http.StatusUnsupportedMediaType)
		return false
	}
	return true
}

// serveInvalidate answers POST of an Invalidate.
func (o Options) serveInvalidate(w http.ResponseWriter, r *http.Request) {
	if !fromProgram(w, r) {
		return
	}
	var ask Invalidate
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&ask); err != nil || (ask.Image == "") == (len(ask.Statement) == 0) {
		http.Error(w, "use {\"image\": NAME} or {\"statement\": BASE64}", http.StatusBadRequest)
		return
	}
	done, err := o.Invalidate(r.Context(), ask)
	switch {
	case errors.Is(err, ErrRefused):
		http.Error(w, err.Error(), http.StatusForbidden)
	case err != nil:
		o.Logger.Error("invalidate", "error", err)
		http.Error(w, "it failed, see the log", http.StatusInternalServerError)
	default:
		o.writeJSON(w, done)
	}
}

// Do has the node whose admin endpoint is at addr forget. Error: ErrRefused
// among others.
func (i Invalidate) Do(ctx context.Context, addr string) (Invalidated, error) {
	body, err := json.Marshal(i)
	if err != nil {
		return Invalidated{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+dialable(addr)+invalidatePath, bytes.NewReader(body))
	if err != nil {
		return Invalidated{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	status, text, err := send(req)
	if err != nil {
		return Invalidated{}, err
	}
	said := strings.TrimSpace(string(text[:min(len(text), 500)]))
	switch status {
	case http.StatusOK:
	case http.StatusForbidden:
		return Invalidated{}, fmt.Errorf("%w%s", ErrRefused, strings.TrimPrefix(said, ErrRefused.Error()))
	default:
		return Invalidated{}, fmt.Errorf("%d %s: %s", status, http.StatusText(status), said)
	}
	var done Invalidated
	if json.Unmarshal(text, &done) != nil || done.Image == "" {
		return Invalidated{}, fmt.Errorf("%s does not answer like a shoal node", addr)
	}
	return done, nil
}

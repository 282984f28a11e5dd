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
	jsonType = "application/json"
	// maxBody bounds the body of a request in JSON, in bytes: a statement in
	// base64 has a thousand, and a hundred images have as many names.
	maxBody = 64 << 10
)

// ErrRefused means that a node does not do what it is asked, for the reason that
// the error tells in one line.
var ErrRefused = errors.New("refused")

// forPrograms tells whether a request that changes something is of the wanted
// type and none that a web page made; otherwise it has answered. Pages of other
// sites, and those of names that were made to lead here, can have a browser send
// requests, but browsers say so, and none sends such types to another site
// unasked.
func forPrograms(w http.ResponseWriter, r *http.Request, want string) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Origin") != "", r.Header.Get("Sec-Fetch-Site") != "":
		http.Error(w, "not for web pages", http.StatusForbidden)
		return false
	case err != nil || kind != want:
		http.Error(w, "Content-Type must be "+want, http.StatusUnsupportedMediaType)
		return false
	}
	return true
}

func decode(w http.ResponseWriter, r *http.Request, ask any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	return dec.Decode(ask)
}

// readAsk reads a request to do something into ask, or answers that it is none:
// use tells what would be.
func readAsk(w http.ResponseWriter, r *http.Request, ask any, usable func() bool, use string) bool {
	if !forPrograms(w, r, jsonType) {
		return false
	}
	if err := decode(w, r, ask); err != nil || !usable() {
		http.Error(w, "use "+use, http.StatusBadRequest)
		return false
	}
	return true
}

// failed answers that what was to be done failed.
func (o Options) failed(w http.ResponseWriter, what string, err error) {
	if errors.Is(err, ErrRefused) {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	o.Logger.Error("request of the operator failed", "request", what, "error", err)
	http.Error(w, "it failed, see the log", http.StatusInternalServerError)
}

// handle answers a POST of an Ask by what do returns.
func handle[Ask, Answer any](o Options, do func(context.Context, Ask) (Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var ask Ask
		if !forPrograms(w, r, jsonType) {
			return
		}
		if err := decode(w, r, &ask); err != nil {
			http.Error(w, "no request that is known: "+err.Error(), http.StatusBadRequest)
			return
		}
		done, err := do(r.Context(), ask)
		if err != nil {
			o.failed(w, r.URL.Path, err)
			return
		}
		o.writeJSON(w, done)
	}
}

// tell posts ask to a node, and returns its answer as it came, and what it says.
func tell[Answer any](ctx context.Context, addr, path string, ask any, plausible func(Answer) bool) (text []byte, done Answer, err error) {
	req, err := newPost(ctx, addr, path, ask)
	if err != nil {
		return nil, done, err
	}
	status, text, err := send(single(), req)
	if err == nil {
		err = refusal(status, text)
	}
	if err != nil {
		return nil, done, err
	}
	if json.Unmarshal(text, &done) != nil || !plausible(done) {
		return nil, done, fmt.Errorf("%s does not answer like a shoal node", addr)
	}
	return text, done, nil
}

func newPost(ctx context.Context, addr, path string, ask any) (*http.Request, error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+dialable(addr)+path, bytes.NewReader(body))
	if err == nil {
		req.Header.Set("Content-Type", jsonType)
	}
	return req, err
}

// refusal is the error that an answer tells, nil if it is a good one.
func refusal(status int, text []byte) error {
	said := strings.TrimSpace(string(text[:min(len(text), 500)]))
	switch status {
	case http.StatusOK:
		return nil
	case http.StatusForbidden:
		return fmt.Errorf("%w%s", ErrRefused, strings.TrimPrefix(said, ErrRefused.Error()))
	}
	return fmt.Errorf("%d %s: %s", status, http.StatusText(status), said)
}

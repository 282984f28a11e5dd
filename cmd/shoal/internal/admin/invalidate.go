package admin

import (
	"context"
	"net/http"
)

const invalidatePath = "/api/v1/cache/invalidate"

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

// serveInvalidate answers POST of an Invalidate.
func (o Options) serveInvalidate(w http.ResponseWriter, r *http.Request) {
	var ask Invalidate
	usable := func() bool { return (ask.Image == "") != (len(ask.Statement) == 0) }
	if !readAsk(w, r, &ask, usable, `{"image": NAME} or {"statement": BASE64}`) {
		return
	}
	done, err := o.Invalidate(r.Context(), ask)
	if err != nil {
		o.failed(w, "invalidate", err)
		return
	}
	o.writeJSON(w, done)
}

// Do has the node whose admin endpoint is at addr forget. Error: ErrRefused
// among others.
func (i Invalidate) Do(ctx context.Context, addr string) (Invalidated, error) {
	_, done, err := tell(ctx, addr, invalidatePath, i, func(i Invalidated) bool { return i.Image != "" })
	return done, err
}

package admin

import (
	"context"
	"net/http"

	"shoal/seeder"
)

const lookPath = "/api/v1/seeder/look"

// Look has a node's seeder look at a selection now, or at all if it is empty.
type Look struct {
	Selection string `json:"selection,omitempty"`
}

// serveLook answers POST of a Look.
func (o Options) serveLook(w http.ResponseWriter, r *http.Request) {
	var ask Look
	if !readAsk(w, r, &ask, func() bool { return true }, `{"selection": NAME} or {}`) {
		return
	}
	if err := o.Look(ask.Selection); err != nil {
		o.failed(w, r.URL.Path, err)
		return
	}
	o.writeJSON(w, ask)
}

// Do has the node whose admin endpoint is at addr look. Error: ErrRefused among
// others.
func (l Look) Do(ctx context.Context, addr string) error {
	req, err := newPost(ctx, addr, lookPath, l)
	if err != nil {
		return err
	}
	status, text, err := send(single(), req)
	if err != nil {
		return err
	}
	return refusal(status, text)
}

// FetchSeeder is Fetch for what the node fetches by itself.
func FetchSeeder(ctx context.Context, addr string) ([]byte, seeder.Report, error) {
	return query(ctx, addr, "seeder", func(r seeder.Report) bool { return r.Selections != nil })
}

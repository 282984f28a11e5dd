package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"shoal/cmd/shoal/internal/pulls"
	"shoal/cmd/shoal/internal/waterfall"
	"shoal/proxy/pull"
)

// Pulls is the answer of /api/v1/pulls: the last first. Fields are added, never
// renamed or removed.
type Pulls struct {
	Pulls []pull.Summary `json:"pulls"`
}

const svgEnding = ".svg"

// serveReport answers /api/v1/pulls/ID, and /api/v1/pulls/ID.svg with a picture.
func (o Options) serveReport(w http.ResponseWriter, r *http.Request) {
	name, picture := strings.CutSuffix(r.PathValue("id"), svgEnding)
	id, err := strconv.Atoi(name)
	if err != nil {
		http.Error(w, "use /api/v1/pulls/ID or /api/v1/pulls/ID"+svgEnding+", with the number of a pull of /api/v1/pulls", http.StatusBadRequest)
		return
	}
	report, err := o.Pulls.Get(id)
	switch {
	case errors.Is(err, pulls.ErrNotFound):
		http.Error(w, fmt.Sprintf("no pull %d: the last %d are kept", id, pulls.Kept), http.StatusNotFound)
	case err != nil:
		o.Logger.Error("pulls", "error", err)
		http.Error(w, "the report cannot be read, see the log", http.StatusInternalServerError)
	case picture:
		w.Header().Set("Content-Type", "image/svg+xml")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if _, err := io.WriteString(w, waterfall.SVG(report)); err != nil {
			o.Logger.Debug("client went away", "error", err)
		}
	default:
		o.writeJSON(w, report)
	}
}

// FetchPulls is Fetch for the last pulls.
func FetchPulls(ctx context.Context, addr string) ([]byte, Pulls, error) {
	return query(ctx, addr, "pulls", func(p Pulls) bool { return p.Pulls != nil })
}

// FetchPull returns the function that is Fetch for the report of one pull. Its
// error is pulls.ErrNotFound if there is none.
func FetchPull(id int) func(ctx context.Context, addr string) ([]byte, pull.Report, error) {
	return func(ctx context.Context, addr string) ([]byte, pull.Report, error) {
		text, r, err := query(ctx, addr, "pulls/"+strconv.Itoa(id), func(r pull.Report) bool { return r.ID == id && len(r.Waits) > 0 })
		if e, ok := errors.AsType[*statusError](err); ok && e.status == http.StatusNotFound {
			err = fmt.Errorf("%w: %d", pulls.ErrNotFound, id)
		}
		return text, r, err
	}
}

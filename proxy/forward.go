package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
)

// maxForward is the largest list of tags or referrers in bytes; a page of
// 100,000 tags fits.
const maxForward = 16 << 20

// forwardLink turns the Link header of an upstream's page (RFC 8288; OCI
// distribution specification, "Listing Tags") into one that leads back here:
// the path that this client used, with the upstream's query and the client's
// ns. It returns "" for what is not a link to a next page.
func forwardLink(link string, client *url.URL) string {
	query, ok := origin.NextPage(link)
	if !ok {
		return ""
	}
	query.Del("ns")
	if ns := client.Query().Get("ns"); ns != "" {
		query.Set("ns", ns)
	}
	next := url.URL{Path: client.Path, RawQuery: query.Encode()}
	return fmt.Sprintf(`<%s>; rel="next"`, next.String())
}

// readJSON reads a small JSON document from an upstream.
func readJSON(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", blob.ErrUnavailable, err)
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("%w: over %d bytes", blob.ErrTooLarge, limit)
	case !json.Valid(body):
		return nil, fmt.Errorf("%w: the answer is not JSON", blob.ErrUnavailable)
	}
	return body, nil
}

// forwarded are the headers of a list that clients use, besides Link.
func forwarded() []string { return []string{"Content-Type", "Oci-Filters-Applied"} }

// forward answers tags/list and referrers with the upstream's answer: they
// change at any time and nothing can prove them. edit, if there is one, has the
// last word on the body and on the link to the next page.
func (x *exchange) forward(ctx context.Context, suffix string, edit func(body []byte, link string) ([]byte, string)) error {
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	query := x.r.URL.Query()
	query.Del("ns")
	resp, err := x.repo.Forward(ctx, http.MethodGet, suffix, query.Encode(), x.r.Header.Values("Accept"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := readJSON(resp.Body, maxForward)
	if err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	for _, key := range forwarded() {
		if v := resp.Header.Get(key); v != "" {
			h.Set(key, v)
		}
	}
	link := resp.Header.Get("Link")
	if edit != nil {
		body, link = edit(body, link)
	}
	if link := forwardLink(link, x.r.URL); link != "" {
		h.Set("Link", link)
	}
	x.small(http.StatusOK, body)
	return nil
}

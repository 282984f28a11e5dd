package origin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"shoal/blobcache/blob"
)

const (
	// pageSize is how many names are asked for at a time. Registries give fewer
	// as they like.
	pageSize = "1000"
	// maxPages and maxPage, in bytes, bound what a list may be: a million tags,
	// and any that does not end.
	maxPages = 1000
	maxPage  = 16 << 20
	// maxNames bounds the names of a list.
	maxNames = 1 << 20
)

// NextPage returns the query of the next page of a list, which a Link header names
// (RFC 8288; OCI distribution specification, "Listing Tags"), and false if it names
// none. Nothing else of the link counts: who answers stays who it is.
func NextPage(link string) (query url.Values, ok bool) {
	link, ok = strings.CutPrefix(strings.TrimSpace(link), "<")
	target, params, closed := strings.Cut(link, ">")
	if !ok || !closed || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
		return nil, false
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil, false
	}
	return u.Query(), true
}

// Tags returns all tags of the repository, in the order of the registry. Errors:
// those of package blob, wrapped; blob.ErrTooLarge for a list without end.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	return r.list(ctx, "tags/list", func(page []byte) ([]string, error) {
		var doc struct {
			Tags []string `json:"tags"`
		}
		err := json.Unmarshal(page, &doc)
		return doc.Tags, err
	})
}

// Repositories returns the names of all repositories of a registry, as it is asked
// for them here: of an upstream that has them in a folder, those in it. Not every
// registry tells; Docker Hub does not. Errors: those of Repository and of Tags.
func (c *Client) Repositories(ctx context.Context, registry string) ([]string, error) {
	r, err := c.Repository(registry, "catalog") // any name will do
	if err != nil {
		return nil, err
	}
	r.name = ""
	names, err := r.list(ctx, "_catalog", func(page []byte) ([]string, error) {
		var doc struct {
			Repositories []string `json:"repositories"`
		}
		err := json.Unmarshal(page, &doc)
		return doc.Repositories, err
	})
	folder := strings.TrimPrefix(r.upstreams[0].base.Path+"/", "/")
	var all []string
	for _, name := range names {
		if name, ok := strings.CutPrefix(name, folder); ok {
			all = append(all, name)
		}
	}
	return all, err
}

// list asks for all pages of a list.
func (r *Repository) list(ctx context.Context, path string, read func(page []byte) ([]string, error)) ([]string, error) {
	var all []string
	query := url.Values{"n": {pageSize}}
	for range maxPages {
		body, link, err := r.page(ctx, path, query.Encode())
		if err != nil {
			return nil, err
		}
		names, err := read(body)
		if err != nil {
			return nil, fmt.Errorf("%w: the list %s is not JSON", blob.ErrUnavailable, path)
		}
		if all = append(all, names...); len(all) > maxNames {
			break
		}
		next, more := NextPage(link)
		if !more { // a page may have none, of those that the asker may see
			return all, nil
		}
		query = next
	}
	return nil, fmt.Errorf("%w: the list %s of %s has more than %d pages or %d names", blob.ErrTooLarge, path, r, maxPages, maxNames)
}

// page returns a page of a list, and its Link header.
func (r *Repository) page(ctx context.Context, path, query string) (body []byte, link string, err error) {
	resp, err := r.Forward(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err == nil && len(body) > maxPage {
		err = fmt.Errorf("%w: over %d bytes", blob.ErrTooLarge, maxPage)
	}
	if err != nil {
		return nil, "", fmt.Errorf("the list %s: %w", path, err)
	}
	return body, resp.Header.Get("Link"), nil
}

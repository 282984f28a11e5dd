package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/request"
)

// tagList answers with the upstream's list of tags.
func (x *exchange) tagList(ctx context.Context) error {
	return x.forward(ctx, "tags/list", func(body []byte, link string) ([]byte, string) {
		return page(body, link, x.r.URL.Query())
	})
}

// page returns what a client asked for of a list of tags and the link to what
// comes behind it: at most n tags, from the one behind last on. Some registries
// (docker-registry 2.8) answer with all of them, in no order, whatever they are
// asked: then last is among them, or they are more than n.
func page(body []byte, link string, query url.Values) (part []byte, next string) {
	var list struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if json.Unmarshal(body, &list) != nil {
		return body, link
	}
	last := query.Get("last")
	n, err := strconv.Atoi(query.Get("n"))
	limited := err == nil && n >= 0
	if !slices.Contains(list.Tags, last) && (!limited || len(list.Tags) <= n) {
		return body, link
	}
	slices.Sort(list.Tags)
	list.Tags = slices.DeleteFunc(list.Tags, func(tag string) bool { return tag <= last })
	link = ""
	if limited && n < len(list.Tags) {
		if list.Tags = list.Tags[:n]; n > 0 {
			link = fmt.Sprintf(`<?%s>; rel="next"`, url.Values{"n": {strconv.Itoa(n)}, "last": {list.Tags[n-1]}}.Encode())
		}
	}
	part, err = json.Marshal(list)
	if err != nil {
		panic(err) // strings always marshal
	}
	return part, link
}

// referrers answers with the upstream's list of what refers to a manifest. For
// an upstream that keeps no such lists it is what clients keep themselves under
// a tag for such registries (OCI distribution specification, "Unavailable
// Referrers API"), and empty if there is none.
func (x *exchange) referrers(ctx context.Context) error {
	err := x.forward(ctx, "referrers/"+x.req.Digest.String(), nil)
	var response *origin.ResponseError
	if !errors.As(err, &response) || response.Status != http.StatusNotFound {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	d, body, err := x.repo.Manifest(ctx, referrersTag(x.req), []string{ocispec.MediaTypeImageIndex})
	switch {
	case errors.Is(err, blob.ErrNotFound), err == nil && d.MediaType != ocispec.MediaTypeImageIndex:
		body = []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`)
	case err != nil:
		return err
	}
	x.w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	x.small(http.StatusOK, body)
	return nil
}

// referrersTag is the tag under which clients keep what refers to a manifest:
// the algorithm, and at most 64 characters of the sum.
func referrersTag(req request.Request) string {
	sum := req.Digest.Encoded()
	return req.Digest.Algorithm().String() + "-" + sum[:min(len(sum), 64)]
}

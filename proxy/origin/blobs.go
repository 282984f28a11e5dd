package origin

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"shoal/blobcache/blob"
)

// validatorMax is the longest ETag or the like that goes into an identity, in
// bytes.
const validatorMax = 256

var errRange = errors.New("range without bytes")

// Blobs returns the repository's blobs as a source. An upstream that ignores
// Range answers with the whole; Stream.Range tells.
func (r *Repository) Blobs() blob.Source { return blobs{r} }

type blobs struct{ *Repository }

// Open is of blob.Source. An empty blob has no byte that a range could begin
// with (RFC 9110, section 14.1.2), so some registries refuse one of it.
func (s blobs) Open(ctx context.Context, d blob.Descriptor, rng blob.Range) (*blob.Stream, error) {
	st, err := s.open(ctx, d, rng)
	var resp *ResponseError
	if rng.Offset == 0 && d.Size <= 0 && errors.As(err, &resp) && resp.Status == http.StatusRequestedRangeNotSatisfiable {
		return s.open(ctx, d, blob.Range{Length: -1})
	}
	return st, err
}

func (s blobs) open(ctx context.Context, d blob.Descriptor, rng blob.Range) (*blob.Stream, error) {
	header, err := rangeHeader(d, rng)
	if err != nil {
		return nil, err
	}
	q := request{method: http.MethodGet, kind: kindBlob, path: "blobs/" + d.Digest.String(), header: header}
	return ask(ctx, s.Repository, q, func(up *upstream, resp *http.Response) (*blob.Stream, error) {
		st, err := s.client.stream(up, d, rng, resp)
		if err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
		return st, nil
	})
}

// Stat asks for the size and type of a blob without its bytes. What the
// upstream does not tell stays as it is in d.
func (r *Repository) Stat(ctx context.Context, d blob.Descriptor) (blob.Descriptor, error) {
	q := request{method: http.MethodHead, kind: kindBlob, path: "blobs/" + d.Digest.String()}
	return ask(ctx, r, q, func(up *upstream, resp *http.Response) (blob.Descriptor, error) {
		_ = resp.Body.Close()
		if err := sensible(up, d, resp); err != nil {
			return d, err
		}
		if resp.ContentLength >= 0 {
			d.Size = resp.ContentLength
		}
		if d.MediaType == "" {
			d.MediaType = mediaType(resp)
		}
		return d, nil
	})
}

// rangeHeader returns the headers that ask for rng of d; the whole is asked
// for without Range.
func rangeHeader(d blob.Descriptor, rng blob.Range) (http.Header, error) {
	if rng.Length > blob.MaxSize {
		rng.Length = -1
	}
	switch {
	case rng.Offset < 0 || rng.Length == 0:
		return nil, errRange
	case rng.Offset > blob.MaxSize:
		return nil, fmt.Errorf("%w: offset %d", blob.ErrTooLarge, rng.Offset)
	case rng.Offset == 0 && (rng.Length < 0 || d.Size >= 0 && rng.Length >= d.Size):
		return http.Header{}, nil
	case d.Size >= 0 && rng.Offset >= d.Size:
		return nil, fmt.Errorf("%w: offset %d in a blob of %d bytes", blob.ErrTooLarge, rng.Offset, d.Size)
	case rng.Length < 0 && d.Size < 0:
		return http.Header{"Range": {fmt.Sprintf("bytes=%d-", rng.Offset)}}, nil
	}
	end := rng.Offset + rng.Length
	if d.Size >= 0 {
		// Not every registry knows ranges that are open or too long.
		end = rng.End(d.Size)
	}
	return http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", rng.Offset, end-1)}}, nil
}

// stream checks the headers of an answer against what was asked.
func (c *Client) stream(up *upstream, d blob.Descriptor, rng blob.Range, resp *http.Response) (*blob.Stream, error) {
	if err := sensible(up, d, resp); err != nil {
		return nil, err
	}
	st := &blob.Stream{Body: resp.Body, Size: resp.ContentLength, Range: blob.Range{Length: resp.ContentLength}}
	if resp.StatusCode == http.StatusPartialContent {
		got, size, err := partial(resp, rng)
		if err != nil {
			return nil, lie(up, blob.ErrUnavailable, "%v", err)
		}
		st.Range, st.Size = got, size
	}
	if st.Size > blob.MaxSize {
		return nil, fmt.Errorf("%s: %w: blob of %d bytes", up.base, blob.ErrTooLarge, st.Size)
	}
	st.Identity = c.identity(up, resp, st.Size)
	return st, nil
}

// sensible finds answers of something that is not a registry, and of one that
// answers with another blob.
func sensible(up *upstream, d blob.Descriptor, resp *http.Response) error {
	if got := resp.Header.Get("Docker-Content-Digest"); contradicts(got, d.Digest) {
		return lie(up, blob.ErrCorrupt, "answer to %s names %.80q", d.Digest, got)
	}
	if t := mediaType(resp); t == "text/html" && t != d.MediaType && (d.Size < 0 || resp.ContentLength != d.Size) {
		return lie(up, blob.ErrUnavailable, "answer to %s is a web page", d.Digest)
	}
	return nil
}

// mediaType returns the Content-Type without parameters, or "".
func mediaType(resp *http.Response) string {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// partial reads the headers of a 206. What it holds must begin where rng does
// and may end before it; size is blob.UnknownSize if it is not told.
func partial(resp *http.Response, rng blob.Range) (got blob.Range, size int64, err error) {
	header := resp.Header.Get("Content-Range")
	got, size, ok := parseContentRange(header)
	switch {
	case !ok:
		return got, size, fmt.Errorf("answer 206 with Content-Range %.80q", header)
	case got.Offset != rng.Offset, rng.Length >= 0 && got.Length > rng.Length:
		return got, size, fmt.Errorf("asked for %d bytes at %d, answer is %.80q", rng.Length, rng.Offset, header)
	case resp.ContentLength >= 0 && resp.ContentLength != got.Length:
		return got, size, fmt.Errorf("answer %.80q has a Content-Length of %d", header, resp.ContentLength)
	}
	return got, size, nil
}

// parseContentRange reads "bytes a-b/size" or "bytes a-b/*" (RFC 9110, section
// 14.4).
func parseContentRange(s string) (rng blob.Range, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, total, slash := strings.Cut(s, "/")
	first, last, dash := strings.Cut(span, "-")
	a, err1 := strconv.ParseUint(first, 10, 62)
	b, err2 := strconv.ParseUint(last, 10, 62)
	if !ok || !slash || !dash || err1 != nil || err2 != nil || b < a {
		return blob.Range{}, 0, false
	}
	rng = blob.Range{Offset: int64(a), Length: int64(b-a) + 1}
	if total == "*" {
		return rng, blob.UnknownSize, true
	}
	n, err := strconv.ParseUint(total, 10, 62)
	return rng, int64(n), err == nil && b < n
}

// identity names the version that an answer is of. An answer without any
// validator continues no other.
func (c *Client) identity(up *upstream, resp *http.Response, size int64) string {
	for _, key := range []string{"ETag", "Docker-Content-Digest", "Last-Modified"} {
		if v := resp.Header.Get(key); v != "" && len(v) <= validatorMax {
			return fmt.Sprintf("%s %s=%s %d", up.base, key, v, size)
		}
	}
	return fmt.Sprintf("%s answer=%d %d", up.base, c.anonymous.Add(1), size)
}

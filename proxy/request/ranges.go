package request

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// ErrRange is for a range that starts behind the end of the content (416).
var ErrRange = errors.New("range not satisfiable")

// Bytes reads the headers of a GET that concern which bytes of a content are
// wanted: Range and If-Range, RFC 9110 sections 13 and 14. The result has a
// true length. partial says whether to answer 206 rather than 200.
//
// As the RFC allows, a Range of more than one part, of another unit or without
// meaning is ignored: the answer is the whole. So is one whose If-Range names
// anything but this digest.
func Bytes(h http.Header, d digest.Digest, size int64) (r blob.Range, partial bool, err error) {
	whole := blob.Range{Length: size}
	spec, ok := strings.CutPrefix(h.Get("Range"), "bytes=")
	if !ok || len(h.Values("Range")) > 1 {
		return whole, false, nil
	}
	if want := h.Get("If-Range"); want != "" && want != ETag(d) {
		return whole, false, nil
	}
	first, last, ok := strings.Cut(strings.Trim(spec, " \t"), "-")
	if !ok {
		return whole, false, nil
	}
	if first == "" {
		n, ok := position(last)
		if !ok {
			return whole, false, nil
		}
		return suffix(n, size)
	}
	from, ok := position(first)
	if !ok {
		return whole, false, nil
	}
	to := size - 1
	if last != "" {
		n, ok := position(last)
		if !ok || n < from {
			return whole, false, nil
		}
		to = min(n, to)
	}
	if from >= size {
		return blob.Range{}, false, ErrRange
	}
	return blob.Range{Offset: from, Length: to - from + 1}, true, nil
}

func suffix(n, size int64) (blob.Range, bool, error) {
	n = min(n, size)
	if n == 0 {
		return blob.Range{}, false, ErrRange
	}
	return blob.Range{Offset: size - n, Length: n}, true, nil
}

// position reads a number of a range. One that fits no int64 is as good as the
// largest: it lies behind the end of every content.
func position(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1, true
	}
	return n, true
}

// ETag returns the entity tag of a content: its digest, which changes exactly
// when the content does.
func ETag(d digest.Digest) string {
	return `"` + d.String() + `"`
}

// Unchanged says whether an If-None-Match header lists the content, or any.
func Unchanged(h http.Header, d digest.Digest) bool {
	for _, field := range h.Values("If-None-Match") {
		for tag := range strings.SplitSeq(field, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == "*" || tag == ETag(d) {
				return true
			}
		}
	}
	return false
}

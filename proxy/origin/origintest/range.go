package origintest

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// ranged narrows p to the Range of req; no gives the whole all the same.
func ranged(req *http.Request, p *reply, no bool) *reply {
	if no {
		return p
	}
	p.header.Set("Accept-Ranges", "bytes")
	spec, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return p
	}
	size := p.body.Size()
	off, end, ok := parseRange(spec, size)
	if !ok {
		bad := problem(http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID")
		bad.header.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		return bad
	}
	p.status = http.StatusPartialContent
	p.off, p.n = off, end-off
	p.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, end-1, size))
	return p
}

// parseRange reads "a-b", "a-" or "-n" and returns the bytes [off, end).
func parseRange(spec string, size int64) (off, end int64, ok bool) {
	from, to, ok := strings.Cut(spec, "-")
	if !ok {
		return 0, 0, false
	}
	if from == "" {
		n, err := strconv.ParseInt(to, 10, 64)
		return max(size-n, 0), size, err == nil && n > 0 && size > 0
	}
	off, err := strconv.ParseInt(from, 10, 64)
	if err != nil || off < 0 || off >= size {
		return 0, 0, false
	}
	if to == "" {
		return off, size, true
	}
	last, err := strconv.ParseInt(to, 10, 64)
	return off, min(last, size-1) + 1, err == nil && last >= off
}
